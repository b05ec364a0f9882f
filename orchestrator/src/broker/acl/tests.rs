use proptest::prelude::*;
use protocol::id::Id;
use protocol::topic::{NodeTopic, updates_available};

use super::{Whom, acl, user_name};
use crate::broker::access::{Side, may_publish, may_subscribe, speaker};

const NODE: &str = "6b033dc62c1f07cbdcd88440";
const OTHER: &str = "6b033dc52c1f07cbdcd8843f";
const CLUSTER: &str = "orchestrator";

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

/// What Mosquitto 2 makes of an ACL file: whether a client may say something on a topic, or is told what is said there.
struct Mosquitto<'t>(&'t str);

#[derive(Clone, Copy)]
struct Client<'t> {
    id: &'t str,
    user: Option<&'t str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    Read,
    Write,
}

impl Mosquitto<'_> {
    fn lets(&self, client: Client, access: Access, topic: &str) -> bool {
        let mut section = None;
        self.0.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).any(|line| {
            let (kind, rest) = line.split_once(' ').expect("a keyword and something");
            if kind == "user" {
                section = Some(rest);
                return false;
            }
            let (allowed, filter) = rest.split_once(' ').expect("an access and a topic");
            let allowed = match allowed {
                "read" => Access::Read,
                "write" => Access::Write,
                other => panic!("{other:?} is not for this interpreter: {line}"),
            };
            let filter = match kind {
                "topic" if section == client.user => filter.to_owned(),
                "topic" => return false,
                "pattern" => match fill_in(filter, client) {
                    Some(filter) => filter,
                    None => return false,
                },
                other => panic!("{other:?} is no keyword: {line}"),
            };
            allowed == access && matches(&filter, topic)
        })
    }

    fn lets_say(&self, user: &str, topic: &str) -> bool {
        self.lets(Client { id: "anything", user: Some(user) }, Access::Write, topic)
    }

    fn lets_hear(&self, user: &str, topic: &str) -> bool {
        self.lets(Client { id: "anything", user: Some(user) }, Access::Read, topic)
    }
}

/// The filter of a pattern, if it is one for this client.
fn fill_in(pattern: &str, client: Client) -> Option<String> {
    let is_wild = |name: &str| name.contains(['+', '#', '/']);
    if is_wild(client.id) || client.user.is_some_and(is_wild) {
        return None;
    }
    let filled = pattern.replace("%c", client.id);
    match client.user {
        Some(user) => Some(filled.replace("%u", user)),
        None => (!pattern.contains("%u")).then_some(filled),
    }
}

/// Whether a topic is one of those that a filter stands for.
fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    if topic[0].starts_with('$') != filter[0].starts_with('$') {
        return false;
    }
    if let Some((&"#", parents)) = filter.split_last() {
        return topic.len() >= parents.len() && all_match(parents, &topic);
    }
    filter.len() == topic.len() && all_match(&filter, &topic)
}

fn all_match(filter: &[&str], topic: &[&str]) -> bool {
    filter.iter().zip(topic).all(|(filter, level)| *filter == "+" || filter == level)
}

/// Every filter by which a topic can be listened to.
fn filters_of(topic: &str) -> Vec<String> {
    let levels: Vec<_> = topic.split('/').collect();
    let mut beginnings = vec![String::new()];
    let mut filters = Vec::new();
    for (index, level) in levels.iter().enumerate() {
        let slash = if index == 0 { "" } else { "/" };
        filters.extend(beginnings.iter().map(|beginning| format!("{beginning}{slash}#")));
        beginnings = beginnings
            .iter()
            .flat_map(|beginning| [format!("{beginning}{slash}{level}"), format!("{beginning}{slash}+")])
            .collect();
    }
    filters.extend(beginnings.iter().map(|beginning| format!("{beginning}/#")));
    filters.extend(beginnings);
    filters
}

/// Whether the embedded broker would tell a node of what is said on a topic, however it subscribed.
fn embedded_lets_hear(node: Id, topic: &str) -> bool {
    filters_of(topic).iter().any(|filter| may_subscribe(node, filter))
}

/// Topics near those that there are.
fn topics() -> impl Strategy<Value = String> {
    let kinds: Vec<_> = NodeTopic::all().collect();
    let known = (prop::sample::select(kinds), prop::sample::select(vec![NODE, OTHER]))
        .prop_map(|(kind, node)| kind.of(&id(node)));
    let levels = prop::sample::select(vec![
        "nodes",
        "jobs",
        NODE,
        OTHER,
        "control",
        "net",
        "deploy",
        "information",
        "job",
        "alive",
        "resources",
        "tablequery",
        "request",
        "result",
        "updates_available",
        "a.b.c.d",
        "",
        "x",
        "$SYS",
    ]);
    let built = prop::collection::vec(levels, 1..6).prop_map(|levels| levels.join("/"));
    prop_oneof![known, built]
}

proptest! {
    #[test]
    fn a_node_may_say_and_hear_the_same_at_either_broker(topic in topics()) {
        let text = acl(CLUSTER, Whom::All, false);
        let file = Mosquitto(&text);
        prop_assert_eq!(file.lets_say(NODE, &topic), may_publish(id(NODE), &topic).is_some(), "say {}", topic);
        prop_assert_eq!(file.lets_hear(NODE, &topic), embedded_lets_hear(id(NODE), &topic), "hear {}", topic);
    }

    #[test]
    fn the_cluster_may_say_what_nodes_hear_of_it_and_hear_what_they_say(topic in topics()) {
        let text = acl(CLUSTER, Whom::All, false);
        let (node, kind) = NodeTopic::parse(&topic).unzip();
        let side = kind.map(speaker);
        let is_update = matches(&updates_available("+"), &topic);
        let file = Mosquitto(&text);
        prop_assert_eq!(file.lets_say(CLUSTER, &topic), side == Some(Side::Cluster) || is_update, "say {}", topic);
        // Updates it may hear with everybody.
        prop_assert_eq!(file.lets_hear(CLUSTER, &topic), side == Some(Side::Node) || is_update, "hear {}", topic);
        if let Some(node) = node.filter(|_| side == Some(Side::Cluster)) {
            prop_assert!(embedded_lets_hear(node, &topic), "nobody hears {}", topic);
        }
    }
}

#[test]
fn each_topic_is_in_the_file_for_both_of_its_sides() {
    let text = acl(CLUSTER, Whom::All, false);
    let file = Mosquitto(&text);
    for kind in NodeTopic::all() {
        let (own, others) = (kind.of(&id(NODE)), kind.of(&id(OTHER)));
        let from_node = speaker(kind) == Side::Node;
        assert_eq!(
            (file.lets_say(NODE, &own), file.lets_hear(CLUSTER, &own)),
            (from_node, from_node),
            "{own}"
        );
        assert_eq!(file.lets_say(CLUSTER, &own), !from_node, "{own}");
        assert!(from_node || file.lets_hear(NODE, &own), "{own}");
        assert!(!file.lets_say(NODE, &others) && !file.lets_hear(NODE, &others), "{others}");
    }
    let updates = updates_available("a.b.c.d");
    assert!(
        file.lets_say(CLUSTER, &updates) && file.lets_hear(NODE, &updates) && !file.lets_say(NODE, &updates)
    );
}

#[test]
fn at_the_workers_listener_nobody_is_the_cluster() {
    let deploy = NodeTopic::ControlDeploy.of(&id(NODE));
    let information = NodeTopic::Information.of(&id(NODE));
    let text = acl(CLUSTER, Whom::Workers, false);
    let workers = Mosquitto(&text);
    assert!(!workers.lets_say(CLUSTER, &deploy) && !workers.lets_hear(CLUSTER, &information));
    assert!(workers.lets_say(NODE, &information) && workers.lets_hear(NODE, &deploy));
    let text = acl(CLUSTER, Whom::Cluster, false);
    let cluster = Mosquitto(&text);
    assert!(cluster.lets_say(CLUSTER, &deploy) && cluster.lets_hear(CLUSTER, &information));
    assert!(!cluster.lets_say(NODE, &information) && !cluster.lets_hear(NODE, &deploy));
}

#[test]
fn workers_without_a_name_are_let_in_only_where_that_is_asked_for() {
    let engine = format!("{NODE}-ne");
    let (engine, netmanager) = (Client { id: &engine, user: None }, Client { id: NODE, user: None });
    let named = Client { id: NODE, user: Some(NODE) };
    let strict = acl(CLUSTER, Whom::All, false);
    let open = acl(CLUSTER, Whom::All, true);
    for kind in NodeTopic::all() {
        let (own, others) = (kind.of(&id(NODE)), kind.of(&id(OTHER)));
        let access = if speaker(kind) == Side::Node { Access::Write } else { Access::Read };
        for client in [engine, netmanager] {
            assert!(!Mosquitto(&strict).lets(client, access, &own), "{own}");
        }
        let of_the_network = own.contains("/net/");
        let client = if of_the_network { netmanager } else { engine };
        assert!(Mosquitto(&open).lets(client, access, &own), "{own}");
        // What the file says that it cannot do.
        assert_eq!(Mosquitto(&open).lets(client, access, &others), !of_the_network, "{others}");
        assert!(!Mosquitto(&open).lets(named, access, &others), "{others}");
    }
}

#[test]
fn a_name_that_would_be_something_else_in_the_file_is_refused() {
    assert_eq!(user_name("hypha cluster").as_deref(), Ok("hypha cluster"));
    for name in ["", " a", "a\nuser b", "a/b", "#", NODE] {
        assert!(user_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn nobody_is_told_to_give_passwords_to_workers_which_send_none() {
    let head = acl(CLUSTER, Whom::All, false);
    let head = head.split("\n\n").next().unwrap();
    let remedies: Vec<_> = head.lines().filter(|line| line.contains("password_file")).collect();
    assert_eq!(remedies.len(), 2, "{remedies:?}");
    assert!(
        head.contains("The cluster's can be checked: by a password")
            && head.contains("Those of workers cannot")
    );
    let of_workers = head.split("listener 10003").nth(1).and_then(|rest| rest.split("listener 8883").next());
    assert!(
        of_workers.is_some_and(|it| it.contains("allow_anonymous true") && !it.contains("password_file"))
    );
}
