//! A worker and a cluster in a namespace each, joined by an underlay, with the real netmanager on the worker.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use integration::daemon::{Daemon, Recipe, binary};
use integration::netns::{connect, remove_stale, require_root};
use integration::{Netns, eventually};
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};

pub(crate) const NODE: &str = "6b033dc62c1f07cbdcd88440";
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 31);
pub(crate) const NODE_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x31);
pub(crate) const SERVICE: &str = "smp.bed.srv.bed";

/// Everything of one test. Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Bed {
    // In the order of their end.
    pub(crate) netmanager: Daemon,
    pub(crate) cluster: Cluster,
    pub(crate) node: Arc<Netns>,
    pub(crate) places: Places,
}

/// What netmanager's flags name.
#[derive(Debug)]
pub(crate) struct Places {
    folder: tempfile::TempDir,
    pub(crate) pins: PathBuf,
}

impl Places {
    pub(crate) fn new() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("hypha-net-").tempdir().context("make a folder")?;
        let pins = PathBuf::from(format!("/sys/fs/bpf/hypha-net-{}-{number}", std::process::id()));
        Ok(Self { folder, pins })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder().join("netcfg.json")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder().join("netmanager.sock")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The flags that every command of netmanager takes.
    pub(crate) fn flags(&self) -> Vec<String> {
        let flag = |name: &str, path: PathBuf| [name.to_owned(), path.display().to_string()];
        [
            flag("--socket", self.socket()),
            flag("--state-dir", self.state()),
            flag("--bpffs", self.pins.clone()),
        ]
        .concat()
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // Only what a failed test left; whether cleanup leaves anything is asked by tests of its own.
        fs::remove_dir_all(&self.pins).ok();
    }
}

impl Bed {
    /// Namespaces, broker and a netmanager that is ready but not registered.
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(&config(), 1500)
    }

    /// As [`Bed::start`], with this configuration and an uplink of this MTU.
    pub(crate) fn start_with(config: &Value, uplink_mtu: u16) -> Result<Self> {
        require_root()?;
        remove_stale()?;
        let (node, control) = (Arc::new(Netns::new("node")?), Arc::new(Netns::new("cluster")?));
        // A bridge, so that other workers can join.
        control.ip("link add up0 type bridge")?;
        control.ip("link set up0 up")?;
        connect((&node, "up0"), (&control, "port1"))?;
        control.ip("link set port1 master up0")?;
        node.ip(&format!("link set up0 mtu {uplink_mtu}"))?;
        node.ip(&format!("addr add {NODE_ADDRESS}/24 dev up0"))?;
        control.ip(&format!("addr add {}/24 dev up0", cluster::ADDRESS))?;
        node.ip(&format!("route add default via {}", cluster::ADDRESS))?;
        node.ip(&format!("addr add {NODE_ADDRESS6}/64 dev up0 nodad"))?;
        control.ip(&format!("addr add {}/64 dev up0 nodad", cluster::ADDRESS6))?;
        node.ip(&format!("-6 route add default via {}", cluster::ADDRESS6))?;
        let places = Places::new()?;
        let cluster = Cluster::start(&control, places.folder())?;
        write_config(&places, config)?;
        let netmanager = recipe(&node, &places)?.start()?;
        let mut bed = Self { netmanager, cluster, node, places };
        bed.wait_until_ready()?;
        Ok(bed)
    }

    /// As [`Bed::start`], and registered.
    pub(crate) fn registered() -> Result<Self> {
        let bed = Self::start()?;
        let (status, said) = bed.register(NODE)?;
        ensure!(status == 200, "register: {status} {said}");
        Ok(bed)
    }

    /// Waits until it answers. Its socket is there earlier: requests wait in it until everything is taken over.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        wait_until_ready(&mut self.netmanager, &self.places)
    }

    pub(crate) fn register(&self, node: &str) -> Result<(u16, String)> {
        self.post("/register", &json!({"client_id": node, "cluster_address": cluster::ADDRESS}).to_string())
    }

    /// Connects a container as an instance of [`SERVICE`], which the cluster knows; gives the answer's status and body.
    pub(crate) fn attach(&self, container: &Container, number: u8, ports: &str) -> Result<(u16, String)> {
        self.cluster.schedule(SERVICE, number);
        let body = json!({"pid": container.pid(), "serviceName": SERVICE, "instanceNumber": number, "portMappings": ports});
        self.post("/container/deploy", &body.to_string())
    }

    /// As [`Bed::attach`], and gives the container's address.
    pub(crate) fn attached(&self, container: &Container, number: u8) -> Result<Ipv4Addr> {
        let (status, body) = self.attach(container, number, "")?;
        ensure!(status == 200, "attach: {status} {body}");
        let body: Value = serde_json::from_str(&body).with_context(|| format!("read {body}"))?;
        body["nsAddress"].as_str().context("nsAddress")?.parse().context("nsAddress")
    }

    pub(crate) fn detach(&self, number: u8) -> Result<(u16, String)> {
        let body = json!({"serviceName": SERVICE, "instanceNumber": number, "pid": -1, "portMappings": ""});
        self.post("/container/undeploy", &body.to_string())
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Result<(u16, String)> {
        request(&self.places.socket(), &format!("POST {path}"), body)
    }

    /// A command of netmanager about this node.
    pub(crate) fn command(&self, name: &str) -> Result<std::process::Command> {
        command(&self.node, &self.places, name)
    }

    /// `netmanager status -o json`.
    pub(crate) fn status(&self) -> Result<Value> {
        status_of(&self.node, &self.places)
    }

    /// What netmanager has logged.
    pub(crate) fn log(&self) -> Result<String> {
        let path = &self.netmanager.recipe().log;
        fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
    }

    /// The names of containers' links on the node, as `ip` sees them.
    pub(crate) fn links(&self) -> Result<Vec<String>> {
        Ok(ip_json(&self.node, &["link"])?
            .iter()
            .filter_map(|link| link["ifname"].as_str())
            .filter(|name| is_of_a_container(name))
            .map(ToOwned::to_owned)
            .collect())
    }
}

/// Whether a link of this name is the node's end of a container's, and none of the node's own.
pub(crate) fn is_of_a_container(name: &str) -> bool {
    name.strip_prefix("hy")
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A process in a network namespace of its own, as containerd leaves it between create and start.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) netns: Netns,
    process: Child,
}

impl Container {
    pub(crate) fn new(label: &str) -> Result<Self> {
        let netns = Netns::new(label)?;
        let process = netns.command("sleep")?.arg("infinity").spawn().context("start sleep")?;
        Ok(Self { netns, process })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

pub(crate) fn config() -> Value {
    json!({
        "NodePublicAddress": "0.0.0.0",
        "NodePublicPort": "50103",
        "ClusterUrl": "0.0.0.0",
        "ClusterMqttPort": cluster::PORT.to_string(),
    })
}

pub(crate) fn write_config(places: &Places, config: &Value) -> Result<()> {
    fs::write(places.config(), config.to_string()).context("write netcfg.json")
}

pub(crate) fn recipe(node: &Arc<Netns>, places: &Places) -> Result<Recipe> {
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

/// What `ip -json` shows.
pub(crate) fn ip_json(netns: &Netns, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = netns.output("ip", &[&["-json", "-details"], arguments].concat())?;
    serde_json::from_str(&output).with_context(|| format!("read what ip says: {output}"))
}

/// See [`Bed::wait_until_ready`].
pub(crate) fn wait_until_ready(netmanager: &mut Daemon, places: &Places) -> Result<()> {
    let socket = places.socket();
    eventually(Duration::from_secs(30), "netmanager to answer", || {
        netmanager.expect_running()?;
        let (status, said) = request(&socket, "GET /hypha/report", "")?;
        if status == 200 { Ok(()) } else { Err(anyhow!("{status} {said}")) }
    })
}

/// See [`Bed::status`].
pub(crate) fn status_of(node: &Netns, places: &Places) -> Result<Value> {
    let output = integration::process::output(command(node, places, "status")?.args(["-o", "json"]))?;
    serde_json::from_str(&output).with_context(|| format!("read {output}"))
}

fn command(node: &Netns, places: &Places, name: &str) -> Result<std::process::Command> {
    let mut command = node.command(binary("netmanager")?)?;
    command.arg(name).args(places.flags());
    Ok(command)
}

/// One HTTP request over a UNIX socket.
pub(crate) fn request(socket: &Path, line: &str, body: &str) -> Result<(u16, String)> {
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
