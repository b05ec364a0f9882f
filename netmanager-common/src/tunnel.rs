//! The tunnel's outer headers: IPv4 or IPv6, and UDP, with the bare inner packet as payload.

use crate::checksum;
use crate::wire::{
    Be16, DO_NOT_FRAGMENT, IPV4_LEN, IPV4_WITHOUT_OPTIONS, IPV6_LEN, IPV6_VERSION, Ip, Ipv4, Ipv6, UDP,
    UDP_LEN, Udp, Wire,
};

/// What the tunnel adds to a packet over IPv4.
pub const OVERHEAD: u16 = IPV4_LEN + UDP_LEN;
/// What the tunnel adds to a packet over IPv6.
pub const OVERHEAD6: u16 = IPV6_LEN + UDP_LEN;

/// The largest inner packet, and the MTU of containers. An uplink with the usual MTU of 1500 leaves room for 1472, but
/// Oakestra's nodes have 1450 everywhere and drop what is larger.
pub const INNER_MTU: u16 = 1450;

/// The largest inner packet on an uplink that carries `uplink_mtu` bytes, when the tunnel adds up to `overhead`.
#[must_use]
pub const fn inner_mtu(uplink_mtu: u32, overhead: u16) -> u16 {
    let room = uplink_mtu.saturating_sub(overhead as u32);
    #[expect(clippy::cast_possible_truncation, reason = "less than INNER_MTU")]
    if room < INNER_MTU as u32 { room as u16 } else { INNER_MTU }
}

/// TTL of outer packets.
const TTL: u8 = 64;

/// The two ends of a tunnel packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Address of this node.
    pub source: Ip,
    /// Address of the peer, of the same family.
    pub destination: Ip,
    /// Carries the inner flow's hash.
    pub source_port: Be16,
    /// Where the peer listens.
    pub destination_port: Be16,
}

/// Both outer headers over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Outer {
    /// The outer IPv4 header.
    pub ip: Ipv4,
    /// The outer UDP header.
    pub udp: Udp,
}

const _: () = assert!(size_of::<Outer>() == OVERHEAD as usize);

/// Both outer headers over IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Outer6 {
    /// The outer IPv6 header.
    pub ip: Ipv6,
    /// The outer UDP header.
    pub udp: Udp,
}

const _: () = assert!(size_of::<Outer6>() == OVERHEAD6 as usize);

// SAFETY: headers side by side, as the assertions on the sizes show.
unsafe impl Wire for Outer {}
// SAFETY: as above.
unsafe impl Wire for Outer6 {}

/// The headers for an inner packet of `inner_length` bytes, or nothing when an IPv4 packet cannot be that long. "Do
/// not fragment" is set and the identification therefore 0 (RFC 6864); the UDP checksum is left out, since the inner
/// packet has its own.
#[must_use]
#[inline(always)]
pub const fn outer(path: &Path, inner_length: u16) -> Option<Outer> {
    let Some(total_length) = inner_length.checked_add(OVERHEAD) else { return None };
    let mut ip = Ipv4 {
        version_and_length: IPV4_WITHOUT_OPTIONS,
        tos: 0,
        total_length: Be16::new(total_length),
        identification: Be16::new(0),
        fragment: Be16::new(DO_NOT_FRAGMENT),
        ttl: TTL,
        protocol: UDP,
        checksum: Be16::new(0),
        source: path.source.v4(),
        destination: path.destination.v4(),
    };
    ip.checksum = checksum::of_header(&ip);
    Some(Outer { ip, udp: udp(path, total_length - IPV4_LEN) })
}

/// The same over IPv6. There the UDP checksum is left out too (RFC 6935 allows it to tunnels): our programs take the
/// packet before any socket could refuse it. A node of Oakestra's refuses it, since its socket does not ask for such
/// packets; over an IPv6 underlay our nodes can hear Oakestra's, but not speak to them.
#[must_use]
#[inline(always)]
pub const fn outer6(path: &Path, inner_length: u16) -> Option<Outer6> {
    let Some(payload_length) = inner_length.checked_add(UDP_LEN) else { return None };
    let ip = Ipv6 {
        version_class_flow: [IPV6_VERSION, 0, 0, 0],
        payload_length: Be16::new(payload_length),
        next_header: UDP,
        hop_limit: TTL,
        source: path.source,
        destination: path.destination,
    };
    Some(Outer6 { ip, udp: udp(path, payload_length) })
}

#[inline(always)]
const fn udp(path: &Path, length: u16) -> Udp {
    Udp {
        source: path.source_port,
        destination: path.destination_port,
        length: Be16::new(length),
        checksum: Be16::new(0),
    }
}

#[cfg(test)]
mod tests {
    use super::{OVERHEAD, OVERHEAD6, Path, inner_mtu, outer, outer6};
    use crate::wire::{Be16, Ip, Ip4};
    use etherparse::{Ipv4HeaderSlice, UdpHeaderSlice};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn outer_headers_are_what_another_parser_reads(
            source: [u8; 4], destination: [u8; 4], from: u16, to: u16, length in 0u16..=65507
        ) {
            let path = Path {
                source: Ip::from_v4(Ip4(source)),
                destination: Ip::from_v4(Ip4(destination)),
                source_port: Be16::new(from),
                destination_port: Be16::new(to),
            };
            let headers = outer(&path, length).expect("fits");
            let mut bytes = vec![headers.ip.version_and_length, headers.ip.tos];
            bytes.extend(headers.ip.total_length.0);
            bytes.extend(headers.ip.identification.0);
            bytes.extend(headers.ip.fragment.0);
            bytes.extend([headers.ip.ttl, headers.ip.protocol]);
            bytes.extend(headers.ip.checksum.0);
            bytes.extend(source);
            bytes.extend(destination);
            let ip = Ipv4HeaderSlice::from_slice(&bytes).unwrap();
            prop_assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
            prop_assert_eq!(ip.total_len(), length + OVERHEAD);
            prop_assert!(ip.dont_fragment() && ip.ttl() == 64);
            let mut bytes = headers.udp.source.0.to_vec();
            bytes.extend(headers.udp.destination.0);
            bytes.extend(headers.udp.length.0);
            bytes.extend(headers.udp.checksum.0);
            let udp = UdpHeaderSlice::from_slice(&bytes).unwrap();
            prop_assert_eq!((udp.source_port(), udp.destination_port()), (from, to));
            prop_assert_eq!((udp.length(), udp.checksum()), (length + 8, 0));
        }
    }

    #[test]
    fn a_small_uplink_leaves_less_room() {
        for (uplink, inner) in
            [(65535, 1450), (1500, 1450), (1478, 1450), (1477, 1449), (1280, 1252), (20, 0)]
        {
            assert_eq!(inner_mtu(uplink, OVERHEAD), inner, "{uplink}");
        }
        for (uplink, inner) in [(1500, 1450), (1498, 1450), (1497, 1449), (1280, 1232), (40, 0)] {
            assert_eq!(inner_mtu(uplink, OVERHEAD6), inner, "{uplink} over IPv6");
        }
    }

    #[test]
    fn a_packet_that_would_overflow_the_length_has_no_headers() {
        let path = Path {
            source: Ip::NONE,
            destination: Ip::NONE,
            source_port: Be16::new(0),
            destination_port: Be16::new(0),
        };
        assert!(outer(&path, 65507).is_some());
        assert!(outer(&path, 65508).is_none());
        assert!(outer6(&path, 65527).is_some());
        assert!(outer6(&path, 65528).is_none());
    }
}
