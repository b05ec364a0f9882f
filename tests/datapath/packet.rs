//! Frames, made and read by a parser that is not ours.

use std::net::Ipv4Addr;

use etherparse::{
    Ethernet2HeaderSlice, IcmpEchoHeader, Icmpv4Slice, Icmpv4Type, IpHeaders, Ipv4HeaderSlice, PacketBuilder,
    PacketBuilderStep, TcpHeaderSlice, UdpHeaderSlice,
};
use netmanager::datapath::Endpoint;

use crate::bed::{NODE, PEER, TUNNEL_PORT};

pub(crate) const PAYLOAD: &[u8] = b"an odd number of payload bytes!";
pub(crate) const ETHERNET: usize = 14;
pub(crate) const OUTER: usize = 28;

/// The ports of test connections.
pub(crate) const CLIENT_PORT: u16 = 40000;
pub(crate) const SERVER_PORT: u16 = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    TcpSyn,
    TcpSynAck,
    TcpAck,
    TcpFin,
    TcpReset,
    Udp,
    /// UDP without a checksum.
    UdpUnchecked,
    EchoRequest,
    EchoReply,
    DestinationUnreachable,
}

/// An IP packet, of which each part can be set.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) ports: (u16, u16),
    pub(crate) ttl: u8,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    /// From a client's port to a server's.
    pub(crate) fn new(transport: Transport, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let ports = (CLIENT_PORT, SERVER_PORT);
        Self { source, destination, ports, ttl: 64, transport, payload: PAYLOAD.to_vec() }
    }

    /// The IP packet.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let payload = &self.payload;
        let ip = PacketBuilder::ipv4(self.source.octets(), self.destination.octets(), self.ttl);
        let (from, to) = self.ports;
        let tcp = |ip: PacketBuilderStep<IpHeaders>| ip.tcp(from, to, 1000, 500);
        match self.transport {
            Transport::TcpSyn => tcp(ip).syn().write(&mut bytes, payload),
            Transport::TcpAck => tcp(ip).ack(77).psh().write(&mut bytes, payload),
            Transport::TcpSynAck => tcp(ip).syn().ack(77).write(&mut bytes, b""),
            Transport::TcpReset => tcp(ip).rst().ack(77).write(&mut bytes, b""),
            Transport::TcpFin => tcp(ip).ack(77).fin().write(&mut bytes, payload),
            Transport::Udp | Transport::UdpUnchecked => ip.udp(from, to).write(&mut bytes, payload),
            Transport::EchoRequest => ip.icmpv4_echo_request(from, 1).write(&mut bytes, payload),
            Transport::EchoReply => ip.icmpv4_echo_reply(to, 1).write(&mut bytes, payload),
            Transport::DestinationUnreachable => ip.icmpv4_raw(3, 3, [0; 4]).write(&mut bytes, payload),
        }
        .unwrap();
        if self.transport == Transport::UdpUnchecked {
            bytes[26..28].fill(0);
        }
        bytes
    }

    /// As `sender` puts it on its wire.
    pub(crate) fn sent_by(&self, sender: &Endpoint) -> Vec<u8> {
        frame(sender.gateway_mac, sender.mac, &self.bytes())
    }

    /// As it arrives from the other node.
    pub(crate) fn tunnelled(&self) -> Vec<u8> {
        tunnelled(PEER, &self.bytes())
    }
}

/// Behind an Ethernet header.
pub(crate) fn frame(destination: [u8; 6], source: [u8; 6], ip: &[u8]) -> Vec<u8> {
    [destination.as_slice(), &source, &[0x08, 0x00], ip].concat()
}

/// Any payload, as it arrives at the tunnel port from the node `peer`.
pub(crate) fn tunnelled(peer: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .ipv4(peer.octets(), NODE.octets(), 64)
        .udp(41232, TUNNEL_PORT)
        .write(&mut frame, inner)
        .unwrap();
    frame
}

/// What an IP packet says, with every checksum verified.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) ports: (u16, u16),
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
}

/// Reads an IP packet that must be whole and right in all its checksums; a UDP checksum may be absent.
#[track_caller]
pub(crate) fn read(packet: &[u8]) -> Seen {
    let ip = Ipv4HeaderSlice::from_slice(packet).expect("an IPv4 header");
    assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum(), "IPv4 checksum");
    assert_eq!(usize::from(ip.total_len()), packet.len(), "IPv4 length");
    let (header, rest) = (ip.to_header(), &packet[ip.slice().len()..]);
    let (ports, payload) = match ip.protocol().0 {
        6 => {
            let tcp = TcpHeaderSlice::from_slice(rest).expect("a TCP header");
            let payload = &rest[tcp.slice().len()..];
            let right = tcp.to_header().calc_checksum_ipv4(&header, payload).unwrap();
            assert_eq!(tcp.checksum(), right, "TCP checksum");
            ((tcp.source_port(), tcp.destination_port()), payload)
        }
        17 => {
            let udp = UdpHeaderSlice::from_slice(rest).expect("a UDP header");
            let payload = &rest[8..];
            assert_eq!(usize::from(udp.length()), rest.len(), "UDP length");
            if udp.checksum() != 0 {
                let right = udp.to_header().calc_checksum_ipv4(&header, payload).unwrap();
                assert_eq!(udp.checksum(), right, "UDP checksum");
            }
            ((udp.source_port(), udp.destination_port()), payload)
        }
        1 => {
            let slice = Icmpv4Slice::from_slice(rest).expect("an ICMP header");
            let (icmp, payload) = (slice.header(), slice.payload());
            assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload), "ICMP checksum");
            let ports = match icmp.icmp_type {
                Icmpv4Type::EchoRequest(IcmpEchoHeader { id, .. }) => (id, 0),
                Icmpv4Type::EchoReply(IcmpEchoHeader { id, .. }) => (0, id),
                other => panic!("{other:?}"),
            };
            (ports, payload)
        }
        other => panic!("protocol {other}"),
    };
    Seen {
        source: ip.source_addr(),
        destination: ip.destination_addr(),
        ports,
        ttl: ip.ttl(),
        payload: payload.to_vec(),
    }
}

/// Reads a frame that is delivered to a container.
#[track_caller]
pub(crate) fn delivered(frame: &[u8], receiver: &Endpoint) -> Seen {
    let ethernet = Ethernet2HeaderSlice::from_slice(frame).expect("an Ethernet header");
    assert_eq!((ethernet.destination(), ethernet.source()), (receiver.mac, receiver.gateway_mac));
    read(&frame[ETHERNET..])
}

/// The outer headers of a frame that leaves for another node, and the inner packet.
#[derive(Debug)]
pub(crate) struct Encapsulated<'a> {
    pub(crate) destination: (Ipv4Addr, u16),
    pub(crate) source_port: u16,
    pub(crate) inner: &'a [u8],
}

/// Reads a frame that leaves for another node, and checks what all of them have in common.
#[track_caller]
pub(crate) fn encapsulated(frame: &[u8]) -> Encapsulated<'_> {
    let outer = &frame[ETHERNET..];
    let ip = Ipv4HeaderSlice::from_slice(outer).expect("an outer IPv4 header");
    assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum(), "outer checksum");
    assert_eq!(usize::from(ip.total_len()), outer.len(), "outer length");
    assert_eq!((ip.source_addr(), ip.ttl(), ip.protocol().0), (NODE, 64, 17));
    assert!(ip.dont_fragment() && !ip.is_fragmenting_payload());
    let udp = UdpHeaderSlice::from_slice(&outer[20..]).expect("an outer UDP header");
    assert_eq!((usize::from(udp.length()), udp.checksum()), (outer.len() - 20, 0));
    assert!(udp.source_port() >= 49152);
    Encapsulated {
        destination: (ip.destination_addr(), udp.destination_port()),
        source_port: udp.source_port(),
        inner: &outer[OUTER..],
    }
}
