//! Hypha as people run it: the real netmanager on each node, which finds out by itself how packets go best.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::cluster::{self, Cluster, WEB, WEB_ADDRESS};
use integration::daemon::Daemon;
use integration::netmanager::{Occupant, Places, quiet_recipe, status_of, wait_until_ready, write_config};
use integration::netns::connect;
use integration::{Netns, eventually};
use serde_json::json;

use super::{Bed, Overlay, Pair};

/// The network between nodes and cluster, apart from the one that is measured.
const CONTROL: [Ipv4Addr; 3] =
    [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2), Ipv4Addr::new(198, 51, 100, 254)];
const IDS: [&str; 2] = ["6b033dc62c1f07cbdcd88440", "6b033dc62c1f07cbdcd88441"];
const BLOCKS: [(Ipv4Addr, &str); 2] =
    [(Ipv4Addr::new(10, 18, 0, 64), "fc00::100"), (Ipv4Addr::new(10, 18, 0, 128), "fc00::200")];
/// What the client and the server are instances of, and their numbers, by which the cluster gives them addresses.
const INSTANCES: [(&str, u8); 2] = [("smp.bed.srv.bed", 0), (WEB, 1)];
/// For a trial to end, also one that has been unlucky.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both daemons and the cluster that they are told by.
#[derive(Debug)]
pub(crate) struct Netmanagers {
    // In the order of their end.
    _workers: [Worker; 2],
    _cluster: Cluster,
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Worker {
    daemon: Daemon,
    places: Places,
    node: Arc<Netns>,
    /// What stands for the container's process.
    occupant: Occupant,
}

pub(super) fn build(pair: Pair) -> Result<Bed> {
    let control = Arc::new(Netns::new("cluster")?);
    control.ip("link add ctl type bridge")?;
    control.ip("link set ctl up")?;
    control.ip(&format!("addr add {}/24 dev ctl", CONTROL[2]))?;
    control.ip(&format!("addr add {}/32 dev ctl", cluster::ADDRESS))?;
    let folder = tempfile::Builder::new().prefix("hypha-bench-").tempdir().context("make a folder")?;
    let cluster = Cluster::start(&control, folder.path())?;
    let (client, server) = (Netns::new("client")?, Netns::new("server")?);
    let worker = |index: usize, container: &Netns| {
        connect_to_cluster(&pair.nodes[index], &control, index)?;
        Worker::start(&pair, index, container, &cluster)
    };
    let mut workers = [worker(0, &client)?, worker(1, &server)?];
    // Whoever asks for it hears of the service from then on; the first packet is held meanwhile.
    client.output("ping", &["-c", "1", "-W", "10", &WEB_ADDRESS.to_string()])?;
    for worker in &mut workers {
        worker.wait_for_the_choice()?;
    }
    let netmanagers = Box::new(Netmanagers { _workers: workers, _cluster: cluster, _folder: folder });
    Ok(Bed { target: WEB_ADDRESS, overlay: Overlay::Netmanagers { netmanagers }, client, server, pair })
}

fn connect_to_cluster(node: &Netns, control: &Netns, index: usize) -> Result<()> {
    let port = format!("port{index}");
    connect((node, "ctl0"), (control, &port))?;
    control.ip(&format!("link set {port} master ctl"))?;
    node.ip(&format!("addr add {}/24 dev ctl0", CONTROL[index]))?;
    node.ip(&format!("route add {}/32 dev ctl0 src {}", cluster::ADDRESS, CONTROL[index]))
}

impl Worker {
    /// A registered netmanager with one container.
    fn start(pair: &Pair, index: usize, container: &Netns, cluster: &Cluster) -> Result<Self> {
        let (node, places) = (Arc::clone(&pair.nodes[index]), Places::new()?);
        let config = json!({
            "NodePublicAddress": pair.address(index), "NodePublicPort": protocol::port::TUNNEL.to_string(),
            "ClusterUrl": cluster::ADDRESS, "ClusterMqttPort": cluster::PORT.to_string(),
        });
        write_config(&places, &config)?;
        let (daemon, occupant) = (quiet_recipe(&node, &places)?.start()?, Occupant::of(container)?);
        let mut worker = Self { daemon, places, node, occupant };
        wait_until_ready(&mut worker.daemon, &worker.places)?;
        cluster.knows().block = Some(BLOCKS[index]);
        worker
            .places
            .post("/register", &json!({"client_id": IDS[index], "cluster_address": cluster::ADDRESS}))?;
        let (service, number) = INSTANCES[index];
        cluster.schedule(service, number);
        let pid = worker.occupant.pid();
        worker.places.post(
            "/container/deploy",
            &json!({"pid": pid, "serviceName": service, "instanceNumber": number, "portMappings": ""}),
        )?;
        Ok(worker)
    }

    fn wait_for_the_choice(&mut self) -> Result<()> {
        eventually(PATIENCE, "netmanager to find out how packets reach the other node", || {
            self.daemon.expect_running()?;
            let status = status_of(&self.node, &self.places)?;
            let (peers, on_trial) = (&status["peers"], &status["daemon"]["links_on_trial"]);
            ensure!(peers.as_array().is_some_and(|peers| peers.len() == 1), "peers: {peers}");
            ensure!(on_trial == &json!([]), "on trial: {on_trial}");
            Ok(())
        })
    }
}
