//! Real connections in all four combinations of the inner and the outer IP version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use integration::Netns;
use netmanager::datapath::{Backend, EndpointCounters, Policy};

use crate::nodes::{Container, Family, Node, Underlay, kernel_has_ipv6, publish_instances, service};
use crate::talk::{Answer, ask, ask_by_datagram, connect, echo, exchange, ping, serve};

/// Of the inner and the outer version.
fn combinations() -> Vec<(Family, Family)> {
    let families = if kernel_has_ipv6() {
        [Family::V4, Family::V6].as_slice()
    } else {
        println!("this kernel has no IPv6: only IPv4 over IPv4");
        &[Family::V4]
    };
    families.iter().flat_map(|inner| families.iter().map(|outer| (*inner, *outer))).collect()
}

fn closest(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 30, 2, 11).into(),
        Family::V6 => Ipv6Addr::new(0xfdff, 0x1000, 0, 0, 0, 0, 0, 9).into(),
    }
}

/// An instance that is on no node.
fn missing(like: Backend) -> Backend {
    Backend {
        ns_ip: Ipv4Addr::new(10, 18, 200, 9),
        ns_ip6: Some(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0x20, 9)),
        instance_ip: Ipv4Addr::new(10, 30, 200, 9),
        instance_ip6: Some(Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0x20, 9)),
        ..like
    }
}

/// A client on the first node, which knows one server, and of the closest address a second one that is further; all nodes
/// know all instances.
fn publish(underlay: &mut Underlay, client: &Container, server: &Container) {
    publish_instances(&mut underlay.nodes, &[client, server]);
    for family in [Family::V4, Family::V6] {
        let publish = |node: &mut Node| {
            node.within(|datapath| {
                let further = missing(server.backend);
                datapath.publish_service(closest(family), Policy::Closest, &[server.backend, further])?;
                datapath.publish_service(service(family), Policy::RoundRobin, &[server.backend])
            })
        };
        publish(&mut underlay.nodes[0]).unwrap();
    }
}

#[track_caller]
fn assert_nothing_dropped(underlay: &Underlay) {
    for node in &underlay.nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, [], "node {}", node.number);
    }
}

/// Connections and datagrams of each cell: a closest address must not take turns.
const TRIES: usize = 3;

/// Prints each cell, so that a failure shows how far it got.
#[test]
fn tcp_udp_and_ping_reach_each_kind_of_address_on_this_node_and_on_another() {
    for (inner, outer) in combinations() {
        for (server_node, place) in [(0, "same node"), (1, "other node")] {
            let mut underlay = Underlay::of(outer, 2);
            let client = underlay.nodes[0].container(2);
            let server = underlay.nodes[server_node].container(3);
            publish(&mut underlay, &client, &server);
            serve(&server);
            let translated = Answer::over(inner, &server, &client);
            let direct = Answer { asked_by: client.ns_ip(inner), ..Answer::over(inner, &server, &client) };
            for (kind, address, expected) in [
                ("round robin", service(inner), &translated),
                ("closest", closest(inner), &translated),
                ("instance", server.instance_ip(inner), &translated),
                ("NsIP", server.ns_ip(inner), &direct),
            ] {
                let cell = |protocol| {
                    let cell =
                        format!("{inner:?} over {outer:?}, {protocol:<4} to {kind:<11} {address}, {place}");
                    println!("{cell}");
                    cell
                };
                let tcp = cell("TCP");
                for _ in 0..TRIES {
                    assert_eq!(ask(&client, address), *expected, "{tcp}");
                }
                let udp = cell("UDP");
                for _ in 0..TRIES {
                    let answer = ask_by_datagram(&client, address).unwrap_or_else(|e| panic!("{udp}: {e}"));
                    assert_eq!(answer, *expected, "{udp}");
                }
                cell("ICMP");
                ping(&client, address);
            }
            assert_nothing_dropped(&underlay);
        }
    }
}

/// Mean bytes of the packets that the container has received meanwhile.
fn mean_received(node: &Node, container: &Container, work: impl FnOnce()) -> u64 {
    let counted = || {
        let counters = node.datapath.counters().unwrap();
        let own = |it: &&EndpointCounters| it.ns_ip == container.backend.ns_ip;
        let counters = counters.endpoints.iter().find(own).expect("the container is attached");
        (counters.received_packets, counters.received_bytes)
    };
    let (packets, bytes) = counted();
    work();
    let (packets_after, bytes_after) = counted();
    (bytes_after - bytes) / (packets_after - packets)
}

#[test]
fn super_packets_cross_whole_and_bytes_are_right_whatever_is_offloaded() {
    for (inner, outer) in combinations() {
        let mut underlay = Underlay::of(outer, 2);
        let client = underlay.nodes[0].container(2);
        let server = underlay.nodes[1].container(2);
        publish(&mut underlay, &client, &server);
        echo(&server);
        let mut stream = connect(&client, service(inner));
        let mean = mean_received(&underlay.nodes[1], &server, || exchange(&mut stream, 16));
        assert!(mean > 4000, "{inner:?} over {outer:?}: packets of {mean} bytes are no super-packets");
        let switch_off = |netns: &Netns, link: &str, features: &[&str]| {
            netns.output("ethtool", &[&["-K", link], features].concat()).unwrap();
        };
        // As a NIC without tunnel offloads; then as one that also computes no checksum; then containers that do not
        // segment; then containers that checksum by themselves.
        for features in [&["tso", "off", "gso", "off"][..], &["tx", "off"]] {
            underlay.nodes.iter().for_each(|node| switch_off(&node.netns, "up0", features));
            exchange(&mut stream, 16);
        }
        for features in [&["tso", "off", "gso", "off"][..], &["tx", "off"]] {
            [&client, &server].iter().for_each(|it| switch_off(&it.netns, "eth0", features));
            exchange(&mut stream, 16);
            exchange(&mut connect(&client, service(inner)), 4);
        }
        assert_nothing_dropped(&underlay);
    }
}
