//! What the commands say of a data plane without a daemon.

use netmanager::app::Paths;
use netmanager::cli::Format;
use netmanager::commands::{drops, flows, services};
use netmanager::datapath::Policy;
use serde_json::{Value, json};

use crate::bed::{Bed, CLIENT, NEIGHBOUR, SERVER, SERVICE};
use crate::packet::Packet;
use crate::packet::Transport::{TcpSyn, Udp};

fn json(write: impl AsyncFnOnce(&Paths, &mut Vec<u8>) -> anyhow::Result<()>, bed: &Bed) -> Value {
    let state = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    block_on(write(&bed.paths(state.path()), &mut out)).unwrap();
    serde_json::from_slice(&out).unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn services_are_shown_with_turns_and_flows_and_found_by_address() {
    let mut bed = Bed::new();
    let second = netmanager::datapath::Backend {
        ns_ip: NEIGHBOUR.ns_ip,
        instance_ip: NEIGHBOUR.instance_ip.unwrap(),
        node: std::net::SocketAddr::from((crate::bed::NODE, crate::bed::TUNNEL_PORT)),
        ..SERVER
    };
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[SERVER, second]));
    // Here turns begin with the second one: see `netmanager_common::flow::first_turn`.
    for port in 41000..41003 {
        let packet = Packet { ports: (port, 80), ..Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE) };
        bed.container_sends(&packet.sent_by(&CLIENT)).redirected();
    }
    let wanted = |text: &str| services::Wanted { service: Some(text.to_owned()) };
    let known = wanted(&SERVICE.to_string());
    let shown = json(async |paths, out| services::run(paths, known, Format::Json, out).await, &bed);
    assert_eq!(
        shown,
        json!([{
            "address": "10.30.2.10", "service": null, "instance": null, "policy": "round robin", "turns": 3,
            "backends": [
                { "instance": null, "instance_ip": "10.30.12.10", "ns_ip": "10.18.2.2", "node": "192.0.2.2:50103",
                  "here": false, "flows": 1, "resting": false, "round_trip_us": null },
                { "instance": null, "instance_ip": "10.30.11.11", "ns_ip": "10.18.1.3", "node": "192.0.2.1:50103",
                  "here": true, "flows": 2, "resting": false, "round_trip_us": null }
            ]
        }])
    );
    let state = tempfile::tempdir().unwrap();
    let (paths, mut out) = (bed.paths(state.path()), Vec::new());
    let unknown = block_on(services::run(&paths, wanted("10.30.9.9"), Format::Json, &mut out));
    assert!(unknown.unwrap_err().is::<netmanager::commands::exit::NotFound>());
}

#[test]
fn flows_are_filtered_by_their_ends() {
    let mut bed = Bed::new();
    for container in [CLIENT, NEIGHBOUR] {
        let packet = Packet::new(Udp, container.ns_ip, SERVICE);
        bed.container_sends(&packet.sent_by(&container)).redirected();
    }
    let count = |from: Option<String>, to: Option<String>| {
        let wanted = flows::Wanted { from, to };
        json(async |paths, out| flows::run(paths, wanted, Format::Json, out).await, &bed)
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count(None, None), 2);
    assert_eq!(count(Some(CLIENT.ns_ip.to_string()), None), 1);
    assert_eq!(count(None, Some(SERVICE.to_string())), 2);
    assert_eq!(count(None, Some(SERVER.ns_ip.to_string())), 2, "by the instance that was chosen, too");
    assert_eq!(count(None, Some("10.30.9.9".to_owned())), 0);
}

#[test]
fn drops_are_shown_with_what_they_mean_and_what_to_do() {
    let mut bed = Bed::new();
    let spoofed = Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE).sent_by(&NEIGHBOUR);
    bed.container_sends(&spoofed);
    let shown = json(async |paths, out| drops::show(paths, Format::Json, out).await, &bed);
    assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
    assert_eq!((&shown[0]["reason"], &shown[0]["packets"]), (&json!("spoofed-source"), &json!(1)));
    for words in ["meaning", "remedy"] {
        assert!(shown[0][words].as_str().is_some_and(|text| text.len() > 20), "{shown}");
    }
}
