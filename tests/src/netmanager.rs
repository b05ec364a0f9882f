//! A netmanager apart from any lab: where its files are, how it is started and asked, and containers for it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::daemon::{Daemon, Recipe, binary};
use crate::netns::Netns;
use crate::process;
use crate::wait::eventually;

/// What netmanager's flags name.
#[derive(Debug)]
pub struct Places {
    folder: tempfile::TempDir,
    pub pins: PathBuf,
}

impl Places {
    pub fn new() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("hypha-net-").tempdir().context("make a folder")?;
        let pins = PathBuf::from(format!("/sys/fs/bpf/hypha-net-{}-{number}", std::process::id()));
        Ok(Self { folder, pins })
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder().join("netcfg.json")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder().join("netmanager.sock")
    }

    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The flags that every command of netmanager takes.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let flag = |name: &str, path: PathBuf| [name.to_owned(), path.display().to_string()];
        [
            flag("--socket", self.socket()),
            flag("--state-dir", self.state()),
            flag("--bpffs", self.pins.clone()),
        ]
        .concat()
    }

    /// Has the netmanager that is here do something.
    pub fn post(&self, path: &str, body: &Value) -> Result<()> {
        let (status, said) = request(&self.socket(), &format!("POST {path}"), &body.to_string())?;
        ensure!(status == 200, "{path}: {status} {said}");
        Ok(())
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // Only what a failed test left; whether cleanup leaves anything is asked by tests of its own.
        fs::remove_dir_all(&self.pins).ok();
    }
}

/// As [`recipe`], with as much in its log as by default.
pub fn quiet_recipe(node: &Arc<Netns>, places: &Places) -> Result<Recipe> {
    Ok(Recipe { environment: Vec::new(), ..recipe(node, places)? })
}

/// How it is started on `node`, with a log that tells much.
pub fn recipe(node: &Arc<Netns>, places: &Places) -> Result<Recipe> {
    let arguments = [vec!["-c".to_owned(), places.config().display().to_string()], places.flags()].concat();
    Ok(Recipe {
        name: "netmanager".to_owned(),
        netns: Arc::clone(node),
        program: binary("netmanager")?,
        arguments: arguments.into_iter().map(Into::into).collect(),
        environment: vec![("RUST_LOG".into(), "info,netmanager=debug".into())],
        log: places.folder().join("netmanager.log"),
    })
}

/// A process in a network namespace of its own, as containerd leaves it between create and start.
#[derive(Debug)]
pub struct Container {
    pub netns: Netns,
    occupant: Occupant,
}

impl Container {
    pub fn new(label: &str) -> Result<Self> {
        let netns = Netns::new(label)?;
        let occupant = Occupant::of(&netns)?;
        Ok(Self { netns, occupant })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.occupant.pid()
    }
}

/// A process that does nothing but be in a network namespace. Killed when it is dropped.
#[derive(Debug)]
pub struct Occupant(Child);

impl Occupant {
    pub fn of(netns: &Netns) -> Result<Self> {
        netns.command("sleep")?.arg("infinity").spawn().context("start sleep").map(Self)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Occupant {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Its `netcfg.json`.
pub fn write_config(places: &Places, config: &Value) -> Result<()> {
    fs::write(places.config(), config.to_string()).context("write netcfg.json")
}

/// Waits until it answers. Its socket is there earlier: requests wait in it until everything is taken over.
pub fn wait_until_ready(netmanager: &mut Daemon, places: &Places) -> Result<()> {
    let socket = places.socket();
    eventually(Duration::from_secs(30), "netmanager to answer", || {
        netmanager.expect_running()?;
        let (status, said) = request(&socket, "GET /hypha/report", "")?;
        if status == 200 { Ok(()) } else { Err(anyhow!("{status} {said}")) }
    })
}

/// `netmanager status -o json`.
pub fn status_of(node: &Netns, places: &Places) -> Result<Value> {
    let output = process::output(command(node, places, "status")?.args(["-o", "json"]))?;
    serde_json::from_str(&output).with_context(|| format!("read {output}"))
}

/// A command of netmanager about this node.
pub fn command(node: &Netns, places: &Places, name: &str) -> Result<Command> {
    let mut command = node.command(binary("netmanager")?)?;
    command.arg(name).args(places.flags());
    Ok(command)
}

/// One HTTP request over a UNIX socket.
pub fn request(socket: &Path, line: &str, body: &str) -> Result<(u16, String)> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).context("set a timeout")?;
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).context("send a request")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read an answer")?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no HTTP: {answer:?}") };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("no status: {head}"))?, body.to_owned()))
}
