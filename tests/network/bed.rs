//! A worker and a cluster in a namespace each, joined by an underlay, with the real netmanager on the worker.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use integration::Netns;
use integration::daemon::Daemon;
use integration::netmanager::command;
use integration::netns::{connect, remove_stale, require_root};
use serde_json::{Value, json};

use integration::cluster::{self, Cluster};

pub(crate) use integration::netmanager::{
    Container, Places, recipe, request, status_of, wait_until_ready, write_config,
};

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

pub(crate) fn config() -> Value {
    json!({
        "NodePublicAddress": "0.0.0.0",
        "NodePublicPort": "50103",
        "ClusterUrl": "0.0.0.0",
        "ClusterMqttPort": cluster::PORT.to_string(),
    })
}

/// What `ip -json` shows.
pub(crate) fn ip_json(netns: &Netns, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = netns.output("ip", &[&["-json", "-details"], arguments].concat())?;
    serde_json::from_str(&output).with_context(|| format!("read what ip says: {output}"))
}
