//! Frames: packets that are right in most respects, some of them spoilt afterwards.

use std::net::IpAddr;

use etherparse::{Ipv4Header, PacketBuilder};
use integration::fuzz::Chance;
use netmanager::datapath::Endpoint;

use crate::bed::{NODE, PEER, TUNNEL_PORT};
use crate::fuzz::world::{ADDRESSES4, ADDRESSES6, CONTAINERS, INSTANCES, NODE6, PEER6};
use crate::packet::ETHERNET;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What a container sends.
pub(crate) fn of_container(chance: &mut Chance) -> Vec<u8> {
    let sender = *chance.of(&CONTAINERS);
    let family = *chance.of(&[Family::V4, Family::V6]);
    let source = if chance.one_in(8) { any(chance, family) } else { own(&sender, family) };
    let destination = if chance.one_in(3) { any(chance, family) } else { of_service(chance, family) };
    let mut frame = ethernet(sender.gateway_mac, sender.mac, family);
    frame.extend(packet(chance, source, destination));
    if chance.one_in(3) { spoilt(chance, frame) } else { frame }
}

/// What arrives at the uplink.
pub(crate) fn at_uplink(chance: &mut Chance) -> Vec<u8> {
    let family = *chance.of(&[Family::V4, Family::V6]);
    let source = if chance.one_in(3) { any(chance, family) } else { of_instance(chance, family) };
    let destination =
        if chance.one_in(4) { any(chance, family) } else { own(chance.of(&CONTAINERS), family) };
    let mut inner = packet(chance, source, destination);
    if chance.one_in(4) {
        chance.spoil(&mut inner, 0);
    }
    let port = if chance.one_in(16) { 50104 } else { TUNNEL_PORT };
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let outer = match chance.below(8) {
        0 => ethernet.ipv4([192, 0, 2, 77], NODE.octets(), 64),
        1 => ethernet.ipv4(PEER.octets(), [192, 0, 2, 9], 64),
        2..5 => ethernet.ipv4(PEER.octets(), NODE.octets(), 64),
        _ => ethernet.ipv6(PEER6.octets(), NODE6.octets(), 64),
    };
    let mut frame = Vec::new();
    outer.udp(41232, port).write(&mut frame, &inner).unwrap();
    if chance.one_in(8) {
        // What fills a short frame.
        frame.resize(frame.len() + chance.below(40), 0);
    }
    if chance.one_in(4) { spoilt(chance, frame) } else { frame }
}

fn spoilt(chance: &mut Chance, mut frame: Vec<u8>) -> Vec<u8> {
    let first = if chance.one_in(8) { 0 } else { ETHERNET };
    chance.spoil(&mut frame, first);
    // The kernel takes no frame for a test that is cut within its IP header.
    frame.resize(frame.len().max(ETHERNET), 0);
    let shortest = match frame[12..14] {
        [0x08, 0x00] => 20,
        [0x86, 0xdd] => 40,
        _ => 1,
    };
    frame.resize(frame.len().max(ETHERNET + shortest), 0);
    frame
}

pub(crate) fn ethernet(destination: [u8; 6], source: [u8; 6], family: Family) -> Vec<u8> {
    let ethertype: [u8; 2] = match family {
        Family::V4 => [0x08, 0x00],
        Family::V6 => [0x86, 0xdd],
    };
    [destination.as_slice(), &source, &ethertype].concat()
}

fn any(chance: &mut Chance, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(*chance.of(&ADDRESSES4)),
        Family::V6 => IpAddr::V6(*chance.of(&ADDRESSES6)),
    }
}

/// The addresses of services come first in the lists.
fn of_service(chance: &mut Chance, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(*chance.of(&ADDRESSES4[..5])),
        Family::V6 => IpAddr::V6(*chance.of(&ADDRESSES6[..6])),
    }
}

fn own(container: &Endpoint, family: Family) -> IpAddr {
    match family {
        Family::V4 => container.ns_ip.into(),
        Family::V6 => container.ns_ip6.unwrap().into(),
    }
}

fn of_instance(chance: &mut Chance, family: Family) -> IpAddr {
    let instance = *chance.of(&INSTANCES);
    let by_ns_ip = chance.one_in(3);
    match family {
        Family::V4 if by_ns_ip => instance.ns_ip.into(),
        Family::V4 => instance.instance_ip.into(),
        Family::V6 if by_ns_ip => instance.ns_ip6.unwrap().into(),
        Family::V6 => instance.instance_ip6.unwrap().into(),
    }
}

/// An IP packet between two addresses of one family, with right checksums.
fn packet(chance: &mut Chance, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    // Few ports, so that flows are met again, in both directions.
    const PORTS: [u16; 6] = [80, 80, 40000, 40001, 68, TUNNEL_PORT];
    let (from, to) = (*chance.of(&PORTS), *chance.of(&PORTS));
    let hops = *chance.of(&[64, 64, 64, 64, 64, 64, 2, 1, 0]);
    let length = *chance.of(&[0, 1, 31, 200, 1373, 1500]);
    let payload: Vec<_> = (0..length).map(|_| chance.byte()).collect();
    let ip = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), hops)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), hops)
        }
        families => panic!("{families:?}"),
    };
    let mut bytes = Vec::new();
    match chance.below(10) {
        0 | 1 => ip.tcp(from, to, 1000, 500).syn().write(&mut bytes, &payload),
        2 => ip.tcp(from, to, 1000, 500).ack(77).psh().write(&mut bytes, &payload),
        3 => ip.tcp(from, to, 1000, 500).ack(77).fin().write(&mut bytes, &payload),
        4 | 5 => ip.udp(from, to).write(&mut bytes, &payload),
        6..8 if source.is_ipv4() => ip.icmpv4_echo_request(from, 1).write(&mut bytes, &payload),
        8 if source.is_ipv4() => ip.icmpv4_echo_reply(to, 1).write(&mut bytes, &payload),
        6..8 => ip.icmpv6_echo_request(from, 1).write(&mut bytes, &payload),
        8 => ip.icmpv6_echo_reply(to, 1).write(&mut bytes, &payload),
        // Among them what only routers say, and what everybody must say.
        9 if source.is_ipv6() => {
            let kind = *chance.of(&[1, 2, 130, 133, 134, 135, 136, 137, 143]);
            ip.icmpv6_raw(kind, 0, [0; 4]).write(&mut bytes, &payload)
        }
        // In IPv6 it is nobody's.
        _ => ip.icmpv4_raw(3, *chance.of(&[1, 3, 4]), [0; 4]).write(&mut bytes, &payload),
    }
    .unwrap();
    if source.is_ipv4() { vary4(chance, bytes) } else { vary6(chance, bytes) }
}

fn vary4(chance: &mut Chance, mut bytes: Vec<u8>) -> Vec<u8> {
    match chance.below(12) {
        // UDP without a checksum.
        0 if bytes[9] == 17 => bytes[26..28].fill(0),
        // A first, a later, a last fragment; and one that must not be made.
        1 => bytes[6..8].copy_from_slice(chance.of::<[u8; 2]>(&[[0x20, 0], [0x20, 9], [0, 9], [0x40, 0]])),
        2 => {
            bytes.splice(20..20, [1, 1, 1, 0]);
            bytes[0] = 0x46;
            let length = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        _ => return bytes,
    }
    let (header, _) = Ipv4Header::from_slice(&bytes).unwrap();
    bytes[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    bytes
}

fn vary6(chance: &mut Chance, mut bytes: Vec<u8>) -> Vec<u8> {
    // Hop by hop options, routing with and without a station left, fragment, destination options.
    const EXTENSIONS: [(u8, [u8; 8]); 6] = [
        (0, [0, 0, 1, 4, 0, 0, 0, 0]),
        (43, [0, 0, 0, 0, 0, 0, 0, 0]),
        (43, [0, 0, 0, 1, 0, 0, 0, 0]),
        (44, [0, 0, 0, 0, 0, 0, 0, 7]),
        (44, [0, 0, 0, 9, 0, 0, 0, 7]),
        (60, [0, 0, 1, 4, 0, 0, 0, 0]),
    ];
    if !chance.one_in(3) {
        return bytes;
    }
    for _ in 0..=chance.below(6) {
        let (kind, mut extension) = *chance.of(&EXTENSIONS);
        extension[0] = bytes[6];
        bytes[6] = kind;
        bytes.splice(40..40, extension);
    }
    let length = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes
}
