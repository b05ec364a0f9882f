//! What a router says to a sender whose packet goes no further: ICMP (RFC 792, 1812), ICMPv6 (RFC 4443), and to TCP whose
//! peer is gone a reset (RFC 9293, 3.10.7.1). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::icmpv6::{DestUnreachableCode, ParameterProblemCode, ParameterProblemHeader};
use etherparse::{
    Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TcpSlice,
    TransportSlice, icmpv4, icmpv6,
};

use super::frame::{Packet, fragment_offset};

/// How much of the packet an ICMP error quotes, so that it stays within what every link carries: 576 bytes of IPv4, 1280
/// of IPv6.
const QUOTED: usize = 576 - 20 - 8;
const QUOTED_V6: usize = 1280 - 40 - 8;
const TTL: u8 = 64;

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody is behind the address.
    Unreachable,
    /// Nothing but TCP, UDP and ICMP echo is translated.
    Protocol,
    /// It had no hop left.
    TtlExpired,
    /// It is larger than this, and must not be split.
    TooBig(u16),
    /// Of an established connection whose other end is gone.
    Gone,
}

/// The answer, an IP packet; nothing where none may be given: to an ICMP error, to a later fragment, to whoever cannot be
/// told. `gateway`: who speaks.
pub(super) fn to(packet: &Packet<'_>, refusal: Refusal, gateway: IpAddr) -> Option<Vec<u8>> {
    let sliced = SlicedPacket::from_ip(packet.bytes).ok()?;
    if packet.destination.is_multicast() || packet.source.is_unspecified() || is_icmp_error(&sliced) {
        return None;
    }
    if is_later_fragment(&sliced) {
        return None;
    }
    if refusal == Refusal::Gone {
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return None };
        return reset(packet, tcp);
    }
    match (packet.source, gateway) {
        (IpAddr::V4(sender), IpAddr::V4(gateway)) => icmp(packet, refusal, gateway, sender),
        (IpAddr::V6(sender), IpAddr::V6(gateway)) => icmp6(packet, refusal, gateway, sender),
        _ => None,
    }
}

fn is_icmp_error(sliced: &SlicedPacket<'_>) -> bool {
    match &sliced.transport {
        Some(TransportSlice::Icmpv4(icmp)) => !is_query(icmp),
        Some(TransportSlice::Icmpv6(icmp)) => is_error6(icmp),
        _ => false,
    }
}

fn is_query(icmp: &Icmpv4Slice<'_>) -> bool {
    use icmpv4::{TYPE_ECHO_REPLY, TYPE_ECHO_REQUEST, TYPE_TIMESTAMP, TYPE_TIMESTAMP_REPLY};
    matches!(icmp.type_u8(), TYPE_ECHO_REQUEST | TYPE_ECHO_REPLY | TYPE_TIMESTAMP | TYPE_TIMESTAMP_REPLY)
}

/// RFC 4443, 2.1: error messages have a high-order 0 in their type.
fn is_error6(icmp: &Icmpv6Slice<'_>) -> bool {
    icmp.type_u8() < 128
}

fn is_later_fragment(sliced: &SlicedPacket<'_>) -> bool {
    match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => ip.header().fragments_offset().value() != 0,
        Some(NetSlice::Ipv6(ip)) => fragment_offset(ip) != 0,
        _ => false,
    }
}

fn icmp(packet: &Packet<'_>, refusal: Refusal, gateway: Ipv4Addr, sender: Ipv4Addr) -> Option<Vec<u8>> {
    let unreachable = Icmpv4Type::DestinationUnreachable;
    let kind = match refusal {
        Refusal::Unreachable => unreachable(DestUnreachableHeader::Host),
        Refusal::Protocol => unreachable(DestUnreachableHeader::Protocol),
        Refusal::TtlExpired => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
        Refusal::TooBig(next_hop_mtu) => {
            unreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu })
        }
        Refusal::Gone => return None,
    };
    let quoted = &packet.bytes[..packet.bytes.len().min(QUOTED)];
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ipv4(gateway.octets(), sender.octets(), TTL).icmpv4(kind);
    builder.write(&mut bytes, quoted).ok().map(|()| bytes)
}

fn icmp6(packet: &Packet<'_>, refusal: Refusal, gateway: Ipv6Addr, sender: Ipv6Addr) -> Option<Vec<u8>> {
    let kind = match refusal {
        Refusal::Unreachable => Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Address),
        Refusal::Protocol => Icmpv6Type::ParameterProblem(ParameterProblemHeader {
            code: ParameterProblemCode::UnrecognizedNextHeader,
            // The next header field of a packet without extension headers.
            pointer: 6,
        }),
        Refusal::TtlExpired => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
        Refusal::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu: mtu.into() },
        Refusal::Gone => return None,
    };
    let quoted = &packet.bytes[..packet.bytes.len().min(QUOTED_V6)];
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ipv6(gateway.octets(), sender.octets(), TTL).icmpv6(kind);
    builder.write(&mut bytes, quoted).ok().map(|()| bytes)
}

/// As the other end would have said it, were it still there. Linux takes a reset only at the very place in the stream that
/// it expects next: what the sender has acknowledged.
fn reset(packet: &Packet<'_>, tcp: &TcpSlice<'_>) -> Option<Vec<u8>> {
    if tcp.rst() {
        return None;
    }
    let length = u32::try_from(tcp.payload().len()).ok()? + u32::from(tcp.syn()) + u32::from(tcp.fin());
    let next = tcp.sequence_number().wrapping_add(length);
    let sequence = if tcp.ack() { tcp.acknowledgment_number() } else { 0 };
    let builder = match (packet.destination, packet.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
        _ => return None,
    };
    let builder = builder.tcp(tcp.destination_port(), tcp.source_port(), sequence, 0).rst();
    let builder = if tcp.ack() { builder } else { builder.ack(next) };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).ok().map(|()| bytes)
}
