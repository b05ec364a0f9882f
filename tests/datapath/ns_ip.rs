//! What becomes of packets that a container sends to another one's own address.

use std::net::Ipv4Addr;

use netmanager::datapath::DropReason;

use crate::bed::{Bed, CLIENT, NEIGHBOUR, SERVER};
use crate::packet::Transport::{DestinationUnreachable, EchoRequest, TcpSyn, Udp};
use crate::packet::{ETHERNET, Packet, delivered, encapsulated, read};

#[test]
fn a_container_is_reached_by_its_ns_ip_on_this_node_and_on_others() {
    let mut bed = Bed::new();
    for transport in [TcpSyn, Udp, EchoRequest] {
        let sent = Packet::new(transport, CLIENT.ns_ip, NEIGHBOUR.ns_ip);
        let outcome = bed.container_sends(&sent.sent_by(&CLIENT));
        let seen = delivered(outcome.redirected(), &NEIGHBOUR);
        assert_eq!((seen.source, seen.destination, seen.ttl), (CLIENT.ns_ip, NEIGHBOUR.ns_ip, 63));
        let sent = Packet::new(transport, CLIENT.ns_ip, SERVER.ns_ip);
        let outcome = bed.container_sends(&sent.sent_by(&CLIENT));
        let seen = read(encapsulated(outcome.redirected()).inner);
        assert_eq!((seen.source, seen.destination, seen.ttl), (CLIENT.ns_ip, SERVER.ns_ip, 63));
    }
}

#[test]
fn by_ns_ip_any_protocol_is_carried_as_it_is() {
    const SCTP: u8 = 132;
    let mut bed = Bed::new();
    for destination in [NEIGHBOUR.ns_ip, SERVER.ns_ip] {
        let mut frame = Packet::new(Udp, CLIENT.ns_ip, destination).sent_by(&CLIENT);
        frame[ETHERNET + 9] = SCTP;
        let sent = frame[ETHERNET + 20..].to_vec();
        let outcome = bed.container_sends(&frame);
        let headers = if destination == SERVER.ns_ip { ETHERNET + 28 } else { ETHERNET };
        assert_eq!(outcome.redirected()[headers + 9], SCTP);
        assert_eq!(outcome.redirected()[headers + 20..], sent);
    }
    let error = Packet::new(DestinationUnreachable, SERVER.ns_ip, CLIENT.ns_ip);
    let outcome = bed.uplink_receives(&error.tunnelled());
    assert_eq!(outcome.redirected()[ETHERNET..], error.bytes());
}

#[test]
fn an_ns_ip_that_nobody_has_is_not_looked_for_outside() {
    let mut bed = Bed::new();
    // The gateways of other blocks, too.
    for [b, c, d] in [[18, 1, 4], [18, 1, 65], [18, 77, 1], [18, 77, 2], [18, 0, 0], [29, 255, 255]] {
        for transport in [TcpSyn, Udp, DestinationUnreachable] {
            let packet = Packet::new(transport, CLIENT.ns_ip, Ipv4Addr::new(10, b, c, d));
            bed.container_sends(&packet.sent_by(&CLIENT)).assert_dropped(DropReason::NoEndpoint);
        }
    }
}
