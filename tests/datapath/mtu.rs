//! How large packets may be on the way to each node: what is too large is refused, and TCP is told when a connection
//! begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader};
use netmanager::datapath::{Addresses, Backend, DropReason, Endpoint, Policy};

use crate::bed::{Bed, CLIENT, Outcome, PEER, SERVER, SERVICE, TUNNEL_PORT};
use crate::nodes::{Underlay, publish_instances};
use crate::packet::Transport::{TcpSyn, Udp};
use crate::packet::{ETHERNET, OUTER, Packet, encapsulated, frame, read, tunnelled};

const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x102);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x202);

/// As Linux sends them with a SYN: 1410 is the largest segment.
const LINUX: [u8; 20] = [2, 4, 0x05, 0x82, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
/// The same at an odd place.
const ODD: [u8; 8] = [1, 2, 4, 0x05, 0x82, 1, 0, 0];

/// A node that knows its client and the server's node, to which only 1400 bytes of the underlay's IP reach.
fn bed() -> Bed {
    let mut bed = Bed::empty();
    bed.within(|datapath| {
        datapath.set_node(Addresses::from(crate::bed::NODE), CLIENT.ifindex)?;
        datapath.attach_endpoint(&Endpoint { ns_ip6: Some(CLIENT6), ..CLIENT })?;
        let server = Backend { ns_ip6: Some(SERVER6), ..SERVER };
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[server])?;
        datapath.publish_service(server.instance_ip, Policy::Instance, &[server])?;
        datapath.set_path_mtu(PEER.into(), Some(1400))
    });
    bed
}

fn syn(source: IpAddr, destination: IpAddr, answers: bool, options: &[u8]) -> Vec<u8> {
    let ip = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
        }
        _ => panic!("one family"),
    };
    let tcp = ip.tcp(40000, 80, 1000, 500).syn();
    let tcp = if answers { tcp.ack(77) } else { tcp };
    let mut bytes = Vec::new();
    tcp.options_raw(options).unwrap().write(&mut bytes, &[]).unwrap();
    bytes
}

/// As the client puts it on its wire.
fn sent(ip: &[u8]) -> Vec<u8> {
    let mut frame = frame(CLIENT.gateway_mac, CLIENT.mac, ip);
    if ip[0] >> 4 == 6 {
        frame[12..ETHERNET].copy_from_slice(&[0x86, 0xdd]);
    }
    frame
}

/// The TCP options of an IP packet, whose checksum must be right.
#[track_caller]
fn options(packet: &[u8]) -> Vec<u8> {
    let ip = etherparse::IpHeaders::from_slice(packet).unwrap();
    let (tcp, payload) = TcpHeader::from_slice(ip.1.payload).unwrap();
    let right = match &ip.0 {
        etherparse::IpHeaders::Ipv4(header, _) => tcp.calc_checksum_ipv4(header, payload),
        etherparse::IpHeaders::Ipv6(header, _) => tcp.calc_checksum_ipv6(header, payload),
    };
    assert_eq!(tcp.checksum, right.unwrap(), "TCP checksum");
    tcp.options.to_vec()
}

fn with_segment(options: &[u8], at: usize, segment: u16) -> Vec<u8> {
    let mut options = options.to_vec();
    options[at..at + 2].copy_from_slice(&segment.to_be_bytes());
    options
}

#[test]
fn a_connection_over_a_narrow_path_begins_with_segments_that_fit() {
    let mut bed = bed();
    // 1400 bytes of the underlay are 1372 inside.
    let families: [(IpAddr, IpAddr, u16); 2] =
        [(CLIENT.ns_ip.into(), SERVER.ns_ip.into(), 1332), (CLIENT6.into(), SERVER6.into(), 1312)];
    for (client, server, fitting) in families {
        for answers in [false, true] {
            for (given, at) in [(LINUX.as_slice(), 2), (&ODD, 3)] {
                let leaves = bed.container_sends(&sent(&syn(client, server, answers, given)));
                let expected = with_segment(given, at, fitting);
                assert_eq!(options(&leaves.redirected()[ETHERNET + OUTER..]), expected, "{server}");
                let arrives = bed.uplink_receives(&tunnelled(PEER, &syn(server, client, answers, given)));
                assert_eq!(options(&arrives.redirected()[ETHERNET..]), expected, "from {server}");
            }
        }
    }
    let translated = syn(CLIENT.ns_ip.into(), SERVICE.into(), false, &LINUX);
    let leaves = bed.container_sends(&sent(&translated));
    assert_eq!(options(encapsulated(leaves.redirected()).inner), with_segment(&LINUX, 2, 1332));
}

#[test]
fn smaller_segments_and_other_options_stay_as_they_are() {
    let mut bed = bed();
    let (client, server) = (CLIENT.ns_ip.into(), SERVER.ns_ip.into());
    let small = with_segment(&LINUX, 2, 1000);
    // None; one of a wrong length; an end before it; one that would reach beyond the header; one without a length.
    let odd: [&[u8]; 6] = [
        &[],
        &[2, 3, 0xff, 1],
        &[0, 2, 4, 0xff, 0xff, 0, 0, 0],
        &[1, 1, 2, 4],
        &[9, 0, 2, 4, 0xff, 0xff, 0, 0],
        &small,
    ];
    for given in odd {
        let leaves = bed.container_sends(&sent(&syn(client, server, false, given)));
        assert_eq!(options(encapsulated(leaves.redirected()).inner), given);
    }
    // And on a path that carries what containers send, everything.
    bed.within(|datapath| datapath.set_path_mtu(PEER.into(), None));
    let leaves = bed.container_sends(&sent(&syn(client, server, false, &LINUX)));
    assert_eq!(options(encapsulated(leaves.redirected()).inner), LINUX);
}

fn of_length(length: usize, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = Packet::new(Udp, CLIENT.ns_ip, destination);
    packet.payload = vec![7; length - 28];
    packet.sent_by(&CLIENT)
}

#[test]
fn what_one_path_does_not_carry_another_one_does() {
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 18, 3, 2);
    let mut bed = bed();
    let other = Backend {
        ns_ip: ELSEWHERE,
        instance_ip: Ipv4Addr::new(10, 30, 13, 10),
        node: SocketAddr::new(Ipv4Addr::new(192, 0, 2, 3).into(), TUNNEL_PORT),
        ..SERVER
    };
    bed.within(|datapath| datapath.publish_service(other.instance_ip, Policy::Instance, &[other]));
    let goes = |outcome: &Outcome| read(encapsulated(outcome.redirected()).inner).payload.len();
    for narrow in [SERVICE, SERVER.ns_ip] {
        assert_eq!(goes(&bed.container_sends(&of_length(1372, narrow))), 1344);
        bed.container_sends(&of_length(1373, narrow)).assert_dropped(DropReason::TooBig);
    }
    assert_eq!(goes(&bed.container_sends(&of_length(1450, ELSEWHERE))), 1422);
    bed.container_sends(&of_length(1451, ELSEWHERE)).assert_dropped(DropReason::TooBig);
    // A node on a path of its own, of the other outer family.
    let over6 = Backend { node: SocketAddr::new(PEER6.into(), TUNNEL_PORT), ..other };
    let both = Addresses { v4: Some(crate::bed::NODE), v6: Some(Ipv6Addr::LOCALHOST) };
    bed.within(|datapath| {
        datapath.set_node(both, CLIENT.ifindex)?;
        datapath.publish_service(other.instance_ip, Policy::Instance, &[over6])?;
        datapath.set_path_mtu(PEER6.into(), Some(1400))
    });
    bed.container_sends(&of_length(1352, ELSEWHERE)).redirected();
    bed.container_sends(&of_length(1353, ELSEWHERE)).assert_dropped(DropReason::TooBig);
    assert_eq!(goes(&bed.container_sends(&of_length(1372, SERVER.ns_ip))), 1344);
}

#[test]
fn an_instance_that_comes_later_has_the_mtu_of_its_nodes_path() {
    let mut bed = bed();
    let late =
        Backend { ns_ip: Ipv4Addr::new(10, 18, 2, 9), instance_ip: Ipv4Addr::new(10, 30, 12, 19), ..SERVER };
    bed.within(|datapath| datapath.publish_service(late.instance_ip, Policy::Instance, &[late]));
    bed.container_sends(&of_length(1373, late.ns_ip)).assert_dropped(DropReason::TooBig);
    let packet = Packet::new(TcpSyn, CLIENT.ns_ip, late.ns_ip).sent_by(&CLIENT);
    bed.container_sends(&packet).redirected();
}

#[test]
fn what_is_known_of_paths_survives_the_daemon() {
    let mut underlay = Underlay::new(2);
    let [client, server] = [0, 1].map(|node: usize| underlay.nodes[node].container(2));
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    let peer = server.backend.node.ip();
    let mut node = underlay.nodes.remove(0);
    node.within(|datapath| datapath.set_path_mtu(peer, Some(1400))).unwrap();
    let node = node.crash().start();
    assert_eq!(node.datapath.narrow_paths(), [(peer, 1400)]);
}
