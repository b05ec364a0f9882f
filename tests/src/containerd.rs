//! A real containerd of a node's own, and its `ctr` to look at it from outside our code.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::daemon::{Daemon, Recipe};
use crate::netns::Netns;
use crate::process;
use crate::wait::eventually;

/// The namespace in which node-engine keeps its containers.
pub const NAMESPACE: &str = "oakestra";

/// What needs nothing here and would write outside the node's folder, or look for devices that are not there.
const DISABLED: [&str; 4] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
];

/// Where shims keep their sockets and runc its containers, whatever containerd's configuration says.
const SHARED: &str = "/run/containerd";

/// Each node's containerd has a mount namespace of its own with its own [`SHARED`] in it: two nodes may run a
/// container of the same id after one another, and what a node mounts is gone with its last process.
const START: &str = r#"mount --bind "$2" "$1" && exec containerd --log-level warn --config "$3""#;

/// containerd with root, state and socket in one folder.
#[derive(Debug)]
pub struct Containerd {
    pub daemon: Daemon,
    socket: PathBuf,
}

/// A container that has a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    pub id: String,
    pub pid: u32,
    pub status: String,
}

impl Containerd {
    /// Starts containerd for the node `name` and waits until it answers.
    pub fn start(name: &str, netns: &Arc<Netns>, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let socket = folder.join("containerd.sock");
        let config = folder.join("containerd.toml");
        fs::write(&config, config_text(folder, &socket))
            .with_context(|| format!("write {}", config.display()))?;
        let private = folder.join("run");
        for directory in [Path::new(SHARED), &private] {
            fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        }
        let daemon = Recipe {
            name: format!("{name}/containerd"),
            netns: Arc::clone(netns),
            program: "unshare".into(),
            arguments: ["--mount", "--propagation", "slave", "--", "sh", "-c", START, "sh", SHARED]
                .into_iter()
                .map(OsString::from)
                .chain([private.into(), config.into()])
                .collect(),
            environment: Vec::new(),
            log: folder.join("containerd.log"),
        }
        .start()?;
        let mut containerd = Self { daemon, socket };
        containerd.wait_until_ready()?;
        Ok(containerd)
    }

    /// Waits until containerd answers on its socket.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        eventually(Duration::from_secs(20), "containerd to answer", || {
            self.daemon.expect_running().map_err(|error| error.to_string())?;
            self.ctr(&["version"]).map_err(|error| error.to_string())
        })
        .map(drop)
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs `ctr` in node-engine's namespace.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        process::output(
            Command::new("ctr").arg("-a").arg(&self.socket).args(["-n", NAMESPACE]).args(arguments),
        )
    }

    pub fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("the path of an archive is UTF-8")?;
        self.ctr(&["image", "import", archive]).map(drop)
    }

    /// The containers' processes as containerd sees them.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        Ok(parse_tasks(&self.ctr(&["task", "ls"])?))
    }

    /// The containers, with or without a process.
    pub fn containers(&self) -> Result<Vec<String>> {
        Ok(self.ctr(&["container", "ls", "-q"])?.lines().map(str::to_owned).collect())
    }
}

fn config_text(folder: &Path, socket: &Path) -> String {
    let disabled = DISABLED.map(|plugin| format!("{plugin:?}")).join(", ");
    format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [{disabled}]\n\n[grpc]\naddress = {socket:?}\n",
        folder.join("root"),
        folder.join("state"),
    )
}

/// `TASK PID STATUS` below a line of headings.
fn parse_tasks(table: &str) -> Vec<Task> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some(Task {
                id: fields.next()?.to_owned(),
                pid: fields.next()?.parse().ok()?,
                status: fields.next()?.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Task, parse_tasks};

    #[test]
    fn the_table_of_tasks_is_read() {
        let table = "TASK                       PID     STATUS    \na.b.c.d.instance.0    4711    RUNNING\n";
        let task = Task { id: "a.b.c.d.instance.0".into(), pid: 4711, status: "RUNNING".into() };
        assert_eq!(parse_tasks(table), [task]);
    }
}
