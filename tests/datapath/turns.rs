//! Which instance a new connection gets.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netmanager::datapath::Policy;

use crate::bed::{Bed, CLIENT, LOOPBACK, SERVICE};
use crate::container::{instance_chosen, servers, to_service};
use crate::packet::Transport::TcpSyn;
use crate::packet::{ETHERNET, OUTER, Packet, SERVER_PORT, read};

#[test]
fn connections_take_the_instances_in_turn() {
    let mut bed = Bed::new();
    let servers = servers(3);
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &servers));
    let chosen: Vec<_> = (0..9)
        .map(|n| instance_chosen(&mut bed, &Packet { ports: (41000 + n, SERVER_PORT), ..to_service(TcpSyn) }))
        .collect();
    assert_eq!(chosen[0..3], chosen[3..6]);
    assert_eq!(chosen[0..3], chosen[6..9]);
    let mut distinct = chosen[0..3].to_vec();
    distinct.sort();
    assert_eq!(distinct, servers.iter().map(|server| server.ns_ip).collect::<Vec<_>>());
}

#[test]
fn the_first_connections_of_nodes_with_addresses_in_a_row_go_to_different_instances() {
    let mut bed = Bed::new();
    let servers = servers(3);
    let first = |n: u8| {
        let address = Ipv4Addr::new(192, 0, 2, 100 + n);
        bed.within(|datapath| {
            datapath.set_node(address, LOOPBACK)?;
            datapath.withdraw_service(SERVICE)?;
            datapath.publish_service(SERVICE, Policy::RoundRobin, &servers)
        });
        let packet = Packet { ports: (41000 + u16::from(n), SERVER_PORT), ..to_service(TcpSyn) };
        let outcome = bed.container_sends(&packet.sent_by(&CLIENT));
        read(&outcome.redirected()[ETHERNET + OUTER..]).destination
    };
    let chosen: BTreeSet<_> = (0..3).map(first).collect();
    assert_eq!(chosen, servers.iter().map(|server| server.ns_ip).collect());
}

#[test]
fn connections_to_a_closest_address_take_the_first_instance_of_the_list() {
    let mut bed = Bed::new();
    let mut servers = servers(3);
    for round in 0..2 {
        bed.within(|datapath| datapath.publish_service(SERVICE, Policy::Closest, &servers));
        for n in 0..4 {
            let packet = Packet { ports: (41000 + 10 * round + n, SERVER_PORT), ..to_service(TcpSyn) };
            assert_eq!(
                instance_chosen(&mut bed, &packet),
                servers[0].ns_ip,
                "connection {n} of round {round}"
            );
        }
        // Another one is closer from now on.
        servers.rotate_left(1);
    }
}
