//! The node's own processes speak to services: they send through a veth of which both ends are in the node's namespace.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netmanager::datapath::{Backend, DropReason, Policy};

use crate::nodes::{Container, Node, Underlay, publish_instances};
use crate::talk::{PORT, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);

/// One server on each of two nodes, and the first node itself, which the second one knows.
fn bed() -> (Underlay, [Container; 2]) {
    let mut underlay = Underlay::new(2);
    let servers = [underlay.nodes[0].container(2), underlay.nodes[1].container(2)];
    publish_instances(&mut underlay.nodes, &[&servers[0], &servers[1]]);
    underlay.nodes[0].connect_itself();
    let own = underlay.nodes[0].own_ns_ip();
    let itself =
        Backend { ns_ip: own, ns_ip6: None, instance_ip: own, instance_ip6: None, ..servers[0].backend };
    underlay.nodes[1].within(|it| it.publish_service(own, Policy::Instance, &[itself])).unwrap();
    servers.iter().for_each(serve);
    (underlay, servers)
}

fn publish(node: &mut Node, server: &Container) {
    node.within(|it| it.publish_service(SERVICE, Policy::RoundRobin, &[server.backend])).unwrap();
}

/// Who answered, by TCP and by UDP, and who had asked as the server saw it.
fn asked_by_tcp_and_udp(node: &Node) -> [String; 2] {
    let target = SocketAddr::from((SERVICE, PORT));
    node.netns
        .run(|| {
            let patience = Duration::from_secs(5);
            let mut by_tcp = String::new();
            TcpStream::connect_timeout(&target, patience).unwrap().read_to_string(&mut by_tcp).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(patience)).unwrap();
            socket.connect(target).unwrap();
            socket.send(b"who?").unwrap();
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).unwrap();
            [by_tcp.trim().to_owned(), String::from_utf8_lossy(&buffer[..length]).into_owned()]
        })
        .unwrap()
}

#[test]
fn the_node_speaks_to_services_on_itself_and_on_other_nodes() {
    let (mut underlay, servers) = bed();
    for server in &servers {
        publish(&mut underlay.nodes[0], server);
        let node = &underlay.nodes[0];
        let expected = format!("{} {}", server.backend.ns_ip, node.own_ns_ip());
        assert_eq!(asked_by_tcp_and_udp(node), [expected.clone(), expected]);
        node.netns.output("ping", &["-n", "-c", "2", "-i", "0.1", "-W", "2", &SERVICE.to_string()]).unwrap();
    }
    for node in &underlay.nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, []);
    }
    let nodes = &underlay.nodes;
    assert_eq!(nodes[0].datapath.endpoints().unwrap().len(), 1, "the node is no container");
}

#[test]
fn nobody_reaches_the_node_by_its_ns_ip() {
    let (underlay, servers) = bed();
    let own = underlay.nodes[0].own_ns_ip();
    let _listener =
        underlay.nodes[0].netns.run(|| std::net::TcpListener::bind((own, PORT)).unwrap()).unwrap();
    for server in &servers {
        let target = SocketAddr::from((own, PORT));
        let dialled =
            server.netns.run(|| TcpStream::connect_timeout(&target, Duration::from_millis(300))).unwrap();
        assert!(dialled.is_err(), "{server:?}");
    }
    let drops = underlay.nodes[0].datapath.counters().unwrap().drops;
    assert!(matches!(drops[..], [(DropReason::NoEndpoint, 2..)]), "{drops:?}");
}

#[test]
fn the_veth_of_the_node_itself_outlives_the_daemon() {
    let (mut underlay, servers) = bed();
    publish(&mut underlay.nodes[0], &servers[1]);
    let before = asked_by_tcp_and_udp(&underlay.nodes[0]);
    let crashed = underlay.nodes.remove(0).crash().start();
    assert_eq!(asked_by_tcp_and_udp(&crashed), before);
    // Container, uplink, and the node's own.
    crashed.assert_attached(3);
}
