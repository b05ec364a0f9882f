//! What netmanager itself takes: the real daemon, on a node of its own, that has found so many services in its state.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::daemon::{Recipe, binary};
use integration::lab::pins;
use integration::memory::megabytes;
use integration::netns::connect;
use integration::process::output;
use integration::{Netns, eventually};
use netmanager::datapath::Datapath;
use netmanager::state::Store;
use protocol::balancing::Balancing;
use protocol::net::{IpType, ServiceIp, TableInstance, TableResult};
use serde_json::{Value, json};

use crate::measure::{Quantity, Taken};

const PATIENCE: Duration = Duration::from_secs(120);

/// Memory of the daemon (PSS) that knows so many services of one instance each, all on one other node. Its tables in the
/// kernel are not in it.
pub(crate) fn memory(services: u32) -> Result<Taken> {
    let (node, other) = (Arc::new(Netns::new("daemon")?), Netns::new("other")?);
    connect((&node, "up0"), (&other, "up0"))?;
    node.ip("addr add 192.0.2.1/24 dev up0")?;
    node.ip("route add default via 192.0.2.2")?;
    let folder = tempfile::Builder::new().prefix("hypha-daemon-").tempdir().context("make a folder")?;
    let state = Store::at(&folder.path().join("state"));
    fs::create_dir_all(state.dir()).with_context(|| format!("make {}", state.dir().display()))?;
    state.save_tables((0..services).map(table).collect()).context("write tables")?;
    let config = json!({
        "NodePublicAddress": "0.0.0.0", "NodePublicPort": "50103", "ClusterUrl": "0.0.0.0", "ClusterMqttPort": "10003",
    });
    let path = folder.path().join("netcfg.json");
    fs::write(&path, config.to_string()).context("write netcfg.json")?;

    let pinned = pins().join("bench-daemon");
    let taken = measure(&node, folder.path(), &pinned, services);
    Datapath::remove_all(&pinned).context("take the programs away")?;
    // Of the other variants some may be left in it.
    fs::remove_dir(pins()).ok();
    taken
}

fn measure(node: &Arc<Netns>, folder: &Path, pins: &Path, services: u32) -> Result<Taken> {
    let flag = |name: &str, path: &Path| [name.to_owned(), path.display().to_string()];
    let flags = [
        flag("--socket", &folder.join("netmanager.sock")),
        flag("--state-dir", &folder.join("state")),
        flag("--bpffs", pins),
    ]
    .concat();
    let config = flag("-c", &folder.join("netcfg.json"));
    let recipe = Recipe {
        name: "netmanager".to_owned(),
        netns: Arc::clone(node),
        program: binary("netmanager")?,
        arguments: config.iter().chain(&flags).map(Into::into).collect(),
        environment: Vec::new(),
        log: folder.join("netmanager.log"),
    };
    let mut daemon = recipe.start()?;
    eventually(PATIENCE, "netmanager to know the services", || {
        daemon.expect_running()?;
        let mut command = node.command(binary("netmanager")?)?;
        let said = output(command.arg("status").args(&flags).args(["-o", "json"]))?;
        let report: Value = serde_json::from_str(&said).context("read its status")?;
        // Two addresses each.
        let known = report["services"].as_array().map_or(0, Vec::len);
        ensure!(known == 2 * services as usize, "{known} addresses are known");
        Ok(())
    })?;
    let taken = megabytes(&[daemon.pid()])?;
    daemon.terminate()?;
    Ok(Taken::numbers(&[(Quantity::Memory, taken)]))
}

/// What a cluster says of one of them.
fn table(number: u32) -> TableResult {
    let beside = |first: Ipv4Addr| Ipv4Addr::from_bits(first.to_bits() + number);
    let [service, instance, ns_ip] =
        [[10, 30, 0, 1], [10, 30, 128, 1], [10, 20, 0, 1]].map(|first| beside(first.into()));
    let instance = TableInstance {
        instance_number: 0,
        instance_ip: Some(instance),
        instance_ip_v6: None,
        cluster_id: None,
        worker_id: None,
        namespace_ip: Some(ns_ip.to_string()),
        namespace_ip_v6: None,
        host_ip: Some(IpAddr::from([192, 0, 2, 2]).to_string()),
        host_port: protocol::port::TUNNEL,
        links: protocol::link::LinkOffer::default(),
        kilometres: None,
        busy: false,
        service_ip: vec![ServiceIp {
            ip_type: IpType::RoundRobin,
            address: service.to_string(),
            address_v6: String::new(),
            balancing: Balancing::default(),
        }],
    };
    let name = format!("bench.bench.s{number}.bench");
    TableResult {
        app_name: name.clone(),
        instance_list: vec![instance],
        query_key: name,
        leaving: Vec::new(),
    }
}
