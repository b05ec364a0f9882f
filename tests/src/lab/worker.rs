//! A worker node: containerd, netmanager and node-engine in one network namespace.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Underlay;
use super::machine::pins;
use crate::cgroup::{self, HYPHA};
use crate::containerd::Containerd;
use crate::daemon::{Daemon, Recipe, binary};
use crate::netns::Netns;
use crate::process;
use crate::wait::eventually;

/// A node that runs containers.
#[derive(Debug)]
pub struct Worker {
    pub name: String,
    pub address: Ipv4Addr,
    pub netns: Arc<Netns>,
    pub node_engine: Daemon,
    pub netmanager: Daemon,
    pub containerd: Containerd,
    paths: Paths,
}

/// What the flags of netmanager and of its commands name.
#[derive(Debug)]
struct Paths {
    config: PathBuf,
    socket: PathBuf,
    state: PathBuf,
    pins: PathBuf,
}

impl Worker {
    /// Starts the daemons of worker `number`, which will look for its cluster at `cluster`.
    pub(super) fn start(number: u8, underlay: &Underlay, lab: &Path, cluster: Ipv4Addr) -> Result<Self> {
        let name = format!("worker{number}");
        let address = Ipv4Addr::new(192, 0, 2, 30 + number);
        let folder = lab.join(&name);
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let netns = underlay.add_node(&name, address)?;
        let containerd = Containerd::start(&name, &netns, &folder.join("containerd"))?;
        let paths = Paths {
            config: folder.join("netcfg.json"),
            socket: folder.join("netmanager.sock"),
            state: folder.join("netmanager"),
            pins: pins().join(&name),
        };
        let config = json!({
            "NodePublicAddress": address.to_string(),
            "NodePublicPort": protocol::port::TUNNEL.to_string(),
            "ClusterUrl": cluster.to_string(),
            "ClusterMqttPort": protocol::port::CLUSTER_MQTT.to_string(),
        });
        fs::write(&paths.config, config.to_string())
            .with_context(|| format!("write {}", paths.config.display()))?;
        fs::create_dir_all(&paths.pins).with_context(|| format!("make {}", paths.pins.display()))?;
        let recipe = |program: &str, arguments: Vec<OsString>| -> Result<Recipe> {
            Ok(Recipe {
                name: format!("{name}/{program}"),
                netns: Arc::clone(&netns),
                program: binary(program)?,
                arguments,
                environment: Vec::new(),
                log: folder.join(format!("{program}.log")),
            })
        };
        let netmanager =
            recipe("netmanager", [vec!["-c".into(), paths.config.clone().into()], paths.flags()].concat())?
                .start()?;
        let node_engine = recipe(
            "node-engine",
            vec![
                "-a".into(),
                cluster.to_string().into(),
                "-p".into(),
                protocol::port::CLUSTER_API.to_string().into(),
                "--netmanager-socket".into(),
                paths.socket.clone().into(),
                "--containerd".into(),
                containerd.socket().into(),
                "--hostname".into(),
                name.clone().into(),
                "--log-dir".into(),
                folder.join("logs").into(),
                "--state-dir".into(),
                folder.join("node-engine").into(),
            ],
        )?
        .start()?;
        Ok(Self { name, address, netns, node_engine, netmanager, containerd, paths })
    }

    /// Restarts its netmanager with this data plane.
    pub fn use_datapath(&mut self, datapath: &str) -> Result<()> {
        let text = fs::read_to_string(&self.paths.config).context("read the configuration")?;
        let mut config: Value = serde_json::from_str(&text).context("read the configuration")?;
        config["Datapath"] = json!(datapath);
        fs::write(&self.paths.config, config.to_string()).context("write the configuration")?;
        self.netmanager.terminate()?;
        self.netmanager.start_again()?;
        self.wait_for_netmanager()
    }

    pub(super) fn expect_running(&mut self) -> Result<()> {
        self.containerd.daemon.expect_running()?;
        self.netmanager.expect_running()?;
        self.node_engine.expect_running()
    }

    /// Whether its containerd can be asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        process::is_alive(self.containerd.daemon.pid())
    }

    pub fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        [&self.containerd.daemon, &self.netmanager, &self.node_engine].into_iter()
    }

    /// A command of netmanager (`status`, `flows`, `cleanup`) about this worker.
    pub fn netmanager_command(&self, command: &str) -> Result<Command> {
        let mut process = self.netns.command(binary("netmanager")?)?;
        process.arg(command).args(self.paths.flags());
        Ok(process)
    }

    /// The flags by which netmanager's commands find this worker's, as a person would type them.
    #[must_use]
    pub fn netmanager_flags(&self) -> String {
        self.paths.flags().iter().map(|flag| flag.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// What `netmanager status -o json` says.
    pub fn network_status(&self) -> Result<Value> {
        self.json("status")
    }

    /// What `netmanager flows -o json` says.
    pub fn flows(&self) -> Result<Value> {
        self.json("flows")
    }

    fn json(&self, command: &str) -> Result<Value> {
        let text = process::output(self.netmanager_command(command)?.args(["-o", "json"]))?;
        serde_json::from_str(&text).with_context(|| format!("read what netmanager {command} says: {text}"))
    }

    /// Where its data plane is pinned.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.paths.pins
    }

    /// As if its plug were pulled: every process ends at once, containers too.
    pub fn lose_power(&mut self) -> Result<()> {
        // Those that start others go first.
        self.node_engine.kill()?;
        self.netmanager.kill()?;
        self.end_all()?;
        self.containerd.daemon.kill()
    }

    /// Starts what [`Self::lose_power`] ended.
    pub(super) fn power_on(&mut self) -> Result<()> {
        self.containerd.daemon.start_again()?;
        self.containerd.wait_until_ready()?;
        self.netmanager.start_again()?;
        self.node_engine.start_again()
    }

    /// Waits until netmanager answers on its socket.
    pub fn wait_for_netmanager(&mut self) -> Result<()> {
        eventually(Duration::from_secs(10), &format!("netmanager of {} on its socket", self.name), || {
            self.netmanager.expect_running().map_err(|error| format!("{error:#}"))?;
            UnixStream::connect(&self.paths.socket).map(drop).map_err(|error| error.to_string())
        })
    }

    /// Stops the daemons in the order of their dependence and takes away what netmanager made.
    pub fn stop(&mut self) -> Result<()> {
        for daemon in [&mut self.node_engine, &mut self.netmanager] {
            if process::is_alive(daemon.pid()) {
                daemon.terminate()?;
            }
        }
        let cleaned = process::output(&mut self.netmanager_command("cleanup")?);
        let ended = self.end_all();
        cgroup::remove(&format!("{HYPHA}/{}", self.name));
        ended.and(cleaned.map(drop))
    }

    /// Ends what runs on the node: containers and their shims outlive the daemons.
    fn end_all(&self) -> Result<()> {
        process::end_all_in_netns(self.netns.path())
    }
}

impl Paths {
    fn flags(&self) -> Vec<OsString> {
        vec![
            "--socket".into(),
            self.socket.clone().into(),
            "--state-dir".into(),
            self.state.clone().into(),
            "--bpffs".into(),
            self.pins.clone().into(),
        ]
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop().ok();
    }
}
