//! IPv6 inside, over IPv4 and over IPv6: single packets, made and read by a parser that is not ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{Icmpv6Slice, Ipv6HeaderSlice, PacketBuilder, TcpHeader, UdpHeader};
use netmanager::datapath::{Addresses, Backend, DropReason, Endpoint, Policy};

use crate::bed::{Bed, CLIENT, NODE, PASS, PEER, SERVER, SERVICE, TUNNEL_PORT};
use crate::packet::{ETHERNET, PAYLOAD};

const LOOPBACK: u32 = 1;
const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(crate) const SERVICE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0x2000, 0, 0, 0, 0, 0, 9);
pub(crate) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x102);
pub(crate) const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x202);
pub(crate) const CLIENT_INSTANCE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0x11);
pub(crate) const SERVER_INSTANCE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0x12);

pub(crate) fn client() -> Endpoint {
    Endpoint { ns_ip6: Some(CLIENT6), instance_ip6: Some(CLIENT_INSTANCE6), ..CLIENT }
}

pub(crate) fn bed(peer: IpAddr) -> Bed {
    let mut bed = Bed::empty();
    let server = Backend {
        ns_ip6: Some(SERVER6),
        instance_ip6: Some(SERVER_INSTANCE6),
        node: SocketAddr::new(peer, TUNNEL_PORT),
        ..SERVER
    };
    bed.within(|datapath| {
        datapath.set_node(Addresses { v4: Some(NODE), v6: Some(NODE6) }, LOOPBACK)?;
        datapath.attach_endpoint(&client())?;
        datapath.publish_service(SERVICE6, Policy::RoundRobin, &[server])
    });
    bed
}

pub(crate) fn tcp(source: Ipv6Addr, destination: Ipv6Addr, ports: (u16, u16), syn: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let step =
        PacketBuilder::ipv6(source.octets(), destination.octets(), 64).tcp(ports.0, ports.1, 1000, 500);
    let step = if syn { step.syn() } else { step.ack(77).psh() };
    step.write(&mut bytes, PAYLOAD).unwrap();
    bytes
}

pub(crate) fn frame(destination: [u8; 6], source: [u8; 6], ip: &[u8]) -> Vec<u8> {
    [destination.as_slice(), &source, &[0x86, 0xdd], ip].concat()
}

#[track_caller]
fn read_tcp(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr, u8) {
    let ip = Ipv6HeaderSlice::from_slice(packet).expect("an IPv6 header");
    let header = ip.to_header();
    assert_eq!(usize::from(header.payload_length), packet.len() - 40, "IPv6 length");
    let (tcp, payload) = TcpHeader::from_slice(&packet[40..]).expect("a TCP header");
    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(&header, payload).unwrap(), "TCP checksum");
    (ip.source_addr(), ip.destination_addr(), header.hop_limit)
}

/// The inner packet of a frame that leaves for another node.
#[track_caller]
pub(crate) fn unwrap(frame: &[u8], peer: IpAddr) -> &[u8] {
    let outer = match peer {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    // The Ethernet header is written by the kernel when it has found the neighbour.
    if outer == 40 {
        let ip = Ipv6HeaderSlice::from_slice(&frame[ETHERNET..]).expect("an outer IPv6 header");
        assert_eq!((ip.source_addr(), IpAddr::V6(ip.destination_addr())), (NODE6, peer));
        assert_eq!(usize::from(ip.payload_length()), frame.len() - ETHERNET - 40);
    }
    let (udp, inner) = UdpHeader::from_slice(&frame[ETHERNET + outer..]).expect("an outer UDP header");
    assert_eq!((udp.destination_port, usize::from(udp.length)), (TUNNEL_PORT, inner.len() + 8));
    inner
}

pub(crate) fn wrap(peer: IpAddr, inner: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let udp = match peer {
        IpAddr::V4(peer) => ethernet.ipv4(peer.octets(), NODE.octets(), 64),
        IpAddr::V6(peer) => ethernet.ipv6(peer.octets(), NODE6.octets(), 64),
    };
    udp.udp(41232, TUNNEL_PORT).write(&mut frame, inner).unwrap();
    frame
}

#[test]
fn a_connection_over_ipv6_is_translated_both_ways_on_either_underlay() {
    for peer in [IpAddr::V4(PEER), IpAddr::V6(PEER6)] {
        let mut bed = bed(peer);
        let client = client();
        let request = tcp(CLIENT6, SERVICE6, (40000, 80), true);
        let sent = bed.container_sends(&frame(client.gateway_mac, client.mac, &request));
        let inner = unwrap(sent.redirected(), peer);
        assert_eq!(read_tcp(inner), (CLIENT_INSTANCE6, SERVER6, 63));

        let answer = tcp(SERVER_INSTANCE6, CLIENT6, (80, 40000), false);
        let arrived = bed.uplink_receives(&wrap(peer, &answer));
        let delivered = arrived.redirected();
        assert_eq!(delivered[..14], frame(client.mac, client.gateway_mac, &[])[..]);
        assert_eq!(read_tcp(&delivered[ETHERNET..]), (SERVICE6, CLIENT6, 64));
    }
}

#[test]
fn an_ipv6_header_with_ipv4_addresses_does_not_speak_for_ipv4() {
    let peer = IpAddr::V4(PEER);
    let mut bed = bed(peer);
    let client = client();
    let mapped = |address: Ipv4Addr| address.to_ipv6_mapped();
    for (source, destination) in [
        (mapped(CLIENT.ns_ip), SERVICE6),
        (mapped(CLIENT.ns_ip), mapped(SERVICE)),
        (mapped(CLIENT.ns_ip), mapped(SERVER.ns_ip)),
        (CLIENT6, mapped(SERVER.ns_ip)),
    ] {
        let sent = tcp(source, destination, (40000, 80), true);
        bed.container_sends(&frame(client.gateway_mac, client.mac, &sent))
            .assert_dropped(DropReason::Malformed);
    }
    for (source, destination) in [
        (mapped(SERVER.instance_ip), mapped(CLIENT.ns_ip)),
        (mapped(SERVER.ns_ip), CLIENT6),
        (SERVER_INSTANCE6, mapped(CLIENT.ns_ip)),
    ] {
        let arriving = tcp(source, destination, (80, 40000), false);
        bed.uplink_receives(&wrap(peer, &arriving)).assert_dropped(DropReason::Malformed);
    }
}

const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

pub(crate) fn udp(source: Ipv6Addr, destination: Ipv6Addr, ports: (u16, u16)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let step = PacketBuilder::ipv6(source.octets(), destination.octets(), 64).udp(ports.0, ports.1);
    step.write(&mut bytes, PAYLOAD).unwrap();
    bytes
}

fn icmp(source: Ipv6Addr, destination: Ipv6Addr, kind: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let step = PacketBuilder::ipv6(source.octets(), destination.octets(), 255);
    step.icmpv6_raw(kind, 0, [0x12, 0x34, 0, 1]).write(&mut bytes, PAYLOAD).unwrap();
    bytes
}

/// Puts an extension header of `kind` right behind the IPv6 header.
pub(crate) fn extended(mut packet: Vec<u8>, kind: u8, rest: [u8; 7]) -> Vec<u8> {
    let next = std::mem::replace(&mut packet[6], kind);
    packet.splice(40..40, [next].into_iter().chain(rest));
    let length = u16::try_from(packet.len() - 40).unwrap();
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
/// Six bytes of padding.
pub(crate) const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

/// As the client puts it on its wire.
pub(crate) fn sent(packet: &[u8]) -> Vec<u8> {
    frame(CLIENT.gateway_mac, CLIENT.mac, packet)
}

#[test]
fn udp_and_echo_are_translated_with_their_checksums() {
    for peer in [IpAddr::V4(PEER), IpAddr::V6(PEER6)] {
        let mut bed = bed(peer);
        let outcome = bed.container_sends(&sent(&udp(CLIENT6, SERVICE6, (40000, 53))));
        let inner = unwrap(outcome.redirected(), peer);
        let ip = Ipv6HeaderSlice::from_slice(inner).unwrap();
        assert_eq!((ip.source_addr(), ip.destination_addr()), (CLIENT_INSTANCE6, SERVER6));
        let (header, payload) = UdpHeader::from_slice(&inner[40..]).unwrap();
        assert_eq!(header.checksum, header.calc_checksum_ipv6(&ip.to_header(), payload).unwrap());

        let outcome = bed.container_sends(&sent(&icmp(CLIENT6, SERVICE6, 128)));
        let inner = unwrap(outcome.redirected(), peer);
        let ip = Ipv6HeaderSlice::from_slice(inner).unwrap();
        assert_eq!((ip.source_addr(), ip.destination_addr()), (CLIENT_INSTANCE6, SERVER6));
        let echo = Icmpv6Slice::from_slice(&inner[40..]).unwrap();
        assert!(echo.is_checksum_valid(CLIENT_INSTANCE6.octets(), SERVER6.octets()), "ICMPv6 checksum");
        let answer = icmp(SERVER_INSTANCE6, CLIENT6, 129);
        let outcome = bed.uplink_receives(&wrap(peer, &answer));
        let shown = Ipv6HeaderSlice::from_slice(&outcome.redirected()[ETHERNET..]).unwrap();
        assert_eq!((shown.source_addr(), shown.destination_addr()), (SERVICE6, CLIENT6));
    }
}

#[test]
fn extension_headers_are_kept_and_looked_behind() {
    let mut bed = bed(PEER6.into());
    let plain = tcp(CLIENT6, SERVICE6, (40000, 80), true);
    // A routing header without stations left.
    let headers = [(HOP_BY_HOP, PADDING), (ROUTING, [0; 7]), (DESTINATION_OPTIONS, PADDING)];
    for (kind, rest) in headers {
        let packet = extended(plain.clone(), kind, rest);
        let outcome = bed.container_sends(&sent(&packet));
        let inner = unwrap(outcome.redirected(), PEER6.into());
        assert_eq!(inner[40..48], packet[40..48], "header {kind}");
        let mut bare = inner.to_vec();
        bare[6] = inner[40];
        bare.drain(40..48);
        let length = u16::try_from(bare.len() - 40).unwrap();
        bare[4..6].copy_from_slice(&length.to_be_bytes());
        assert_eq!(read_tcp(&bare), (CLIENT_INSTANCE6, SERVER6, 63), "header {kind}");
    }
}

#[test]
fn extension_headers_that_hide_the_receiver_or_the_ports_are_refused() {
    let mut bed = bed(PEER6.into());
    for destination in [SERVICE6, SERVER6] {
        let plain = tcp(CLIENT6, destination, (40000, 80), true);
        let stations = extended(plain.clone(), ROUTING, [0, 0, 1, 0, 0, 0, 0]);
        bed.container_sends(&sent(&stations)).assert_dropped(DropReason::ExtensionHeaders);
        // Which later fragments do not show.
        let hidden = extended(plain.clone(), DESTINATION_OPTIONS, PADDING);
        let first = extended(hidden, FRAGMENT, [0, 0, 1, 0, 0, 0, 9]);
        bed.container_sends(&sent(&first)).assert_dropped(DropReason::ExtensionHeaders);
        let many = (0..5).fold(plain, |packet, _| extended(packet, DESTINATION_OPTIONS, PADDING));
        bed.container_sends(&sent(&many)).assert_dropped(DropReason::ExtensionHeaders);
    }
}

#[test]
fn to_the_outside_goes_what_is_no_tunnels() {
    let mut bed = bed(PEER6.into());
    let outside = sent(&udp(CLIENT6, OUTSIDE6, (9, 53)));
    bed.container_sends(&outside).assert_untouched(PASS, &outside);
    let later = sent(&extended(udp(CLIENT6, OUTSIDE6, (9, TUNNEL_PORT)), FRAGMENT, [0, 0, 8, 0, 0, 0, 9]));
    bed.container_sends(&later).assert_untouched(PASS, &later);
    for kind in [HOP_BY_HOP, DESTINATION_OPTIONS, FRAGMENT] {
        let rest = if kind == FRAGMENT { [0, 0, 1, 0, 0, 0, 9] } else { PADDING };
        let hidden = extended(udp(CLIENT6, PEER6, (9, TUNNEL_PORT)), kind, rest);
        bed.container_sends(&sent(&hidden)).assert_dropped(DropReason::TunnelFromContainer);
    }
    let foreign = udp(SERVER6, OUTSIDE6, (9, 53));
    bed.container_sends(&sent(&foreign)).assert_dropped(DropReason::SpoofedSource);
}

#[test]
fn a_container_finds_its_neighbours_and_is_no_router_nor_dhcp_server() {
    let mut bed = bed(PEER6.into());
    // From an address of the link, or from none: solicitations, advertisements, reports of multicast listeners.
    for source in [LINK_LOCAL, Ipv6Addr::UNSPECIFIED] {
        for kind in [133, 135, 136, 143] {
            let packet = sent(&icmp(source, ALL_NODES, kind));
            bed.container_sends(&packet).assert_untouched(PASS, &packet);
        }
        bed.container_sends(&sent(&icmp(source, ALL_NODES, 128))).assert_dropped(DropReason::LinkLocal);
        bed.container_sends(&sent(&udp(source, ALL_NODES, (9, 53)))).assert_dropped(DropReason::LinkLocal);
    }
    for source in [LINK_LOCAL, CLIENT6] {
        for kind in [134, 137] {
            let plain = icmp(source, ALL_NODES, kind);
            for packet in [plain.clone(), extended(plain, DESTINATION_OPTIONS, PADDING)] {
                bed.container_sends(&sent(&packet)).assert_dropped(DropReason::RouterAdvertisement);
            }
        }
        bed.container_sends(&sent(&udp(source, ALL_NODES, (547, 546))))
            .assert_dropped(DropReason::DhcpServer);
    }
}
