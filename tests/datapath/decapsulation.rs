//! Where outer headers are taken off, between real containers: in the driver, at the ingress, and from one to the other.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netmanager::datapath::{Datapath, Decapsulation, Place, Policy, Why};

use crate::foreign::{self, Foreign};
use crate::nodes::{Container, Family, Node, Underlay, publish_instances};
use crate::talk::{Answer, PORT, ask, ask_by_datagram, connect, echo, exchange, ping, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);

/// Two nodes that unwrap in the driver, a client on the first and a server on the second.
fn world(family: Family) -> (Underlay, Container, Container) {
    let mut underlay = Underlay::of(family, 2);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    underlay.nodes[0]
        .within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[server.backend]))
        .unwrap();
    underlay.nodes.iter_mut().for_each(|node| node.decapsulate(Decapsulation::Xdp));
    (underlay, client, server)
}

fn unwrapped(node: &Node) -> u64 {
    node.datapath.tables().early().unwrap().unwrapped
}

fn has_xdp<D>(node: &Node<D>) -> bool {
    let shown = node.netns.output("ip", &["-d", "link", "show", "dev", "up0"]).unwrap();
    assert!(!shown.contains("xdpgeneric"), "{shown}");
    shown.contains("prog/xdp")
}

#[test]
fn connections_are_carried_over_either_family_and_unwrapped_in_the_driver() {
    for family in [Family::V4, Family::V6] {
        if family == Family::V6 && !crate::nodes::kernel_has_ipv6() {
            println!("skipped: this kernel has no IPv6");
            continue;
        }
        let (underlay, client, server) = world(family);
        serve(&server);
        for address in [SERVICE, server.backend.instance_ip] {
            assert_eq!(ask(&client, address), Answer::of(&server, &client));
            assert_eq!(ask_by_datagram(&client, address).unwrap(), Answer::of(&server, &client));
            // Echo is not unwrapped in the driver, and arrives all the same.
            ping(&client, address);
        }
        let answer = Answer { asked_by: client.backend.ns_ip.into(), ..Answer::of(&server, &client) };
        assert_eq!(ask(&client, server.backend.ns_ip), answer);
        for node in &underlay.nodes {
            assert_eq!(node.datapath.counters().unwrap().drops, [], "{family:?}");
            assert!(has_xdp(node) && unwrapped(node) > 10, "{family:?}: {}", unwrapped(node));
        }
    }
}

#[test]
fn bytes_arrive_as_they_were_sent_when_they_are_merged_after_the_driver() {
    let (underlay, client, server) = world(Family::V4);
    echo(&server);
    let mut stream = connect(&client, SERVICE);
    exchange(&mut stream, 16);
    // As a NIC without tunnel offload: each packet arrives alone.
    for node in &underlay.nodes {
        node.netns.output("ethtool", &["-K", "up0", "tso", "off", "gso", "off"]).unwrap();
    }
    exchange(&mut stream, 16);
    for node in &underlay.nodes {
        node.netns.output("ethtool", &["-K", "up0", "tx", "off"]).unwrap();
    }
    exchange(&mut stream, 16);
    for node in &underlay.nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, []);
    }
}

#[test]
fn no_datagram_is_lost_when_the_place_changes() {
    let (mut underlay, client, server) = world(Family::V4);
    // Or the veth driver ends its receive queue with the XDP program, and throws away what waits in it.
    underlay.nodes[1].netns.output("ethtool", &["-K", "up0", "gro", "on"]).unwrap();
    let bind = || UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    let (sender, receiver) = (client.netns.run(bind).unwrap(), server.netns.run(bind).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let stop = AtomicBool::new(false);
    let before = unwrapped(&underlay.nodes[1]);
    thread::scope(|scope| {
        // One at a time, so that none is lost for want of room: what is sent is received, or the place has lost it.
        let talking = scope.spawn(|| {
            let mut count = 0_u64;
            let mut buffer = [0; 8];
            while !stop.load(Ordering::Relaxed) {
                for number in count..count + 8 {
                    sender.send_to(&number.to_be_bytes(), (SERVICE, PORT)).unwrap();
                }
                // In any order: those on the old way may be overtaken by those on the new one.
                let mut missing: BTreeSet<_> = (count..count + 8).collect();
                while !missing.is_empty() {
                    receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("without {missing:?}: {error}"));
                    assert!(missing.remove(&u64::from_be_bytes(buffer)), "{buffer:?}, but for {missing:?}");
                }
                count += 8;
            }
            count
        });
        for wanted in [Decapsulation::Tc, Decapsulation::Xdp].into_iter().cycle().take(21) {
            underlay.nodes[1].decapsulate(wanted);
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        let count = talking.join().unwrap();
        let early = unwrapped(&underlay.nodes[1]) - before;
        assert!(early > 0 && early < count, "both places had their part: {early} of {count}");
    });
    assert!(!has_xdp(&underlay.nodes[1]));
    assert_eq!(underlay.nodes[1].datapath.counters().unwrap().drops, []);
}

#[test]
fn auto_on_a_veth_means_tc() {
    let (mut underlay, _client, _server) = world(Family::V4);
    let node = &mut underlay.nodes[0];
    let placement = node.within(|datapath| datapath.decapsulate(Decapsulation::Auto)).unwrap().remove(0);
    assert_eq!((placement.place, placement.why), (Place::Tc, Why::Copies));
    assert_eq!((placement.interface.as_str(), placement.driver.as_deref()), ("up0", Some("veth")));
    assert!(!has_xdp(node));
}

#[test]
fn an_xdp_program_of_others_stays_and_means_tc() {
    let (mut underlay, client, server) = world(Family::V4);
    serve(&server);
    let node = &mut underlay.nodes[1];
    node.decapsulate(Decapsulation::Tc);
    let ifindex = node.ifindex("up0");
    let theirs = node.netns.run(|| Foreign::attach(ifindex, foreign::Place::Xdp)).unwrap().unwrap();
    let placement = node.within(|datapath| datapath.decapsulate(Decapsulation::Xdp)).unwrap().remove(0);
    assert_eq!((placement.place, placement.why), (Place::Tc, Why::Taken));
    assert!(has_xdp(node), "theirs");
    assert_eq!(ask(&client, SERVICE), Answer::of(&server, &client));
    drop(theirs);
    integration::eventually(Duration::from_secs(5), "the place is free again", || {
        let again = underlay.nodes[1].within(|datapath| datapath.decapsulate(Decapsulation::Xdp));
        let again = again.unwrap().remove(0);
        if again.place == Place::Xdp { Ok(()) } else { Err(again) }
    })
    .unwrap();
    assert_eq!(ask(&client, SERVICE), Answer::of(&server, &client));
}

#[test]
fn an_interface_without_native_xdp_means_tc_and_never_generic_xdp() {
    let mut underlay = Underlay::new(1);
    let node = &mut underlay.nodes[0];
    node.netns.ip("link add bridge0 type bridge").unwrap();
    let (addresses, other) = (node.addresses(), node.ifindex("bridge0"));
    node.within(|datapath| datapath.set_node(addresses, other)).unwrap();
    let placement = node.within(|datapath| datapath.decapsulate(Decapsulation::Xdp)).unwrap().remove(0);
    assert!(matches!((placement.place, &placement.why), (Place::Tc, Why::Refused(_))), "{placement:?}");
    let shown = node.netns.output("ip", &["-d", "link", "show", "dev", "bridge0"]).unwrap();
    assert!(!shown.contains("xdp"), "{shown}");
}

#[test]
fn the_program_outlives_the_daemon_and_is_taken_over_and_put_back() {
    let (mut underlay, client, server) = world(Family::V4);
    echo(&server);
    let mut stream = connect(&client, SERVICE);
    exchange(&mut stream, 4);
    let nodes: Vec<_> = underlay.nodes.drain(..).map(Node::crash).collect();
    assert!(nodes.iter().all(has_xdp));
    exchange(&mut stream, 4);
    underlay.nodes = nodes.into_iter().map(|node| node.start()).collect();
    exchange(&mut stream, 4);
    for node in &mut underlay.nodes {
        assert!(has_xdp(node));
        node.decapsulate(Decapsulation::Xdp);
        // Somebody detaches it behind our back.
        let pin = node.pins.path().join(format!("links/xdp-{}", node.ifindex("up0")));
        node.netns.output("bpftool", &["link", "detach", "pinned", pin.to_str().unwrap()]).unwrap();
        assert!(!has_xdp(node));
        node.decapsulate(Decapsulation::Xdp);
        assert!(has_xdp(node));
    }
    exchange(&mut stream, 4);
}

#[test]
fn the_program_leaves_with_the_uplink_and_with_cleanup() {
    let (mut underlay, _client, _server) = world(Family::V4);
    let node = &mut underlay.nodes[0];
    node.netns.ip("link add other type veth peer name another").unwrap();
    let (addresses, other) = (node.addresses(), node.ifindex("other"));
    node.within(|datapath| datapath.set_node(addresses, other)).unwrap();
    assert!(!has_xdp(node));
    node.decapsulate(Decapsulation::Xdp);

    let node = underlay.nodes.remove(1);
    let path = node.pins.path().to_owned();
    let crashed = node.crash();
    crashed.netns.run(|| Datapath::remove_all(&path)).unwrap().unwrap();
    integration::eventually(Duration::from_secs(5), "no XDP program is left", || {
        if has_xdp(&crashed) { Err("one is there") } else { Ok(()) }
    })
    .unwrap();
}
