//! What a router says of a tunnel packet that it could not forward: "fragmentation needed" (RFC 792, RFC 1191), "packet too
//! big" (RFC 4443). Pure.

use std::net::{IpAddr, SocketAddr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{
    Icmpv4Type, Icmpv6Slice, Icmpv6Type, LaxNetSlice, LaxSlicedPacket, SlicedPacket, TransportSlice,
};

/// A UDP packet was too large for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooBig {
    /// Who had sent it.
    pub sender: IpAddr,
    /// To whom.
    pub receiver: SocketAddr,
    /// What the link carries; 0 if that is not said.
    pub mtu: u16,
    /// Bytes of the packet, IP header included.
    pub length: u16,
}

/// Reads an IPv4 packet.
pub(super) fn read(packet: &[u8]) -> Option<TooBig> {
    let Some(TransportSlice::Icmpv4(icmp)) = SlicedPacket::from_ip(packet).ok()?.transport else {
        return None;
    };
    let kind = icmp.icmp_type();
    if kind.calc_checksum(icmp.payload()) != icmp.checksum() {
        return None;
    }
    match kind {
        Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu }) => {
            quoted(icmp.payload(), next_hop_mtu)
        }
        _ => None,
    }
}

/// Reads an ICMPv6 packet, without its IP header: so the kernel hands it over, its checksum verified.
pub(super) fn read6(packet: &[u8]) -> Option<TooBig> {
    let icmp = Icmpv6Slice::from_slice(packet).ok()?;
    match icmp.icmp_type() {
        // More than any packet has, is no matter.
        Icmpv6Type::PacketTooBig { mtu } => quoted(icmp.payload(), u16::try_from(mtu).ok()?),
        _ => None,
    }
}

/// The beginning of the packet that was too large.
fn quoted(packet: &[u8], mtu: u16) -> Option<TooBig> {
    let sliced = LaxSlicedPacket::from_ip(packet).ok()?;
    let (sender, receiver, length) = match sliced.net? {
        LaxNetSlice::Ipv4(ip) => {
            let ip = ip.header();
            (ip.source_addr().into(), ip.destination_addr().into(), ip.total_len())
        }
        LaxNetSlice::Ipv6(ip) => {
            let ip = ip.header();
            let length = ip.payload_length().checked_add(40)?;
            (IpAddr::from(ip.source_addr()), IpAddr::from(ip.destination_addr()), length)
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
    Some(TooBig { sender, receiver: SocketAddr::new(receiver, udp.destination_port()), mtu, length })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use etherparse::icmpv4::DestUnreachableHeader;
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};

    use super::{TooBig, read, read6};

    const US: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const US6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

    /// A tunnel packet that has been too large, as far as routers quote it at least.
    fn tunnel_packet(quoted: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ip = PacketBuilder::ipv4(US.octets(), PEER.octets(), 64);
        ip.udp(50000, 50103).write(&mut bytes, &[0; 1450]).unwrap();
        bytes.truncate(quoted);
        bytes
    }

    fn frag_needed(mtu: u16, quoted: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kind = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
        PacketBuilder::ipv4(ROUTER.octets(), US.octets(), 64)
            .icmpv4(Icmpv4Type::DestinationUnreachable(kind))
            .write(&mut bytes, &tunnel_packet(quoted))
            .unwrap();
        bytes
    }

    #[test]
    fn what_a_router_says_is_understood_however_little_it_quotes() {
        let receiver = SocketAddr::new(PEER.into(), 50103);
        let expected = TooBig { sender: US.into(), receiver, mtu: 1400, length: 1478 };
        for quoted in [28, 100, 548, 1478] {
            assert_eq!(read(&frag_needed(1400, quoted)), Some(expected), "{quoted}");
        }
        assert_eq!(read(&frag_needed(0, 28)), Some(TooBig { mtu: 0, ..expected }));
        let mut wrong = frag_needed(1400, 100);
        wrong[27] ^= 1;
        assert_eq!(read(&wrong), None, "the checksum is wrong");
        for short in 0..28 {
            assert_eq!(read(&frag_needed(1400, short)), None, "{short}");
        }
    }

    #[test]
    fn so_is_a_router_of_ipv6() {
        let mut quoted = Vec::new();
        let ip = PacketBuilder::ipv6(US6.octets(), PEER6.octets(), 64);
        ip.udp(50000, 50103).write(&mut quoted, &[0; 1400]).unwrap();
        quoted.truncate(200);
        let mut packet = Vec::new();
        PacketBuilder::ipv6(PEER6.octets(), US6.octets(), 64)
            .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1400 })
            .write(&mut packet, &quoted)
            .unwrap();
        let receiver = SocketAddr::new(IpAddr::from(PEER6), 50103);
        let expected = TooBig { sender: US6.into(), receiver, mtu: 1400, length: 1448 };
        assert_eq!(read6(&packet[40..]), Some(expected));
    }

    #[test]
    fn what_is_about_something_else_says_nothing() {
        let mut packet = Vec::new();
        let unreachable = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
        let ip = PacketBuilder::ipv4(ROUTER.octets(), US.octets(), 64);
        ip.icmpv4(unreachable).write(&mut packet, &tunnel_packet(100)).unwrap();
        assert_eq!(read(&packet), None);
        assert_eq!(read(&tunnel_packet(1478)), None);
        assert_eq!(read6(&[1, 0, 0, 0]), None);
    }
}
