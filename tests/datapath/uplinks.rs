//! Nodes with several uplinks, and connections that outlive a change of the way to another node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use integration::netns;
use netmanager::datapath::{Backend, Policy};

use crate::nodes::{Container, Underlay, decapsulation, publish_instances};
use crate::talk::{Answer, ask_by_datagram, connect, echo, exchange};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);
const NODES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))];

/// Two nodes that are joined by `up0` as always and by a second cable, `up1`; a client on the first and a server on the
/// second.
fn world() -> (Underlay, Container, Container) {
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    underlay.nodes[0]
        .within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[server.backend]))
        .unwrap();
    let [first, second] = &underlay.nodes[..] else { panic!("two nodes") };
    netns::connect((&first.netns, "up1"), (&second.netns, "up1")).unwrap();
    (underlay, client, server)
}

/// Lets the node take packets from both cables.
fn listen_at_both(underlay: &mut Underlay) {
    for node in &mut underlay.nodes {
        let (addresses, up0, up1) = (node.addresses(), node.ifindex("up0"), node.ifindex("up1"));
        node.within(|datapath| datapath.set_uplinks(addresses, up0, &[up1], &BTreeMap::new())).unwrap();
    }
}

/// Leads what goes to the other node through `up1`, in the kernel's table and in ours.
fn take_the_second_cable(underlay: &mut Underlay, node: usize) {
    let (node, other) = (&mut underlay.nodes[node], NODES[1 - node]);
    node.netns.ip(&format!("route add {other}/32 dev up1")).unwrap();
    let (addresses, up0, up1) = (node.addresses(), node.ifindex("up0"), node.ifindex("up1"));
    let ways = BTreeMap::from([(other, up1)]);
    node.within(|datapath| datapath.set_uplinks(addresses, up0, &[up1], &ways)).unwrap();
    node.decapsulate(decapsulation());
}

#[test]
fn a_connection_outlives_the_move_of_its_way_to_another_uplink() {
    let (mut underlay, client, server) = world();
    echo(&server);
    let mut stream = connect(&client, SERVICE);
    exchange(&mut stream, 2);
    listen_at_both(&mut underlay);
    // Each direction by itself, first across both cables and then without the first one.
    for node in 0..2 {
        take_the_second_cable(&mut underlay, node);
        exchange(&mut stream, 2);
    }
    for node in &underlay.nodes {
        node.netns.ip("link set up0 down").unwrap();
    }
    exchange(&mut stream, 2);
    let mut another = connect(&client, SERVICE);
    exchange(&mut another, 2);
    for node in &underlay.nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, []);
        // Two uplinks, one container.
        node.assert_attached(3);
    }
}

#[test]
fn an_interface_becomes_an_uplink_for_the_sake_of_one_node_and_ceases_to_be_one() {
    let (mut underlay, client, server) = world();
    crate::talk::serve(&server);
    let node = &mut underlay.nodes[0];
    let (addresses, up0, up1) = (node.addresses(), node.ifindex("up0"), node.ifindex("up1"));
    // The loopback is no way, and where nothing is known the first uplink is it.
    let lo = node.ifindex("lo");
    for ifindex in [Some(lo), None, Some(up0)] {
        node.within(|datapath| datapath.set_egress(NODES[1], ifindex)).unwrap();
        assert_eq!(node.datapath.tables().uplinks().unwrap(), [up0], "{ifindex:?}");
    }
    node.within(|datapath| datapath.set_egress(NODES[1], Some(up1))).unwrap();
    assert_eq!(node.datapath.tables().uplinks().unwrap(), [up0, up1]);
    node.assert_attached(3);
    // A daemon that starts anew finds it so.
    let mut node = underlay.nodes.remove(0).crash().start();
    assert_eq!(node.datapath.tables().uplinks().unwrap(), [up0, up1]);
    node.assert_attached(3);
    node.within(|datapath| datapath.set_node(addresses, up0)).unwrap();
    assert_eq!(node.datapath.tables().uplinks().unwrap(), [up0]);
    node.assert_attached(2);
    assert_eq!(ask_by_datagram(&client, SERVICE).unwrap(), Answer::of(&server, &client));
}

#[test]
fn a_connection_outlives_another_address_of_its_server_s_node() {
    let (mut underlay, client, server) = world();
    echo(&server);
    let mut stream = connect(&client, SERVICE);
    exchange(&mut stream, 2);

    let moved = Ipv4Addr::new(192, 0, 2, 22);
    let node = &mut underlay.nodes[1];
    node.netns.ip(&format!("addr add {moved}/24 dev up0")).unwrap();
    let up0 = node.ifindex("up0");
    node.within(|datapath| datapath.set_node(moved, up0)).unwrap();
    let backend = Backend { node: (moved, server.backend.node.port()).into(), ..server.backend };
    for (address, policy) in [(SERVICE, Policy::RoundRobin), (backend.instance_ip, Policy::Instance)] {
        underlay.nodes[0].within(|datapath| datapath.publish_service(address, policy, &[backend])).unwrap();
    }
    exchange(&mut stream, 2);
    let peers = underlay.nodes[0].datapath.tables().peers().unwrap();
    assert!(peers.contains(&backend.node) && !peers.contains(&server.backend.node), "{peers:?}");
}
