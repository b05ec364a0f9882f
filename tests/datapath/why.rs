//! What `netmanager why` says, held against what the attached programs then do.

use std::net::{Ipv4Addr, SocketAddr};

use netmanager::cli::Format;
use netmanager::commands::exit::{Exit, NotFound};
use netmanager::commands::why::{self, Asked};
use netmanager::datapath::{Backend, DropReason, Policy};
use netmanager::why::Transport;
use serde_json::{Value, json};

use crate::bed::{Bed, CLIENT, DROP, NEIGHBOUR, NODE, PASS, REDIRECT, SERVER, SERVICE, TUNNEL_PORT};
use crate::dump;
use crate::packet::Transport::{TcpAck, TcpSyn};
use crate::packet::{Packet, delivered, encapsulated, read};

const UNKNOWN: Ipv4Addr = Ipv4Addr::new(10, 30, 99, 99);
/// The first port that the command takes.
const PORT: u16 = 40_000;

fn asked(to: impl ToString) -> Asked {
    let (from, to) = (CLIENT.ns_ip.to_string(), to.to_string());
    Asked { from, to, transport: Transport::Tcp, count: 1, from_port: None }
}

/// Asks, and makes sure that no table has changed.
#[track_caller]
fn ask(bed: &mut Bed, asked: &Asked) -> (Exit, Value) {
    let state = tempfile::tempdir().unwrap();
    let paths = bed.paths(state.path());
    let before = dump::tables(&bed.tables());
    let mut out = Vec::new();
    let exit = bed
        .run_in_namespace(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(why::run(&paths, asked.clone(), Format::Json, &mut out))
        })
        .unwrap();
    assert!(before == dump::tables(&bed.tables()), "a table has changed");
    let said: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(said["same_build"], json!(true), "{said}");
    (exit, said)
}

fn syn(port: u16, destination: Ipv4Addr) -> Vec<u8> {
    Packet { ports: (port, 80), ..Packet::new(TcpSyn, CLIENT.ns_ip, destination) }.sent_by(&CLIENT)
}

#[test]
fn the_instance_that_it_names_is_the_one_that_the_next_connection_gets() {
    let mut bed = Bed::new();
    let servers: Vec<_> = (0..3)
        .map(|n| Backend {
            ns_ip: Ipv4Addr::new(10, 18, 2, 2 + n),
            instance_ip: Ipv4Addr::new(10, 30, 12, 10 + n),
            ..SERVER
        })
        .collect();
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &servers));
    for port in 41_000..41_005 {
        let (exit, said) = ask(&mut bed, &asked(SERVICE));
        let answer = &said["answers"][0];
        assert_eq!((exit, &answer["end"]), (Exit::Done, &json!("sent")), "{said}");
        let outcome = bed.container_sends(&syn(port, SERVICE));
        let inner = read(encapsulated(outcome.redirected()).inner);
        assert_eq!(answer["instance"]["ns_ip"], json!(inner.destination.to_string()), "{said}");
    }
    // Several at once go on from there.
    let (_, said) = ask(&mut bed, &Asked { count: 3, ..asked(SERVICE) });
    let mut chosen: Vec<_> =
        (0..3).map(|n| said["answers"][n]["instance"]["ns_ip"].as_str().unwrap().to_owned()).collect();
    chosen.sort();
    assert_eq!(chosen, ["10.18.2.2", "10.18.2.3", "10.18.2.4"]);
}

#[test]
fn a_connection_within_the_node_is_followed_there_and_back() {
    let mut bed = Bed::new();
    let local = Backend {
        ns_ip: NEIGHBOUR.ns_ip,
        instance_ip: NEIGHBOUR.instance_ip.unwrap(),
        node: SocketAddr::from((NODE, TUNNEL_PORT)),
        ..SERVER
    };
    let own = Backend { ns_ip: CLIENT.ns_ip, instance_ip: CLIENT.instance_ip.unwrap(), ..local };
    bed.within(|datapath| {
        datapath.publish_service(own.instance_ip, Policy::Instance, &[own])?;
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[local])
    });
    let (exit, said) = ask(&mut bed, &asked(SERVICE));
    let answer = &said["answers"][0];
    assert_eq!((exit, &answer["end"]), (Exit::Done, &json!("delivered")), "{said}");
    let back = answer["steps"].as_array().unwrap().last().unwrap();
    assert_eq!((&back["name"], &back["mark"]), (&json!("way back"), &json!("ok")), "{said}");
    let seen = delivered(bed.container_sends(&syn(PORT, SERVICE)).redirected(), &NEIGHBOUR).source;
    assert!(answer["steps"].to_string().contains(&seen.to_string()), "{said}");
}

#[test]
fn the_way_back_of_an_answer_from_another_node_is_tried_too() {
    let mut bed = Bed::new();
    let (exit, said) = ask(&mut bed, &asked(SERVICE));
    let steps = said["answers"][0]["steps"].as_array().unwrap();
    let back = steps.last().unwrap();
    assert_eq!((exit, &back["mark"]), (Exit::Done, &json!("ok")), "{said}");
    assert!(back["detail"].as_str().unwrap().contains("10.30.2.10:80 > 10.18.1.2"), "as dialled: {back}");
    // To an NsIP nothing is translated.
    let (exit, said) = ask(&mut bed, &asked(SERVER.ns_ip));
    assert_eq!((exit, &said["answers"][0]["end"]), (Exit::Done, &json!("sent")), "{said}");
}

#[test]
fn it_names_the_reason_for_which_the_packet_is_then_dropped() {
    let mut bed = Bed::new();
    let empty = Ipv4Addr::new(10, 30, 2, 11);
    bed.within(|datapath| datapath.publish_service(empty, Policy::RoundRobin, &[]));
    let cases = [
        (UNKNOWN, DropReason::ServiceUnknown),
        (empty, DropReason::NoBackend),
        (Ipv4Addr::new(10, 18, 9, 9), DropReason::NoEndpoint),
    ];
    for (destination, reason) in cases {
        let (exit, said) = ask(&mut bed, &asked(destination));
        let answer = &said["answers"][0];
        assert_eq!((exit, &answer["end"]), (Exit::Broken, &json!("dropped")), "{said}");
        assert_eq!(answer["reason"], json!(reason.name()));
        assert!(answer["remedy"].is_string());
        bed.container_sends(&syn(PORT, destination)).assert_dropped(reason);
    }
    // With a slow path the same packets go there.
    bed.within(|datapath| {
        datapath.set_slow_path(Some(CLIENT.ifindex))?;
        // All of this bed's interfaces are one; the program that is asked about is to be there.
        datapath.attach_endpoint(&CLIENT)
    });
    let (exit, said) = ask(&mut bed, &asked(UNKNOWN));
    assert_eq!((exit, &said["answers"][0]["end"]), (Exit::Broken, &json!("netmanager")), "{said}");
    assert_eq!(bed.container_sends(&syn(PORT, UNKNOWN)).verdict, REDIRECT);
}

#[test]
fn an_established_connection_is_asked_about_by_its_port() {
    let mut bed = Bed::new();
    bed.container_sends(&syn(PORT, SERVICE)).redirected();
    let by_port = Asked { from_port: Some(PORT), ..asked(SERVICE) };
    let (_, said) = ask(&mut bed, &by_port);
    let steps = said["answers"][0]["steps"].to_string();
    assert!(steps.contains("keeps its instance"), "{steps}");
    let (_, other) = ask(&mut bed, &asked(SERVICE));
    assert!(!other["answers"][0]["steps"].to_string().contains("keeps its instance"), "another port");
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[]));
    let (_, said) = ask(&mut bed, &by_port);
    assert_eq!(said["answers"][0]["reason"], json!("no-backend"), "{said}");
    let ack = Packet { ports: (PORT, 80), ..Packet::new(TcpAck, CLIENT.ns_ip, SERVICE) };
    assert_eq!(bed.container_sends(&ack.sent_by(&CLIENT)).verdict, DROP);
}

#[test]
fn the_world_is_the_hosts_affair() {
    let mut bed = Bed::new();
    let outside = Ipv4Addr::new(203, 0, 113, 1);
    let (exit, said) = ask(&mut bed, &asked(outside));
    assert_eq!((exit, &said["answers"][0]["end"]), (Exit::Done, &json!("host")), "{said}");
    assert_eq!(bed.container_sends(&syn(PORT, outside)).verdict, PASS);
}

#[test]
fn who_is_not_here_is_not_found() {
    let bed = Bed::new();
    let state = tempfile::tempdir().unwrap();
    let paths = bed.paths(state.path());
    for (from, to) in [("10.18.1.9", "10.30.2.10"), ("web/7", "10.30.2.10"), ("10.18.1.2", "nobody:80")] {
        let asked = Asked { from: from.to_owned(), ..asked(to) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error =
            runtime.block_on(why::run(&paths, asked.clone(), Format::Json, &mut Vec::new())).unwrap_err();
        assert!(error.is::<NotFound>(), "{from} {to}: {error:#}");
    }
}
