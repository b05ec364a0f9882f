//! The rules of [`super::access`], written down for a broker that is not ours: an ACL file of Mosquitto.

use std::io;
use std::path::PathBuf;

use protocol::topic::{NodeTopic, updates_available};

use super::access::{HEARD_BELOW, Side, speaker};

/// The flags of `orchestrator broker-acl`.
#[derive(Debug, Clone, clap::Args)]
pub struct AclArgs {
    /// User name of the cluster at the broker, as in --broker mqtts://USER@HOST.
    #[arg(long, value_name = "USER", default_value = "orchestrator", value_parser = user_name)]
    pub user: String,
    /// Whose rules. With `per_listener_settings true` a listener of its own for the cluster, which has a password or a certificate,
    /// gets those of the cluster, and the workers' listener, which can ask for neither, those of the workers: there nobody can claim
    /// to be the cluster.
    #[arg(long = "for", value_name = "WHOM", value_enum, default_value_t = Whom::All)]
    pub whom: Whom,
    /// Let in workers that send no user name, too: Oakestra's, unless they have certificates. Any client without a name can then
    /// command and impersonate any such worker's containers, as it can at Oakestra's own broker.
    #[arg(long)]
    pub nameless_workers: bool,
    /// Write it to this file instead of the standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Whose rules are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Whom {
    All,
    Workers,
    Cluster,
}

/// The file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("write the ACL to {file} (--output)")]
pub struct AclError {
    file: PathBuf,
    source: io::Error,
}

/// Writes the file, if one is named. Gives what is to be shown.
///
/// # Errors
/// When the file cannot be written.
pub fn broker_acl(args: &AclArgs) -> Result<String, AclError> {
    let text = acl(&args.user, args.whom, args.nameless_workers);
    let Some(file) = &args.output else { return Ok(text.trim_end().to_owned()) };
    match std::fs::write(file, text) {
        Ok(()) => Ok(format!("wrote {}", file.display())),
        Err(source) => Err(AclError { file: file.clone(), source }),
    }
}

/// What Mosquitto can read at the end of a line, and what is no node's name.
fn user_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text != text.trim() || text.contains(|c: char| c.is_control() || "+#/".contains(c))
    {
        return Err("expected a name without blanks around it, control characters, and + # /");
    }
    if text.parse::<protocol::id::Id>().is_ok() {
        return Err("this could be the name of a node");
    }
    Ok(text.to_owned())
}

/// The file. `cluster` is the user name of the cluster at the broker.
#[must_use]
pub fn acl(cluster: &str, whom: Whom, nameless_workers: bool) -> String {
    let mut text = String::from(HEAD);
    // Lines that are of no user must come before those that are of one.
    if whom != Whom::Cluster && nameless_workers {
        text.push_str(NAMELESS);
        text.extend(nameless());
    }
    if whom != Whom::Cluster {
        text.push_str(WORKERS);
        text.extend(workers());
    }
    if whom != Whom::Workers {
        text.extend([CLUSTER.to_owned(), line("user", cluster)]);
        text.extend(of_cluster());
    }
    text
}

/// A node, which is known by its user name.
fn workers() -> impl Iterator<Item = String> {
    let says = from(Side::Node).map(|topic| line("pattern write", &of("%u", topic)));
    let hears = HEARD_BELOW.iter().map(|area| line("pattern read", &format!("nodes/%u/{area}/#")));
    says.chain(hears).chain([line("pattern read", &updates_available("+"))])
}

/// A node without a user name. Its netmanager's client id is that of the node, its node-engine's has something behind it,
/// which no pattern takes off.
fn nameless() -> impl Iterator<Item = String> {
    let says = from(Side::Node).map(|topic| match is_of_the_network(topic) {
        true => line("pattern write", &of("%c", topic)),
        false => line("topic write", &topic.of_all()),
    });
    let hears = HEARD_BELOW.iter().map(|area| match *area {
        "net" => line("pattern read", &format!("nodes/%c/{area}/#")),
        area => line("topic read", &format!("nodes/+/{area}/#")),
    });
    // Those without a name first: what follows a pattern is still read as theirs, but looks as if it were not.
    let (mut all, patterns): (Vec<_>, Vec<_>) =
        says.chain(hears).partition(|line: &String| line.starts_with("topic"));
    all.extend(patterns);
    all.into_iter()
}

fn of_cluster() -> impl Iterator<Item = String> {
    let hears = from(Side::Node).map(|topic| line("topic read", &topic.of_all()));
    let says = from(Side::Cluster).map(|topic| line("topic write", &topic.of_all()));
    hears.chain(says).chain([line("topic write", &updates_available("+"))])
}

fn from(side: Side) -> impl Iterator<Item = NodeTopic> {
    NodeTopic::all().filter(move |topic| speaker(*topic) == side)
}

fn of(node: &str, topic: NodeTopic) -> String {
    format!("nodes/{node}/{}", topic.suffix())
}

/// Whether it is netmanager that speaks there, and not node-engine.
fn is_of_the_network(topic: NodeTopic) -> bool {
    topic.suffix().starts_with("net/")
}

fn line(rule: &str, topic: &str) -> String {
    format!("{rule} {topic}\n")
}

const HEAD: &str = "\
# Who may say and hear what at the MQTT broker of a Hypha cluster: an acl_file of Mosquitto.
# Made by `orchestrator broker-acl` from the rules by which the embedded broker judges. Make it anew after an upgrade.
#
# What no ACL file can do:
# - Know who somebody is. A user name is a claim until Mosquitto checks it. The cluster's can be checked: by a password
#   (`password_file`, `allow_anonymous false`), or by a certificate with it as common name (`require_certificate true`,
#   `use_identity_as_username true`). Those of workers cannot: Hypha's node-engine and netmanager have neither a password nor a
#   certificate, and a listener that asks for one keeps them out (Oakestra's may have certificates, with the node's id as common
#   name). Who reaches the workers' listener and knows a node's id can speak as that node: let nobody else reach it.
# - Keep out nodes that have not registered. They are let in, and the cluster ignores what they say.
# - Say which client id is whose: one who connects with another's ends that one's connection.
# - Refuse a subscription. Mosquitto grants it, and delivers only what may be read.
# The cluster believes the broker: whose a message is, its topic says.
#
# With two listeners nobody can claim to be the cluster where workers come in. In mosquitto.conf:
#   per_listener_settings true
#   message_size_limit 262144     the cluster ignores what is longer
#   persistence true              what is said while the cluster is away survives a restart of Mosquitto
#   listener 10003                where workers look for it: --mqtt-port of the cluster, under the cluster's address
#   allow_anonymous true          Hypha's workers have no password
#   acl_file FILE                 of `orchestrator broker-acl --for workers`
#   listener 8883                 --broker of the cluster, with cafile, certfile and keyfile
#   allow_anonymous false
#   password_file FILE            or require_certificate true, use_identity_as_username true
#   acl_file FILE                 of `orchestrator broker-acl --for cluster`
";

const NAMELESS: &str = "
# Workers without a user name. The client id of NetManager is the id of its node; that of NodeEngine is it with -ne behind,
# which Mosquitto cannot take apart: any client without a user name may do this at any node. Of what is NetManager's, any
# client may do what is that node's of which it has the id as client id.
";

const WORKERS: &str = "
# Workers. Hypha's node-engine and netmanager send the id of their node as user name.
";

const CLUSTER: &str = "
# The cluster itself. Whoever can claim this name commands all workers: it must have a password or a certificate, or a
# listener that only the cluster reaches.
";

#[cfg(test)]
mod tests;
