//! The made packet: written for a container, and read again where a program has left it. The parser is not ours.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};

use super::Transport;

/// The two ends of an IP packet. Of an echo the port is the identifier at the asking end and 0 at the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl Ends {
    pub(super) fn answer(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// Which packet of a connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    First,
    Answer,
}

const TTL: u8 = 64;
const SEQUENCE: u32 = 1;
const WINDOW: u16 = 64_240;
const PAYLOAD: &[u8] = b"netmanager why";

/// An IP packet without a frame; nothing if its ends are of two families.
pub(super) fn ip(ends: &Ends, transport: Transport, part: Part) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (from, to) = (ends.source.port(), ends.destination.port());
    let written = match (ends.source.ip(), ends.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = PacketBuilder::ipv4(source.octets(), destination.octets(), TTL);
            match (transport, part) {
                (Transport::Icmp, Part::First) => ip.icmpv4_echo_request(from, 1).write(&mut bytes, PAYLOAD),
                (Transport::Icmp, Part::Answer) => ip.icmpv4_echo_reply(to, 1).write(&mut bytes, PAYLOAD),
                _ => connection(ip, transport, part, from, to, &mut bytes),
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = PacketBuilder::ipv6(source.octets(), destination.octets(), TTL);
            match (transport, part) {
                (Transport::Icmp, Part::First) => ip.icmpv6_echo_request(from, 1).write(&mut bytes, PAYLOAD),
                (Transport::Icmp, Part::Answer) => ip.icmpv6_echo_reply(to, 1).write(&mut bytes, PAYLOAD),
                _ => connection(ip, transport, part, from, to, &mut bytes),
            }
        }
        _ => return None,
    };
    written.ok().map(|()| bytes)
}

fn connection(
    ip: PacketBuilderStep<etherparse::IpHeaders>,
    transport: Transport,
    part: Part,
    from: u16,
    to: u16,
    bytes: &mut Vec<u8>,
) -> Result<(), etherparse::err::packet::BuildWriteError> {
    if transport == Transport::Udp {
        return ip.udp(from, to).write(bytes, PAYLOAD);
    }
    let tcp = ip.tcp(from, to, SEQUENCE, WINDOW).syn();
    match part {
        Part::First => tcp.write(bytes, &[]),
        Part::Answer => tcp.ack(SEQUENCE + 1).write(bytes, &[]),
    }
}

/// Behind an Ethernet header.
pub(super) fn frame(destination: [u8; 6], source: [u8; 6], ip: &[u8]) -> Vec<u8> {
    let ethertype: u16 = if ip.first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 };
    [destination.as_slice(), &source, &ethertype.to_be_bytes(), ip].concat()
}

/// In the tunnel, as it arrives from another node.
pub(super) fn tunnelled(outer: &Ends, inner: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (from, to) = (outer.source.port(), outer.destination.port());
    let written = match (outer.source.ip(), outer.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), TTL)
                .udp(from, to)
                .write(&mut bytes, inner)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), TTL)
                .udp(from, to)
                .write(&mut bytes, inner)
        }
        _ => return None,
    };
    // The programs look at no MAC of what arrives at the uplink.
    written.ok().map(|()| frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], &bytes))
}

/// A frame that a program has redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// To a container: the MAC of its side, and the packet.
    Delivered { mac: [u8; 6], ends: Ends },
    /// To another node.
    Tunnelled { outer: Ends, inner: Ends, length: usize },
    /// Neither IPv4 nor IPv6 with a transport that we know.
    Unreadable,
}

/// Reads a frame; UDP to a port of `tunnels` is a tunnel's.
pub(super) fn read(frame: &[u8], tunnels: impl Fn(SocketAddr) -> bool) -> Seen {
    let Some((mac, _)) = frame.split_first_chunk() else { return Seen::Unreadable };
    // The programs leave the type of the frame to the neighbour's entry, which writes the whole header.
    let Some(Ok(packet)) = frame.get(14..).map(SlicedPacket::from_ip) else { return Seen::Unreadable };
    let (Some(outer), length) = (ends(&packet), frame.len().saturating_sub(14)) else {
        return Seen::Unreadable;
    };
    if let Some(TransportSlice::Udp(udp)) = &packet.transport
        && tunnels(outer.destination)
    {
        let inner = SlicedPacket::from_ip(udp.payload()).ok().and_then(|inner| ends(&inner));
        return inner.map_or(Seen::Unreadable, |inner| Seen::Tunnelled { outer, inner, length });
    }
    Seen::Delivered { mac: *mac, ends: outer }
}

/// The ends of a packet that has ports, or is an echo.
pub(super) fn ends(packet: &SlicedPacket<'_>) -> Option<Ends> {
    let (source, destination) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => return None,
    };
    let (from, to) = match packet.transport.as_ref()? {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            etherparse::Icmpv4Type::EchoRequest(echo) => (echo.id, 0),
            etherparse::Icmpv4Type::EchoReply(echo) => (0, echo.id),
            _ => return None,
        },
        TransportSlice::Igmp(_) => return None,
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            etherparse::Icmpv6Type::EchoRequest(echo) => (echo.id, 0),
            etherparse::Icmpv6Type::EchoReply(echo) => (0, echo.id),
            _ => return None,
        },
    };
    Some(Ends { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Ends, Part, Seen, frame, ip, read, tunnelled};
    use crate::why::Transport;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn a_made_packet_reads_back() {
        for (source, destination) in [("10.18.0.2:4000", "10.30.0.1:80"), ("[fc00::2]:4000", "[fdff::1]:80")]
        {
            for transport in [Transport::Tcp, Transport::Udp] {
                let ends = ends(source, destination);
                let frame = frame([1; 6], [2; 6], &ip(&ends, transport, Part::First).unwrap());
                assert_eq!(read(&frame, |_| false), Seen::Delivered { mac: [1; 6], ends });
            }
            let asked = Ends {
                destination: SocketAddr::new(ends(source, destination).destination.ip(), 0),
                ..ends(source, destination)
            };
            let answer = ip(&asked.answer(), Transport::Icmp, Part::Answer).unwrap();
            let seen = read(&frame([1; 6], [2; 6], &answer), |_| false);
            assert_eq!(seen, Seen::Delivered { mac: [1; 6], ends: asked.answer() });
        }
        assert_eq!(ip(&ends("10.18.0.2:1", "[fdff::1]:2"), Transport::Tcp, Part::First), None);
    }

    #[test]
    fn a_tunnel_packet_shows_both_its_headers() {
        let (outer, inner) =
            (ends("192.0.2.2:50000", "192.0.2.1:50103"), ends("10.30.0.1:80", "10.18.0.2:4000"));
        let packet = ip(&inner, Transport::Tcp, Part::Answer).unwrap();
        let frame = tunnelled(&outer, &packet).unwrap();
        let length = packet.len() + 28;
        assert_eq!(read(&frame, |to| to.port() == 50103), Seen::Tunnelled { outer, inner, length });
    }

    #[test]
    fn what_a_packet_is_does_not_depend_on_the_type_that_its_frame_had_before() {
        let (outer, inner) =
            (ends("192.0.2.2:50000", "192.0.2.1:50103"), ends("[fc00::2]:4000", "[fc00::9]:80"));
        let packet = ip(&inner, Transport::Tcp, Part::First).unwrap();
        let mut frame = tunnelled(&outer, &packet).unwrap();
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        let length = packet.len() + 28;
        assert_eq!(read(&frame, |to| to.port() == 50103), Seen::Tunnelled { outer, inner, length });
    }
}
