//! The packets of the trial: what is put in, and what is wrong with what comes out. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::{Ipv4Slice, NetSlice, PacketBuilder, SlicedPacket, TcpSlice, TransportSlice};

use crate::datapath::{Addresses, Backend, Endpoint};
use crate::userspace::{Offload, leave_open};

/// Of the node of the trial, and of the only other one that it knows.
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(super) const PEER_MAC: [u8; 6] = [0x02, 0x48, 192, 0, 2, 2];
pub(super) const TUNNEL_PORT: u16 = 50103;
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 255, 200);
pub(super) const NS_IP: Ipv4Addr = Ipv4Addr::new(10, 18, 255, 126);
pub(super) const SERVER: Backend = Backend {
    ns_ip: Ipv4Addr::new(10, 18, 255, 190),
    ns_ip6: None,
    instance_ip: Ipv4Addr::new(10, 30, 255, 2),
    instance_ip6: None,
    node: SocketAddr::new(IpAddr::V4(PEER), TUNNEL_PORT),
};
const PORTS: (u16, u16) = (40_000, 80);
const FIRST: u32 = 1_000_000;
/// Payload bytes of each segment.
const SEGMENT: u16 = 1000;
/// Segments that the super-packet stands for.
pub(super) const SEGMENTS: usize = 3;

/// The client, at the end of a pair of links where the program is. It is the node itself: of a container the kernel demands
/// that it is in another namespace.
pub(super) fn client(ifindex: u32, mac: [u8; 6], gateway_mac: [u8; 6]) -> Endpoint {
    let instance_ip = Some(NS_IP);
    Endpoint { ns_ip: NS_IP, ns_ip6: None, instance_ip, instance_ip6: None, ifindex, mac, gateway_mac }
}

pub(super) fn node() -> Addresses {
    NODE.into()
}

/// All that the client sends.
fn payload() -> Vec<u8> {
    (0..usize::from(SEGMENT) * SEGMENTS).map(|at| u8::try_from(at % 251).unwrap_or_default()).collect()
}

/// One frame of the client, as its kernel hands it over: several segments in one, its checksum left open, and before it the
/// kernel's header that says so.
pub(super) fn super_packet(mac: [u8; 6], gateway_mac: [u8; 6]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(mac, gateway_mac)
        .ipv4(NS_IP.octets(), SERVICE.octets(), 64)
        .tcp(PORTS.0, PORTS.1, FIRST, 65_000)
        .ack(1);
    let mut frame = Vec::new();
    // Writing to a vector fails only if the lengths do not fit the headers.
    let _ok = builder.write(&mut frame, &payload());
    leave_open(&mut frame);
    let offload = Offload::of_tcp_super_packet(SEGMENT, 54);
    [&offload.bytes()[..], &frame].concat()
}

/// The server's answer as the wire brings it to the node's interface.
pub(super) fn answer(uplink_mac: [u8; 6]) -> Vec<u8> {
    // To one who has no instance address an instance answers from its NsIP.
    let inner = PacketBuilder::ipv4(SERVER.ns_ip.octets(), NS_IP.octets(), 64);
    let inner = inner.tcp(PORTS.1, PORTS.0, 1, 65_000).ack(FIRST);
    let (mut packet, mut frame) = (Vec::new(), Vec::new());
    let _ok = inner.write(&mut packet, b"answer");
    let outer = PacketBuilder::ethernet2(PEER_MAC, uplink_mac).ipv4(PEER.octets(), NODE.octets(), 64);
    let _ok = outer.udp(TUNNEL_PORT, TUNNEL_PORT).write(&mut frame, &packet);
    frame
}

/// What has come out at the uplink, segment by segment; other packets do not count.
#[derive(Debug, Default)]
pub(super) struct Received(Vec<u8>);

impl Received {
    /// Whether all has come. What is wrong is told in words.
    pub(super) fn add(&mut self, frame: &[u8]) -> Result<bool, String> {
        let Ok(SlicedPacket {
            net: Some(NetSlice::Ipv4(outer)),
            transport: Some(TransportSlice::Udp(udp)),
            ..
        }) = SlicedPacket::from_ethernet(frame)
        else {
            return Ok(false);
        };
        if udp.destination_port() != TUNNEL_PORT {
            return Ok(false);
        }
        check_header(&outer, (NODE, PEER), "outer")?;
        let (inner, tcp) = transport(udp.payload())?;
        check_header(&inner, (NS_IP, SERVER.ns_ip), "inner")?;
        check_transport(&inner, &tcp)?;
        if tcp.payload().len() > usize::from(SEGMENT) {
            return Err(format!("a super-packet of {} bytes is not cut into segments", tcp.payload().len()));
        }
        let at = usize::try_from(tcp.sequence_number().wrapping_sub(FIRST)).unwrap_or(usize::MAX);
        if at != self.0.len() {
            return Err(format!("segments are numbered wrong: byte {} comes as byte {at}", self.0.len()));
        }
        self.0.extend_from_slice(tcp.payload());
        match self.0 == payload() {
            true => Ok(true),
            false if payload().starts_with(&self.0) => Ok(false),
            false => Err("the payload is not what was sent".to_owned()),
        }
    }
}

/// Whether a frame that has come out at the client is the answer. What is wrong is told in words.
pub(super) fn is_answer(frame: &[u8]) -> Result<bool, String> {
    let Ok(SlicedPacket { net: Some(NetSlice::Ipv4(ip)), transport: Some(TransportSlice::Tcp(tcp)), .. }) =
        SlicedPacket::from_ethernet(frame)
    else {
        return Ok(false);
    };
    if !tcp.ack() || tcp.destination_port() != PORTS.0 {
        return Ok(false);
    }
    check_header(&ip, (SERVICE, NS_IP), "delivered")?;
    check_transport(&ip, &tcp)?;
    if tcp.payload() == b"answer" { Ok(true) } else { Err("the payload is not what was sent".to_owned()) }
}

fn transport(packet: &[u8]) -> Result<(Ipv4Slice<'_>, TcpSlice<'_>), String> {
    match SlicedPacket::from_ip(packet) {
        Ok(SlicedPacket {
            net: Some(NetSlice::Ipv4(ip)), transport: Some(TransportSlice::Tcp(tcp)), ..
        }) => Ok((ip, tcp)),
        other => Err(format!("what is in the tunnel is not the packet that was sent: {other:?}")),
    }
}

fn check_header(ip: &Ipv4Slice<'_>, ends: (Ipv4Addr, Ipv4Addr), which: &str) -> Result<(), String> {
    let header = ip.header();
    let found = (header.source_addr(), header.destination_addr());
    if found != ends {
        return Err(format!("the {which} packet is from {} to {}", found.0, found.1));
    }
    let right = header.to_header().calc_header_checksum();
    let found = header.header_checksum();
    if found == right {
        return Ok(());
    }
    Err(format!("the {which} IPv4 header's checksum is {found:#06x}, not {right:#06x}"))
}

fn check_transport(ip: &Ipv4Slice<'_>, tcp: &TcpSlice<'_>) -> Result<(), String> {
    let header = ip.header();
    let right = tcp.calc_checksum_ipv4(header.source(), header.destination());
    let (right, found) = (right.map_err(|error| error.to_string())?, tcp.checksum());
    if found == right { Ok(()) } else { Err(format!("a TCP checksum is {found:#06x}, not {right:#06x}")) }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::{
        FIRST, NODE, NS_IP, PEER, PEER_MAC, PORTS, Received, SEGMENT, SERVER, TUNNEL_PORT, answer, is_answer,
        payload,
    };

    /// A segment as it ought to come out.
    fn segment(number: u16) -> Vec<u8> {
        let at = usize::from(number * SEGMENT);
        let inner = PacketBuilder::ipv4(NS_IP.octets(), SERVER.ns_ip.octets(), 63);
        let inner = inner.tcp(PORTS.0, PORTS.1, FIRST + u32::from(number * SEGMENT), 65_000).ack(1);
        let (mut packet, mut frame) = (Vec::new(), Vec::new());
        inner.write(&mut packet, &payload()[at..at + usize::from(SEGMENT)]).unwrap();
        let outer = PacketBuilder::ethernet2([6; 6], PEER_MAC).ipv4(NODE.octets(), PEER.octets(), 64);
        outer.udp(50_000, TUNNEL_PORT).write(&mut frame, &packet).unwrap();
        frame
    }

    #[test]
    fn all_segments_in_their_order_are_right_and_others_do_not_count() {
        let mut received = Received::default();
        assert_eq!(received.add(&segment(0)), Ok(false));
        assert_eq!(
            received.add(&answer([2; 6])),
            Err("the outer packet is from 192.0.2.2 to 192.0.2.1".into())
        );
        assert_eq!(received.add(b"something else"), Ok(false));
        assert_eq!(received.add(&segment(1)), Ok(false));
        assert_eq!(received.add(&segment(2)), Ok(true));
    }

    #[test]
    fn a_wrong_checksum_a_gap_and_another_byte_are_told() {
        for (at, said) in [
            (24, "the outer IPv4 header's checksum"),
            (14 + 28 + 10, "the inner IPv4 header's checksum"),
            (14 + 28 + 20 + 16, "a TCP checksum"),
            (14 + 28 + 40 + 5, "a TCP checksum"),
        ] {
            let mut frame = segment(0);
            frame[at] ^= 1;
            let told = Received::default().add(&frame).unwrap_err();
            assert!(told.starts_with(said), "{at}: {told}");
        }
        let told = Received::default().add(&segment(1)).unwrap_err();
        assert!(told.starts_with("segments are numbered wrong"), "{told}");
        assert_eq!(is_answer(&segment(0)), Ok(false));
    }
}
