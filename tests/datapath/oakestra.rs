//! The packets of Oakestra's own NetManager, captured on the underlay between two of its nodes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netmanager::datapath::{Backend, Endpoint, Policy};

use crate::bed::{Bed, CLIENT, NEIGHBOUR, NODE, PEER, SERVER, SERVICE, TUNNEL_PORT};
use crate::packet::{ETHERNET, OUTER, delivered, encapsulated, frame, read};

const CAPTURE: &str = include_str!("../fixtures/oakestra-packets.txt");

/// Outer IP packets by the title of their section.
fn captured() -> HashMap<&'static str, Vec<u8>> {
    let sections = CAPTURE.split("\n=== ").skip(1);
    let packets = sections.filter_map(|section| {
        let (title, body) = section.split_once('\n')?;
        let (_, hex) = body.split_once("hex from the outer IPv4 header:\n")?;
        let digits: String =
            hex.split_whitespace().take_while(|line| line.bytes().all(|b| b.is_ascii_hexdigit())).collect();
        let bytes = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        Some((title, bytes.collect::<Option<Vec<u8>>>()?))
    });
    packets.collect()
}

/// What the container sent before its NetManager translated it: back to its NsIP, the service address, and one hop
/// more.
fn as_sent(inner: &[u8], source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut headers = etherparse::PacketHeaders::from_ip_slice(inner).unwrap();
    let Some(etherparse::NetHeaders::Ipv4(ip, _)) = &mut headers.net else { panic!("IPv4") };
    ip.source = source.octets();
    ip.destination = destination.octets();
    ip.time_to_live += 1;
    ip.header_checksum = ip.calc_header_checksum();
    let payload = headers.payload.slice();
    let mut bytes = ip.to_bytes().to_vec();
    match headers.transport.expect("a transport header") {
        etherparse::TransportHeader::Tcp(mut tcp) => {
            tcp.checksum = tcp.calc_checksum_ipv4(ip, payload).unwrap();
            bytes.extend(tcp.to_bytes());
        }
        etherparse::TransportHeader::Udp(mut udp) => {
            udp.checksum = udp.calc_checksum_ipv4(ip, payload).unwrap();
            bytes.extend(udp.to_bytes());
        }
        other => panic!("{other:?}"),
    }
    bytes.extend(payload);
    bytes
}

/// A bed in the place of the server's node, which the captured packets of the client reach.
fn server_node() -> (Bed, Endpoint) {
    let server = Endpoint { ns_ip: SERVER.ns_ip, instance_ip: Some(SERVER.instance_ip), ..NEIGHBOUR };
    let client = Backend {
        ns_ip: CLIENT.ns_ip,
        instance_ip: CLIENT.instance_ip.unwrap(),
        node: SocketAddr::new(IpAddr::V4(NODE), TUNNEL_PORT),
        ..SERVER
    };
    let mut bed = Bed::empty();
    bed.within(|datapath| {
        datapath.set_node(PEER, 1)?;
        datapath.attach_endpoint(&server)?;
        datapath.publish_service(client.instance_ip, Policy::Instance, &[client])
    });
    (bed, server)
}

const MACS: ([u8; 6], [u8; 6]) = ([2; 6], [4; 6]);
const TO_SERVER: [&str; 3] = [
    "client node -> server node, SYN",
    "client node -> server node, TCP data",
    "client node -> server node, UDP datagram",
];
const TO_CLIENT: [&str; 2] = ["server node -> client node, SYN-ACK", "server node -> client node, TCP data"];

#[test]
fn the_capture_is_what_it_is_taken_for() {
    let captured = captured();
    for title in TO_SERVER.iter().chain(&TO_CLIENT) {
        read(&captured[title][OUTER..]);
    }
}

#[test]
fn we_put_the_same_inner_bytes_on_the_wire() {
    let mut bed = Bed::new();
    for title in TO_SERVER {
        let inner = &captured()[title][OUTER..];
        let sent = as_sent(inner, CLIENT.ns_ip, SERVICE);
        let outcome = bed.container_sends(&frame(CLIENT.gateway_mac, CLIENT.mac, &sent));
        let ours = encapsulated(outcome.redirected());
        assert_eq!(ours.inner, inner, "{title}");
        assert_eq!(ours.destination, (PEER, TUNNEL_PORT));
    }
}

#[test]
fn their_requests_reach_our_containers() {
    let (mut bed, server) = server_node();
    for title in TO_SERVER {
        let outer = &captured()[title];
        let outcome = bed.uplink_receives(&frame(MACS.0, MACS.1, outer));
        delivered(outcome.redirected(), &server);
        assert_eq!(outcome.frame[ETHERNET..], outer[OUTER..], "{title}");
    }
}

#[test]
fn their_answers_come_from_the_service_address_that_our_container_dialled() {
    let mut bed = Bed::new();
    for (request, answer) in [(TO_SERVER[0], TO_CLIENT[0]), (TO_SERVER[1], TO_CLIENT[1])] {
        let sent = as_sent(&captured()[request][OUTER..], CLIENT.ns_ip, SERVICE);
        bed.container_sends(&frame(CLIENT.gateway_mac, CLIENT.mac, &sent)).redirected();
        let outcome = bed.uplink_receives(&frame(MACS.0, MACS.1, &captured()[answer]));
        let seen = delivered(outcome.redirected(), &CLIENT);
        assert_eq!((seen.source, seen.destination), (SERVICE, CLIENT.ns_ip), "{answer}");
        assert_eq!(seen.payload, read(&captured()[answer][OUTER..]).payload);
    }
}

#[test]
fn our_answers_are_what_theirs_are() {
    let (mut bed, server) = server_node();
    for title in TO_CLIENT {
        let inner = &captured()[title][OUTER..];
        let sent = as_sent(inner, SERVER.ns_ip, CLIENT.instance_ip.unwrap());
        let outcome = bed.container_sends(&frame(server.gateway_mac, server.mac, &sent));
        assert_eq!(outcome.redirected()[ETHERNET + OUTER..], *inner, "{title}");
    }
}
