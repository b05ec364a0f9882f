//! A running container, entered from outside without the help of our daemons.

use std::fmt::Display;
use std::process::Command;

use anyhow::Result;

use crate::containerd::Task;
use crate::netns::Netns;
use crate::{process, retransmission};

/// A container's process and its network namespace.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    pub pid: u32,
    pub netns: Netns,
}

impl Container {
    pub fn of(task: &Task) -> Result<Self> {
        Ok(Self { id: task.id.clone(), pid: task.pid, netns: Netns::of_process(task.pid)? })
    }

    /// A command that runs in all namespaces of the container, with the programs of its image.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--target"])
            .arg(self.pid.to_string())
            .arg("--")
            .env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin")
            .args(arguments);
        command
    }

    /// Runs a program of the image to its end and gives what it wrote to its standard output.
    pub fn exec(&self, arguments: &[&str]) -> Result<String> {
        process::output(&mut self.command(arguments))
    }

    /// Fetches `http://address/` with the image's `wget`, within five seconds. (Its own option `-T` for that makes
    /// Debian's static busybox crash.)
    pub fn get(&self, address: impl Display) -> Result<String> {
        self.exec(&["timeout", "5", "wget", "-qO-", &format!("http://{address}/")])
    }

    /// Segments that the container's TCP has sent more than once.
    pub fn retransmitted(&self) -> Result<u64> {
        retransmission::read(&self.exec(&["cat", "/proc/net/snmp"])?)
    }

    /// One ICMP echo, answered within two seconds.
    pub fn ping(&self, address: impl Display) -> Result<String> {
        self.exec(&["ping", "-c", "1", "-W", "2", &address.to_string()])
    }
}
