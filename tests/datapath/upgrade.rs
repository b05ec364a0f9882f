//! What a daemon that finds another version of the tables does to connections: until its own tables are full, nothing;
//! and then nothing either, if the other version's rows are as its own.

use std::fs;
use std::net::Ipv4Addr;

use netmanager::datapath::{Hook, Policy};
use netmanager_common::ABI_VERSION;
use netmanager_common::map::ROUTING_SINCE;

use crate::nodes::{Node, Underlay, hook, publish_instances};
use crate::talk::{connect, echo, exchange};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);

#[test]
fn old_programs_go_on_with_old_tables() {
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    echo(&server);
    let publish = |datapath: &mut netmanager::datapath::Datapath| {
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[server.backend])?;
        datapath.publish_service(client.backend.instance_ip, Policy::Instance, &[client.backend])?;
        datapath.publish_service(server.backend.instance_ip, Policy::Instance, &[server.backend])
    };
    underlay.nodes[0].within(publish).unwrap();
    let mut stream = connect(&client, SERVICE);
    exchange(&mut stream, 1);

    let node = underlay.nodes.remove(0).crash();
    let tables = |version| node.pins.path().join(format!("abi-{version}"));
    let (current, other) = (tables(ABI_VERSION), tables(ABI_VERSION + 1));
    fs::rename(&current, &other).unwrap();
    // Nothing says what its rows are like.
    fs::remove_dir(other.join(format!("since-{ROUTING_SINCE}"))).unwrap();
    // A daemon that dies before it has got any further leaves everything to the next one.
    let mut node = node.start().crash().start();
    assert_eq!(node.datapath.endpoints().unwrap(), []);
    node.assert_attached(2);
    exchange(&mut stream, 4);
    exchange(&mut connect(&client, SERVICE), 1);

    let (address, uplink) = (node.addresses(), node.ifindex("up0"));
    node.within(|datapath| {
        publish(datapath)?;
        datapath.attach_endpoint(&client.endpoint)?;
        datapath.set_node(address, uplink)?;
        datapath.sweep()
    })
    .unwrap();
    assert!(current.exists() && !other.exists());
    node.assert_attached(2);
    exchange(&mut stream, 4);
    exchange(&mut connect(&client, SERVICE), 1);
}

#[test]
fn connections_keep_their_backends_if_the_other_versions_rows_are_the_same() {
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let servers = [2, 3, 4].map(|m| underlay.nodes[1].container(m));
    publish_instances(&mut underlay.nodes, &[&client, &servers[0], &servers[1], &servers[2]]);
    servers.iter().for_each(echo);
    let backends = servers.each_ref().map(|server| server.backend);
    underlay.nodes[0].within(|it| it.publish_service(SERVICE, Policy::RoundRobin, &backends)).unwrap();
    // One to each server; chosen anew, most would come to another one, which knows nothing of them.
    let mut streams: Vec<_> = (0..6).map(|_| connect(&client, SERVICE)).collect();
    streams.iter_mut().for_each(|stream| exchange(stream, 1));
    let flows = |node: &Node| {
        node.datapath.flows().unwrap().iter().map(|flow| (flow.client, flow.backend)).collect::<Vec<_>>()
    };
    let before = flows(&underlay.nodes[0]);

    let node = underlay.nodes.remove(0).crash();
    let tables = |version| node.pins.path().join(format!("abi-{version}"));
    fs::rename(tables(ABI_VERSION), tables(ABI_VERSION + 1)).unwrap();
    // The rows are said to be as those of this version, by a directory that was renamed along.
    let mut node = node.start();
    let (address, uplink) = (node.addresses(), node.ifindex("up0"));
    node.within(|datapath| {
        datapath.attach_endpoint(&client.endpoint)?;
        datapath.set_node(address, uplink)?;
        datapath.sweep()
    })
    .unwrap();
    node.assert_attached(2);
    assert_eq!(flows(&node), before);
    streams.iter_mut().for_each(|stream| exchange(stream, 1));
    assert_eq!(node.datapath.counters().unwrap().drops, []);
}

#[test]
fn what_has_not_been_attached_again_is_swept_away() {
    let mut underlay = Underlay::new(1);
    let _container = underlay.nodes[0].container(2);
    let node = underlay.nodes.remove(0).crash();
    let tables = |version| node.pins.path().join(format!("abi-{version}"));
    let (current, other) = (tables(ABI_VERSION), tables(ABI_VERSION + 1));
    fs::rename(current, other).unwrap();
    let mut node = node.start();
    if hook() == Hook::Tcx {
        node.assert_attached(2);
        node.within(|datapath| datapath.sweep()).unwrap();
        node.assert_attached(0);
    }
}
