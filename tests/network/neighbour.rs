//! A second worker of the same cluster, and connections from the first one's container to its own.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;
use integration::Netns;
use integration::daemon::Daemon;
use integration::netns::connect;
use serde_json::{Value, json};

use crate::bed::{Bed, Container, Places, config, recipe, status_of, wait_until_ready, write_config};
use integration::cluster::{self, WEB};

pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 32);
const ID: &str = "6b033dc62c1f07cbdcd88441";
/// Of one in a network of its own, and that network's router.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 32);
pub(crate) const FAR_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
pub(crate) const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x32);
const FAR_ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x20);
const FAR_ID: &str = "6b033dc62c1f07cbdcd88442";

#[derive(Debug)]
pub(crate) struct Neighbour {
    // In the order of their end.
    pub(crate) netmanager: Daemon,
    pub(crate) node: Arc<Netns>,
    pub(crate) places: Places,
}

impl Neighbour {
    /// Joins the bed's underlay and cluster.
    pub(crate) fn join(bed: &Bed) -> Result<Self> {
        Self::join_with(bed, &config())
    }

    /// As [`Neighbour::join`], with this configuration.
    pub(crate) fn join_with(bed: &Bed, config: &Value) -> Result<Self> {
        let (node, control) = (Arc::new(Netns::new("neighbour")?), &bed.cluster.broker.recipe().netns);
        connect((&node, "up0"), (control, "port2"))?;
        control.ip("link set port2 master up0")?;
        node.ip(&format!("addr add {ADDRESS}/24 dev up0"))?;
        node.ip(&format!("route add default via {}", cluster::ADDRESS))?;
        Self::start(bed, node, config, ID, (Ipv4Addr::new(10, 18, 0, 128), "fc00::200"))
    }

    /// Joins the bed's cluster from a network of its own, to which a cable of `router` leads: [`FAR`] there, the router has
    /// [`FAR_ROUTER`]. The same by IPv6.
    pub(crate) fn behind(bed: &Bed, router: &Netns) -> Result<Self> {
        Self::behind_with(bed, router, &config())
    }

    /// As [`Neighbour::behind`], with this configuration.
    pub(crate) fn behind_with(bed: &Bed, router: &Netns, config: &Value) -> Result<Self> {
        let node = Arc::new(Netns::new("far")?);
        // Without looking for duplicates: a router that has just begun to do so asks for nobody's MAC.
        for netns in [&node, router] {
            let all = ["net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"];
            netns.output("sysctl", &[&["-qw"], &all[..]].concat())?;
        }
        connect((&node, "up0"), (router, "far0"))?;
        router.ip(&format!("addr add {FAR_ROUTER}/24 dev far0"))?;
        router.ip(&format!("addr add {FAR_ROUTER6}/64 dev far0 nodad"))?;
        router.output("sysctl", &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
        node.ip(&format!("addr add {FAR}/24 dev up0"))?;
        node.ip(&format!("addr add {FAR6}/64 dev up0 nodad"))?;
        node.ip(&format!("route add default via {FAR_ROUTER}"))?;
        node.ip(&format!("-6 route add default via {FAR_ROUTER6}"))?;
        Self::start(bed, node, config, FAR_ID, (Ipv4Addr::new(10, 18, 0, 192), "fc00::300"))
    }

    fn start(
        bed: &Bed,
        node: Arc<Netns>,
        config: &Value,
        id: &str,
        block: (Ipv4Addr, &'static str),
    ) -> Result<Self> {
        let places = Places::new()?;
        write_config(&places, config)?;
        let netmanager = recipe(&node, &places)?.start()?;
        let mut neighbour = Self { netmanager, node, places };
        neighbour.wait_until_ready()?;
        bed.cluster.knows().block = Some(block);
        neighbour.places.post("/register", &json!({"client_id": id, "cluster_address": cluster::ADDRESS}))?;
        Ok(neighbour)
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        wait_until_ready(&mut self.netmanager, &self.places)
    }

    /// Connects a container as instance 1 of [`WEB`], the only one.
    pub(crate) fn serve(&self, bed: &Bed, container: &Container) -> Result<()> {
        self.serve_as(bed, container, WEB, 1)
    }

    /// Connects a container as this instance.
    pub(crate) fn serve_as(&self, bed: &Bed, container: &Container, service: &str, number: u8) -> Result<()> {
        bed.cluster.schedule(service, number);
        self.places.post(
            "/container/deploy",
            &json!({"pid": container.pid(), "serviceName": service, "instanceNumber": number, "portMappings": ""}),
        )
    }

    pub(crate) fn status(&self) -> Result<Value> {
        status_of(&self.node, &self.places)
    }
}
