//! Real connections between containers in network namespaces.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use netmanager::datapath::{Event, Policy};

use crate::nodes::{Container, Family, Node, Underlay, publish_instances};
use crate::talk::{self, Answer, PORT, ask, ask_by_datagram, connect, echo, exchange, ping, serve};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 10);

fn publish(node: &mut Node, servers: &[&Container]) {
    let backends: Vec<_> = servers.iter().map(|server| server.backend).collect();
    node.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &backends)).unwrap();
}

/// A client on the first node and a server on the second, which know each other.
fn client_and_server(underlay: &mut Underlay) -> (Container, Container) {
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    publish(&mut underlay.nodes[0], &[&server]);
    (client, server)
}

#[test]
fn tcp_udp_and_ping_cross_nodes_through_a_service_address() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    serve(&server);
    for address in [SERVICE, server.backend.instance_ip] {
        assert_eq!(ask(&client, address), Answer::of(&server, &client));
        assert_eq!(ask_by_datagram(&client, address).unwrap(), Answer::of(&server, &client));
        ping(&client, address);
    }
    for node in &underlay.nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, []);
    }
}

#[test]
fn a_container_is_reached_by_its_ns_ip_across_nodes_and_seen_by_its_own() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    serve(&server);
    let answer = Answer { asked_by: client.backend.ns_ip.into(), ..Answer::of(&server, &client) };
    assert_eq!(ask(&client, server.backend.ns_ip), answer);
    assert_eq!(ask_by_datagram(&client, server.backend.ns_ip).unwrap(), answer);
    ping(&client, server.backend.ns_ip);
}

#[test]
fn instances_on_all_nodes_and_the_client_itself_answer_in_turn() {
    let mut underlay = Underlay::new(3);
    let client = underlay.nodes[0].container(2);
    let servers: Vec<_> = [(0, 3), (1, 2), (2, 2)].map(|(node, m)| underlay.nodes[node].container(m)).into();
    let all: Vec<_> = [&client].into_iter().chain(&servers).collect();
    publish_instances(&mut underlay.nodes, &all);
    publish(&mut underlay.nodes[0], &all);
    for server in &all {
        serve(server);
    }
    for ask in [ask, |client: &_, address| ask_by_datagram(client, address).unwrap()] {
        let answers: Vec<_> = (0..8).map(|_| ask(&client, SERVICE)).collect();
        assert_eq!(answers[..4], answers[4..]);
        for server in &all {
            assert!(answers.contains(&Answer::of(server, &client)), "{server:?} never answered: {answers:?}");
        }
    }
}

#[test]
fn turns_are_exact_when_many_connect_at_once() {
    let mut underlay = Underlay::new(2);
    let clients: Vec<_> = (2..6).map(|m| underlay.nodes[0].container(m)).collect();
    let servers: Vec<_> = (2..5).map(|m| underlay.nodes[1].container(m)).collect();
    let all: Vec<_> = clients.iter().chain(&servers).collect();
    publish_instances(&mut underlay.nodes, &all);
    publish(&mut underlay.nodes[0], &servers.iter().collect::<Vec<_>>());
    servers.iter().for_each(serve);
    let answers: Vec<_> = thread::scope(|scope| {
        let askers: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(move || (0..30).map(|_| ask(client, SERVICE).by).collect::<Vec<_>>()))
            .collect();
        askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect()
    });
    let mut counts = BTreeMap::new();
    for by in answers {
        *counts.entry(by).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [40, 40, 40]);
}

/// Plays the cluster on every node: answers each miss with the one instance that it is about.
fn resolve_misses(nodes: &mut [Node], known: &[(Ipv4Addr, &Container)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for node in nodes {
        let miss = runtime.block_on(async {
            let mut events = node.datapath.events().unwrap();
            let event = tokio::time::timeout(Duration::from_secs(5), events.next());
            let Event::Miss(miss) = event.await.expect("a miss").unwrap() else { panic!("a miss") };
            miss
        });
        let (_, container) = known.iter().find(|(ip, _)| *ip == miss.service_ip).expect("a known address");
        let backend = container.backend;
        node.within(|datapath| datapath.publish_service(miss.service_ip, Policy::Instance, &[backend]))
            .unwrap();
    }
}

#[test]
fn a_connection_between_nodes_that_know_nothing_of_each_other_is_established() {
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    serve(&server);
    let answer = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&client, SERVICE));
        // The client's node misses the service; then the server's misses the client.
        resolve_misses(&mut underlay.nodes, &[(SERVICE, &server), (client.backend.instance_ip, &client)]);
        asking.join().unwrap()
    });
    assert_eq!(answer, Answer::of(&server, &client));
}

#[test]
fn datagrams_with_odd_lengths_and_up_to_the_mtu_arrive() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    let bind = || UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    let (sender, receiver) = (client.netns.run(bind).unwrap(), server.netns.run(bind).unwrap());
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 4096];
    for length in [0, 1, 2, 3, 17, 1000, 1421, 1422] {
        let sent: Vec<_> = (0..length).map(|n| u8::try_from(n % 253).unwrap()).collect();
        sender.send_to(&sent, (SERVICE, PORT)).unwrap();
        let (received, from) =
            receiver.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!(buffer[..received], sent);
        assert_eq!(from.ip(), client.backend.instance_ip);
    }
}

#[test]
fn a_service_that_has_lost_an_instance_goes_on_with_the_others() {
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let (stays, goes) = (underlay.nodes[1].container(2), underlay.nodes[1].container(3));
    publish_instances(&mut underlay.nodes, &[&client, &stays, &goes]);
    publish(&mut underlay.nodes[0], &[&stays, &goes]);
    echo(&stays);
    echo(&goes);
    let mut streams: Vec<_> = (0..2).map(|_| connect(&client, SERVICE)).collect();
    streams.iter_mut().for_each(|stream| exchange(stream, 1));
    let ns_ip = goes.backend.ns_ip;
    underlay.nodes[1].within(|datapath| datapath.detach_endpoint(ns_ip)).unwrap();
    for instance_ip in [goes.instance_ip(Family::V4), goes.instance_ip(Family::V6)] {
        underlay.nodes[0].within(|datapath| datapath.withdraw_service(instance_ip)).unwrap();
    }
    publish(&mut underlay.nodes[0], &[&stays]);
    for _ in 0..4 {
        exchange(&mut connect(&client, SERVICE), 1);
    }
    let flows = underlay.nodes[0].datapath.flows().unwrap();
    assert_eq!(flows.iter().filter(|flow| flow.backend.is_none()).count(), 1, "{flows:?}");
    let mut alive = streams.into_iter().filter_map(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        talk::still_echoes(&mut stream).then_some(())
    });
    assert!(alive.next().is_some() && alive.next().is_none(), "one of the two connections lives on");
}

#[test]
fn a_container_that_is_made_anew_with_its_old_address_is_reached() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    serve(&server);
    assert_eq!(ask(&client, SERVICE), Answer::of(&server, &client));
    underlay.nodes[1].netns.ip("link delete veth2").unwrap();
    let server = underlay.nodes[1].container(2);
    serve(&server);
    assert_eq!(ask(&client, SERVICE), Answer::of(&server, &client));
}
