//! What a restart, a crash and an upgrade of netmanager do to connections: nothing.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use netmanager::datapath::{Datapath, DatapathError, Hook, Options, Policy, Tables};
use protocol::plan::Plan;

use crate::nodes::{Container, Node, TUNNEL_PORT, Underlay, publish_instances};
use crate::pins::Pins;
use crate::talk::{connect, echo, exchange};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);

fn connected(underlay: &mut Underlay) -> (Container, Container) {
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    underlay.nodes[0]
        .within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[server.backend]))
        .unwrap();
    echo(&server);
    (client, server)
}

/// The state that a restart must find again.
fn state(node: &Node) -> impl PartialEq + std::fmt::Debug + use<> {
    let datapath = &node.datapath;
    let tables = datapath.tables();
    (tables.node().unwrap(), datapath.endpoints().unwrap(), datapath.services().unwrap())
}

#[test]
fn connections_outlive_the_daemon() {
    let mut underlay = Underlay::new(2);
    let (client, _server) = connected(&mut underlay);
    let mut stream = connect(&client, SERVICE);
    exchange(&mut stream, 4);
    let before: Vec<_> = underlay.nodes.iter().map(state).collect();
    // No process holds the data plane now, as after kill -9.
    let mut nodes: Vec<_> = underlay.nodes.drain(..).map(Node::crash).collect();
    exchange(&mut stream, 4);
    exchange(&mut connect(&client, SERVICE), 1);
    // And it is taken over while packets run.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                exchange(&mut stream, 1);
            }
        });
        underlay.nodes = nodes.drain(..).map(|node| node.start()).collect();
        for _ in 0..3 {
            underlay.nodes = underlay.nodes.drain(..).map(|node| node.crash().start()).collect();
        }
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap();
    });
    exchange(&mut stream, 4);
    assert_eq!(underlay.nodes.iter().map(state).collect::<Vec<_>>(), before);
    for node in &underlay.nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, [], "not one packet was dropped");
        // One at the veth, one at the uplink.
        node.assert_attached(2);
    }
}

#[test]
fn this_kernel_has_tcx_if_it_is_new_enough() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    assert_eq!(Hook::probe() == Hook::Tcx, version >= (6, 6), "{release}");
}

#[test]
fn cleanup_leaves_nothing() {
    let mut underlay = Underlay::new(2);
    let (_client, _server) = connected(&mut underlay);
    for node in underlay.nodes.drain(..) {
        node.assert_attached(2);
        let path = node.pins.path().to_owned();
        let crashed = node.crash();
        for _ in 0..2 {
            crashed.netns.run(|| Datapath::remove_all(&path)).unwrap().unwrap();
        }
        assert!(!path.exists());
        crashed.assert_attached(0);
    }
}

#[test]
fn a_detached_endpoint_has_no_program_and_detaching_twice_is_no_error() {
    let mut underlay = Underlay::new(1);
    let node = &mut underlay.nodes[0];
    let container = node.container(2);
    let endpoint = container.endpoint;
    node.within(|datapath| datapath.attach_endpoint(&endpoint)).unwrap();
    assert_eq!(node.datapath.endpoints().unwrap(), [endpoint]);
    // Attaching twice is attaching once.
    node.assert_attached(2);
    for _ in 0..2 {
        node.within(|datapath| datapath.detach_endpoint(endpoint.ns_ip)).unwrap();
    }
    assert_eq!(node.datapath.endpoints().unwrap(), []);
    node.assert_attached(1);
}

#[test]
fn the_uplink_can_move() {
    let mut underlay = Underlay::new(1);
    let node = &mut underlay.nodes[0];
    node.netns.ip("link add other type veth peer name another").unwrap();
    let (address, other) = (node.addresses(), node.ifindex("other"));
    node.within(|datapath| datapath.set_node(address, other)).unwrap();
    assert_eq!(node.datapath.tables().node().unwrap().unwrap().uplink_ifindex, other);
    node.assert_attached(1);
}

#[test]
fn a_daemon_starts_though_its_interfaces_have_gone() {
    let mut underlay = Underlay::new(1);
    let _container = underlay.nodes[0].container(2);
    let node = underlay.nodes.remove(0).crash();
    for interface in ["veth2", "up0"] {
        node.netns.ip(&format!("link delete {interface}")).unwrap();
    }
    let node = node.start();
    assert_eq!(node.datapath.endpoints().unwrap().len(), 1);
    node.assert_attached(0);
}

#[test]
fn the_tunnel_carries_what_the_uplink_has_room_for() {
    let mut underlay = Underlay::new(1);
    let node = &mut underlay.nodes[0];
    let mut inner_mtu = |uplink_mtu: u16| {
        node.netns.ip(&format!("link set up0 mtu {uplink_mtu}")).unwrap();
        let (address, uplink) = (node.addresses(), node.ifindex("up0"));
        node.within(|datapath| datapath.set_node(address, uplink)).unwrap();
        node.datapath.tables().node().unwrap().unwrap().inner_mtu
    };
    assert_eq!([9000, 1500, 1400].map(&mut inner_mtu), [1450, 1450, 1372]);
}

#[test]
fn tables_are_read_without_a_daemon() {
    let mut underlay = Underlay::new(2);
    let (_client, server) = connected(&mut underlay);
    let node = underlay.nodes.remove(0).crash();
    let tables = Tables::open(node.pins.path()).unwrap();
    assert_eq!(tables.endpoints().unwrap().len(), 1);
    let services = tables.services().unwrap();
    assert!(
        services.iter().any(|service| service.service_ip == SERVICE && service.backends == [server.backend])
    );
}

#[test]
fn what_is_wrong_with_the_pin_directory_is_said() {
    let pins = Pins::new();
    assert!(matches!(Tables::open(pins.path()), Err(DatapathError::NotPinned { .. })));
    let open = |pin_dir| {
        Datapath::open(Options { pin_dir, tunnel_port: TUNNEL_PORT, plan: Plan::default() }).unwrap_err()
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let error = open(elsewhere.path().join("hypha"));
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    assert!(matches!(open(pins.path().join("a.b")), DatapathError::DottedPinDirectory { .. }));
}
