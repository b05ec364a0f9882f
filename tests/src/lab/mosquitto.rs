//! A Mosquitto that the cluster of a lab uses instead of being a broker itself, with the rules that are made for it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use protocol::port::CLUSTER_MQTT;

use crate::daemon::{Daemon, binary};
use crate::mosquitto;
use crate::netns::Netns;
use crate::process;

const USER: &str = "orchestrator";
const PASSWORD: &str = "of-the-lab";
/// On loopback, for the cluster alone.
const PORT: u16 = 1883;

/// Starts it on the cluster's node, where workers expect the broker, and waits until it listens.
pub(super) fn start(lab: &Path, netns: &Arc<Netns>) -> Result<Daemon> {
    let folder = lab.join("mosquitto");
    fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
    let at = |name: &str| folder.join(name).display().to_string();
    for whom in ["workers", "cluster"] {
        let mut print = Command::new(binary("orchestrator")?);
        print.args(["broker-acl", "--for", whom, "--user", USER, "--output", &at(whom)]);
        process::output(&mut print)?;
    }
    process::output(Command::new("mosquitto_passwd").args(["-b", "-c", &at("passwords"), USER, PASSWORD]))?;
    fs::write(at("password"), PASSWORD).context("write the cluster's password")?;
    let config = format!(
        "user root\nper_listener_settings true\nset_tcp_nodelay true\nmessage_size_limit 262144\n\
         listener {CLUSTER_MQTT}\nallow_anonymous true\nacl_file {}\n\
         listener {PORT} 127.0.0.1\nallow_anonymous false\npassword_file {}\nacl_file {}\n",
        at("workers"),
        at("passwords"),
        at("cluster")
    );
    fs::write(at("mosquitto.conf"), config).context("write Mosquitto's settings")?;
    let at = (Ipv4Addr::LOCALHOST, CLUSTER_MQTT);
    mosquitto::start(netns, folder.join("mosquitto.conf"), lab.join("mosquitto.log"), at)
}

/// The flags by which the cluster finds it.
pub(super) fn flags(lab: &Path) -> Vec<String> {
    let password = lab.join("mosquitto/password").display().to_string();
    let broker = format!("mqtt://{USER}@127.0.0.1:{PORT}");
    ["--broker".to_owned(), broker, "--broker-password-file".to_owned(), password].into()
}
