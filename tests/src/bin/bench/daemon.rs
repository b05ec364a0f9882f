//! What netmanager itself takes: the real daemon, on a node of its own, that has found so many services in its state.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::memory::megabytes;
use integration::netmanager::{Places, quiet_recipe, status_of, write_config};
use integration::netns::connect;
use integration::{Netns, eventually};
use netmanager::state::Store;
use protocol::balancing::Balancing;
use protocol::net::{IpType, ServiceIp, TableInstance, TableResult};
use serde_json::json;

use crate::measure::{Quantity, Taken};

const PATIENCE: Duration = Duration::from_secs(120);

/// Memory of the daemon (RSS) that knows so many services of one instance each, all on one other node. Its tables in the
/// kernel are not in it.
pub(crate) fn memory(services: u32) -> Result<Taken> {
    let (node, other) = (Arc::new(Netns::new("daemon")?), Netns::new("other")?);
    connect((&node, "up0"), (&other, "up0"))?;
    node.ip("addr add 192.0.2.1/24 dev up0")?;
    node.ip("route add default via 192.0.2.2")?;
    let places = Places::new()?;
    let state = Store::open(&places.state()).context("make a state directory")?;
    state.save_tables((0..services).map(table).collect()).context("write tables")?;
    let config = json!({
        "NodePublicAddress": "0.0.0.0", "NodePublicPort": "50103", "ClusterUrl": "0.0.0.0", "ClusterMqttPort": "10003",
    });
    write_config(&places, &config)?;
    let mut daemon = quiet_recipe(&node, &places)?.start()?;
    eventually(PATIENCE, "netmanager to know the services", || {
        daemon.expect_running()?;
        let report = status_of(&node, &places)?;
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
