//! A Mosquitto that the cluster of a lab uses instead of being a broker itself, with the rules that are made for it.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use protocol::port::CLUSTER_MQTT;

use crate::daemon::{Daemon, Recipe, binary};
use crate::netns::Netns;
use crate::process;
use crate::wait::eventually;

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
    let mut daemon = Recipe {
        name: "mosquitto".to_owned(),
        netns: Arc::clone(netns),
        program: "/usr/sbin/mosquitto".into(),
        arguments: vec!["-c".into(), at("mosquitto.conf").into()],
        environment: Vec::new(),
        log: lab.join("mosquitto.log"),
    }
    .start()?;
    wait(&mut daemon)?;
    Ok(daemon)
}

/// Waits until it listens.
fn wait(daemon: &mut Daemon) -> Result<()> {
    let netns = Arc::clone(&daemon.recipe().netns);
    eventually(Duration::from_secs(10), "Mosquitto to listen", || {
        daemon.expect_running().map_err(|error| format!("{error:#}"))?;
        netns
            .run(|| TcpStream::connect(("127.0.0.1", CLUSTER_MQTT)))
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    })
    .map(drop)
}

/// The flags by which the cluster finds it.
pub(super) fn flags(lab: &Path) -> Vec<String> {
    let password = lab.join("mosquitto/password").display().to_string();
    let broker = format!("mqtt://{USER}@127.0.0.1:{PORT}");
    ["--broker".to_owned(), broker, "--broker-password-file".to_owned(), password].into()
}
