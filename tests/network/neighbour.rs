//! A second worker of the same cluster, and connections from the first one's container to its own.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use integration::Netns;
use integration::daemon::Daemon;
use integration::netns::connect;
use serde_json::{Value, json};

use crate::bed::{
    Bed, Container, Places, config, recipe, request, status_of, wait_until_ready, write_config,
};
use crate::cluster::{self, WEB};

pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 32);
const ID: &str = "6b033dc62c1f07cbdcd88441";

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
        let places = Places::new()?;
        write_config(&places, config)?;
        let netmanager = recipe(&node, &places)?.start()?;
        let mut neighbour = Self { netmanager, node, places };
        neighbour.wait_until_ready()?;
        bed.cluster.knows().block = Some((Ipv4Addr::new(10, 18, 0, 128), "fc00::200"));
        neighbour.post("/register", &json!({"client_id": ID, "cluster_address": cluster::ADDRESS}))?;
        Ok(neighbour)
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        wait_until_ready(&mut self.netmanager, &self.places)
    }

    /// Connects a container as instance 1 of [`WEB`], the only one.
    pub(crate) fn serve(&self, bed: &Bed, container: &Container) -> Result<()> {
        bed.cluster.schedule(WEB, 1);
        self.post(
            "/container/deploy",
            &json!({"pid": container.pid(), "serviceName": WEB, "instanceNumber": 1, "portMappings": ""}),
        )
    }

    pub(crate) fn status(&self) -> Result<Value> {
        status_of(&self.node, &self.places)
    }

    fn post(&self, path: &str, body: &Value) -> Result<()> {
        let (status, said) = request(&self.places.socket(), &format!("POST {path}"), &body.to_string())?;
        ensure!(status == 200, "{path}: {status} {said}");
        Ok(())
    }
}
