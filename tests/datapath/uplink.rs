//! What becomes of the packets that arrive from other nodes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netmanager::datapath::{Backend, DropReason, Miss, Policy};

use crate::bed::{Bed, CLIENT, NEXT, NODE, PEER, SERVER, SERVICE, TUNNEL_PORT};
use crate::packet::Transport::{EchoReply, EchoRequest, TcpAck, TcpSyn, Udp, UdpUnchecked};
use crate::packet::{
    CLIENT_PORT, ETHERNET, OUTER, PAYLOAD, Packet, SERVER_PORT, Transport, delivered, tunnelled,
};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const UNKNOWN_INSTANCE: Ipv4Addr = Ipv4Addr::new(10, 30, 99, 99);

/// What is done to a frame.
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

/// From the instance on the other node to our container.
fn request(transport: Transport) -> Packet {
    Packet::new(transport, SERVER.instance_ip, CLIENT.ns_ip)
}

#[test]
fn a_request_is_delivered_as_it_is() {
    let mut bed = Bed::new();
    for transport in [TcpSyn, TcpAck, Udp, UdpUnchecked, EchoRequest] {
        let sent = request(transport);
        let outcome = bed.uplink_receives(&sent.tunnelled());
        delivered(outcome.redirected(), &CLIENT);
        assert_eq!(outcome.frame[ETHERNET..], sent.bytes(), "{transport:?}");
    }
}

#[test]
fn an_answer_comes_from_the_service_address_that_was_dialled() {
    let mut bed = Bed::new();
    for (there, back) in [(TcpSyn, TcpAck), (Udp, Udp), (Udp, UdpUnchecked), (EchoRequest, EchoReply)] {
        bed.container_sends(&Packet::new(there, CLIENT.ns_ip, SERVICE).sent_by(&CLIENT)).redirected();
        let answer = Packet { ports: (SERVER_PORT, CLIENT_PORT), ..request(back) };
        let answer = if back == EchoReply { Packet { ports: (0, CLIENT_PORT), ..answer } } else { answer };
        let outcome = bed.uplink_receives(&answer.tunnelled());
        let seen = delivered(outcome.redirected(), &CLIENT);
        assert_eq!((seen.source, seen.destination, seen.ttl), (SERVICE, CLIENT.ns_ip, 64), "{back:?}");
        assert_eq!(seen.payload, PAYLOAD);
    }
}

#[test]
fn packets_from_a_container_by_its_ns_ip_are_delivered() {
    let mut bed = Bed::new();
    for source in [SERVER.ns_ip, Ipv4Addr::new(10, 18, 2, 60)] {
        let outcome = bed.uplink_receives(&Packet::new(Udp, source, CLIENT.ns_ip).tunnelled());
        assert_eq!(delivered(outcome.redirected(), &CLIENT).source, source);
    }
    assert_eq!(bed.misses(), []);
}

#[test]
fn an_unknown_instance_on_a_known_node_is_delivered_and_asked_for() {
    let mut bed = Bed::new();
    let frame = Packet::new(TcpSyn, UNKNOWN_INSTANCE, CLIENT.ns_ip).tunnelled();
    for _ in 0..2 {
        delivered(bed.uplink_receives(&frame).redirected(), &CLIENT);
    }
    assert_eq!(bed.misses(), [Miss { service_ip: UNKNOWN_INSTANCE.into(), ns_ip: CLIENT.ns_ip.into() }]);
}

#[test]
fn an_unknown_node_is_not_believed_but_asked_for_and_its_retransmission_passes() {
    let mut bed = Bed::new();
    let frame = tunnelled(STRANGER, &Packet::new(TcpSyn, UNKNOWN_INSTANCE, CLIENT.ns_ip).bytes());
    bed.uplink_receives(&frame).assert_dropped(DropReason::UnknownPeer);
    assert_eq!(bed.misses(), [Miss { service_ip: UNKNOWN_INSTANCE.into(), ns_ip: CLIENT.ns_ip.into() }]);
    let answer = Backend {
        ns_ip: Ipv4Addr::new(10, 18, 77, 2),
        instance_ip: UNKNOWN_INSTANCE,
        node: SocketAddr::new(IpAddr::V4(STRANGER), TUNNEL_PORT),
        ..SERVER
    };
    bed.within(|datapath| datapath.publish_service(UNKNOWN_INSTANCE, Policy::Instance, &[answer]));
    delivered(bed.uplink_receives(&frame).redirected(), &CLIENT);
}

#[test]
fn a_node_cannot_speak_for_another_nodes_container() {
    let mut bed = Bed::new();
    let second = Backend {
        ns_ip: Ipv4Addr::new(10, 18, 3, 2),
        instance_ip: Ipv4Addr::new(10, 30, 13, 10),
        node: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3)), TUNNEL_PORT),
        ..SERVER
    };
    bed.within(|datapath| datapath.publish_service(second.instance_ip, Policy::Instance, &[second]));
    for source in [second.instance_ip, second.ns_ip, OUTSIDE, NODE] {
        bed.uplink_receives(&Packet::new(Udp, source, CLIENT.ns_ip).tunnelled())
            .assert_dropped(DropReason::ForeignSource);
    }
    for source in [SERVER.instance_ip, SERVER.ns_ip] {
        let inner = Packet::new(Udp, source, CLIENT.ns_ip).bytes();
        bed.uplink_receives(&tunnelled(STRANGER, &inner)).assert_dropped(DropReason::ForeignSource);
    }
    let inner = Packet::new(Udp, Ipv4Addr::new(10, 18, 9, 9), CLIENT.ns_ip).bytes();
    bed.uplink_receives(&tunnelled(STRANGER, &inner)).assert_dropped(DropReason::UnknownPeer);
    assert_eq!(bed.misses(), []);
}

#[test]
fn an_instance_that_has_gone_is_no_longer_believed_elsewhere() {
    let mut bed = Bed::new();
    let moved = Backend { node: SocketAddr::new(IpAddr::V4(STRANGER), TUNNEL_PORT), ..SERVER };
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[moved]));
    bed.uplink_receives(&request(Udp).tunnelled()).assert_dropped(DropReason::ForeignSource);
    bed.uplink_receives(&tunnelled(STRANGER, &request(Udp).bytes())).redirected();
}

#[test]
fn what_is_not_the_tunnels_is_left_to_others() {
    let mut bed = Bed::new();
    let good = request(Udp).tunnelled();
    let changes: [(&str, Change<'_>); 7] = [
        ("another port", &|frame| frame[ETHERNET + 23] ^= 1),
        ("another destination", &|frame| frame[ETHERNET + 19] = 9),
        ("not UDP", &|frame| frame[ETHERNET + 9] = 6),
        ("IP options", &|frame| frame[ETHERNET] = 0x46),
        ("a later fragment", &|frame| frame[ETHERNET + 7] = 100),
        ("ARP", &|frame| frame[13] = 6),
        ("cut in its headers", &|frame| frame.truncate(ETHERNET + OUTER - 1)),
    ];
    for (what, change) in changes {
        let mut frame = good.clone();
        change(&mut frame);
        let outcome = bed.uplink_receives(&frame);
        assert_eq!((outcome.verdict, outcome.dropped.as_slice()), (NEXT, [].as_slice()), "{what}");
        assert_eq!(outcome.frame, frame, "{what}");
    }
}

#[test]
fn a_node_without_an_address_leaves_all_to_others() {
    let mut bed = Bed::empty();
    let frame = request(Udp).tunnelled();
    bed.uplink_receives(&frame).assert_untouched(NEXT, &frame);
}

#[test]
fn rubbish_on_the_tunnel_port_is_dropped_and_counted() {
    let mut bed = Bed::new();
    for inner in [&b""[..], b"E", b"hello, is this DNS?", &[0x45; 19]] {
        bed.uplink_receives(&tunnelled(PEER, inner)).assert_dropped(DropReason::Malformed);
    }
    // As a NIC shows it: a short frame is filled up to 60 bytes.
    let mut padded = tunnelled(PEER, b"");
    padded.resize(60, 0x45);
    bed.uplink_receives(&padded).assert_dropped(DropReason::Malformed);
    bed.uplink_receives(&tunnelled(PEER, &[0; 40])).assert_dropped(DropReason::ForeignTunnel);
    bed.uplink_receives(&tunnelled(PEER, &[0x60; 60])).assert_dropped(DropReason::Malformed);
}

#[test]
fn an_inner_packet_that_is_cut_anywhere_is_dropped() {
    let mut bed = Bed::new();
    let inner = Packet { payload: Vec::new(), ..request(TcpAck) }.bytes();
    for length in 0..inner.len() {
        bed.uplink_receives(&tunnelled(PEER, &inner[..length])).assert_dropped(DropReason::Malformed);
    }
    let mut trailing = inner.clone();
    trailing.push(0);
    bed.uplink_receives(&tunnelled(PEER, &trailing)).assert_dropped(DropReason::Malformed);
    bed.uplink_receives(&tunnelled(PEER, &inner)).redirected();
}

#[test]
fn padding_of_the_ethernet_frame_does_not_matter() {
    let mut bed = Bed::new();
    let sent = Packet { payload: Vec::new(), ..request(Udp) };
    let mut frame = sent.tunnelled();
    frame.extend([0; 7]);
    let outcome = bed.uplink_receives(&frame);
    assert_eq!(outcome.redirected()[ETHERNET..][..28], sent.bytes());
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let mut bed = Bed::new();
    let good = request(Udp).tunnelled();
    let (total, udp) = (ETHERNET + 3, ETHERNET + 20 + 5);
    for (offset, by) in [(total, 1), (total, 255), (udp, 1), (udp, 255)] {
        let mut frame = good.clone();
        frame[offset] = frame[offset].wrapping_add(by);
        bed.uplink_receives(&frame).assert_dropped(DropReason::Malformed);
    }
}

#[test]
fn what_cannot_be_delivered_is_dropped_with_its_reason() {
    let mut bed = Bed::new();
    let inner = ETHERNET + OUTER;
    let changes: [(Change<'_>, DropReason); 4] = [
        (&|frame| frame[ETHERNET + 6] = 0x20, DropReason::OuterFragment),
        (&|frame| frame[inner] = 0x46, DropReason::IpOptions),
        (&|frame| frame[inner + 9] = 132, DropReason::UnsupportedProtocol),
        (&|frame| frame[inner + 19] = 250, DropReason::NoEndpoint),
    ];
    for (change, reason) in changes {
        let mut frame = request(TcpAck).tunnelled();
        change(&mut frame);
        bed.uplink_receives(&frame).assert_dropped(reason);
    }
}

#[test]
fn a_wrong_inner_checksum_is_not_made_right() {
    let mut bed = Bed::new();
    bed.container_sends(&Packet::new(Udp, CLIENT.ns_ip, SERVICE).sent_by(&CLIENT)).redirected();
    let answer = Packet { ports: (SERVER_PORT, CLIENT_PORT), ..request(Udp) };
    let checksum_error = |frame: &[u8]| {
        let ip = etherparse::Ipv4HeaderSlice::from_slice(&frame[ETHERNET..]).unwrap();
        ip.header_checksum() != ip.to_header().calc_header_checksum()
    };
    let mut frame = answer.tunnelled();
    frame[ETHERNET + OUTER + 10] ^= 0x55;
    let outcome = bed.uplink_receives(&frame);
    assert!(checksum_error(outcome.redirected()), "the container's kernel will drop it");
}

#[test]
fn delivered_packets_are_counted() {
    let mut bed = Bed::new();
    let sent = request(Udp);
    bed.uplink_receives(&sent.tunnelled()).redirected();
    let counters = bed.datapath.counters().unwrap();
    let client = counters.endpoints.iter().find(|counters| counters.ns_ip == CLIENT.ns_ip).unwrap();
    let bytes = u64::try_from(sent.bytes().len()).unwrap();
    assert_eq!((client.received_packets, client.received_bytes), (1, bytes));
}
