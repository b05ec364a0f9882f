//! IPv6 inside, over IPv4 and over IPv6: single packets, made and read by a parser that is not ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{Ipv6HeaderSlice, PacketBuilder, TcpHeader, UdpHeader};
use netmanager::datapath::{Addresses, Backend, DropReason, Endpoint, Policy};

use crate::bed::{Bed, CLIENT, NODE, PEER, SERVER, SERVICE, TUNNEL_PORT};
use crate::packet::{ETHERNET, PAYLOAD};

const LOOPBACK: u32 = 1;
const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const SERVICE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0x2000, 0, 0, 0, 0, 0, 9);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x102);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x202);
const CLIENT_INSTANCE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0x11);
const SERVER_INSTANCE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0x12);

fn client() -> Endpoint {
    Endpoint { ns_ip6: Some(CLIENT6), instance_ip6: Some(CLIENT_INSTANCE6), ..CLIENT }
}

fn bed(peer: IpAddr) -> Bed {
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

fn tcp(source: Ipv6Addr, destination: Ipv6Addr, ports: (u16, u16), syn: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let step =
        PacketBuilder::ipv6(source.octets(), destination.octets(), 64).tcp(ports.0, ports.1, 1000, 500);
    let step = if syn { step.syn() } else { step.ack(77).psh() };
    step.write(&mut bytes, PAYLOAD).unwrap();
    bytes
}

fn frame(destination: [u8; 6], source: [u8; 6], ip: &[u8]) -> Vec<u8> {
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
fn unwrap(frame: &[u8], peer: IpAddr) -> &[u8] {
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

fn wrap(peer: IpAddr, inner: &[u8]) -> Vec<u8> {
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
