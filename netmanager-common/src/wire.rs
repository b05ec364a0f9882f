//! Headers as they lie in a packet, with the alignment they have behind a frame that begins at `4n + 2`.

/// An IPv4 address in the order of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C, align(4))]
pub struct Ip4(pub [u8; 4]);

impl Ip4 {
    /// 0.0.0.0, which stands for "none" wherever an address may be absent.
    pub const NONE: Self = Self([0; 4]);

    /// The address as a word of memory, for checksums and hashes; not a number.
    #[must_use]
    #[inline(always)]
    pub const fn word(self) -> u32 {
        u32::from_ne_bytes(self.0)
    }

    /// Whether this is 0.0.0.0.
    #[must_use]
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.word() == 0
    }

    /// The gateway of the container that has this address: the first host of the node's block, which is a /26.
    #[must_use]
    #[inline(always)]
    pub const fn gateway(self) -> Self {
        let [a, b, c, d] = self.0;
        Self([a, b, c, d & 0xc0 | 1])
    }
}

/// An IPv4 or IPv6 address in the order of the wire, IPv4 as ::ffff:a.b.c.d. Kept as words of memory, which are
/// compared and copied as such; an address is 4-aligned wherever it lies behind an Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Ip([u32; 4]);

impl Ip {
    /// ::, which stands for "none" wherever an address may be absent.
    pub const NONE: Self = Self([0; 4]);

    const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

    /// An IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn from_v4(address: Ip4) -> Self {
        Self([0, 0, Self::MAPPED, address.word()])
    }

    /// An IPv4 address, or none if it is 0.0.0.0.
    #[must_use]
    #[inline(always)]
    pub const fn from_optional_v4(address: Ip4) -> Self {
        if address.is_none() { Self::NONE } else { Self::from_v4(address) }
    }

    /// An address by its bytes.
    #[must_use]
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The address by its bytes.
    #[must_use]
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let ([e, f, g, h], [i, j, k, l]) = (a.to_ne_bytes(), b.to_ne_bytes());
        let ([m, n, o, p], [q, r, s, t]) = (c.to_ne_bytes(), d.to_ne_bytes());
        [e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t]
    }

    /// An address by its words of memory.
    #[must_use]
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The address as words of memory, for checksums and hashes; not numbers.
    #[must_use]
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.0
    }

    /// Whether this is ::.
    #[must_use]
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | c | d == 0
    }

    /// Whether this is an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        let [a, b, c, _] = self.0;
        a | b == 0 && c == Self::MAPPED
    }

    /// The IPv4 address that this is; of an IPv6 address its last four bytes.
    #[must_use]
    #[inline(always)]
    pub const fn v4(self) -> Ip4 {
        let [_, _, _, last] = self.0;
        Ip4(last.to_ne_bytes())
    }

    /// The gateway of the container that has this address: of IPv6, the first host of the node's block, a /120.
    #[must_use]
    #[inline(always)]
    pub const fn gateway(self) -> Self {
        if self.is_v4() {
            return Self::from_v4(self.v4().gateway());
        }
        let [a, b, c, last] = self.0;
        let [d, e, f, _] = last.to_ne_bytes();
        Self([a, b, c, u32::from_ne_bytes([d, e, f, 1])])
    }

    /// Addresses that mean something on one link only: fe80::/10, and :: as a source.
    #[must_use]
    #[inline(always)]
    pub const fn is_of_link(self) -> bool {
        self.is_none() || matches!(self.octets(), [0xfe, 0x80..=0xbf, ..])
    }

    /// Addresses by which a host speaks with itself: 127.0.0.0/8 and ::1.
    #[must_use]
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() {
            matches!(self.v4().0, [127, ..])
        } else {
            matches!(self.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        }
    }
}

/// A 16-bit number in network byte order: a port, a length, a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C, align(2))]
pub struct Be16(pub [u8; 2]);

impl Be16 {
    /// Puts a number into network byte order.
    #[must_use]
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be_bytes())
    }

    /// The number.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

/// A value that is the same bytes in a packet and in memory.
///
/// # Safety
/// No padding, and every pattern of bytes is a value.
pub unsafe trait Wire: Copy {
    /// Bytes.
    #[expect(clippy::cast_possible_truncation, reason = "headers are short")]
    const SIZE: u32 = size_of::<Self>() as u32;
}

// SAFETY: integers and byte arrays; sizes are asserted below.
unsafe impl Wire for Ethernet {}
// SAFETY: as above.
unsafe impl Wire for Ipv4 {}
// SAFETY: as above.
unsafe impl Wire for Udp {}
// SAFETY: as above.
unsafe impl Wire for Ipv6 {}
// SAFETY: as above.
unsafe impl Wire for Ip4 {}
// SAFETY: as above.
unsafe impl Wire for Ip {}
// SAFETY: an array of bytes.
unsafe impl<const N: usize> Wire for [u8; N] {}

/// Ethernet II.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ethernet {
    /// MAC of the receiver.
    pub destination: [u8; 6],
    /// MAC of the sender.
    pub source: [u8; 6],
    /// What follows.
    pub ethertype: Be16,
}

/// IPv4 without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ipv4 {
    /// 0x45 when there are no options.
    pub version_and_length: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Of header and payload.
    pub total_length: Be16,
    /// Of a datagram's fragments.
    pub identification: Be16,
    /// Three flags and the fragment's offset.
    pub fragment: Be16,
    /// Hops left.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Of the header.
    pub checksum: Be16,
    /// The sender.
    pub source: Ip4,
    /// The receiver.
    pub destination: Ip4,
}

impl Ipv4 {
    /// Whether the packet is one of several fragments, the first one or a later one.
    #[must_use]
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.fragment.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }
}

/// IPv6 without what may follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ipv6 {
    /// Version, traffic class and flow label.
    pub version_class_flow: [u8; 4],
    /// Of what follows this header.
    pub payload_length: Be16,
    /// What follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// The sender.
    pub source: Ip,
    /// The receiver.
    pub destination: Ip,
}

/// UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Udp {
    /// Port of the sender.
    pub source: Be16,
    /// Port of the receiver.
    pub destination: Be16,
    /// Of header and payload.
    pub length: Be16,
    /// Zero: the sender computed none.
    pub checksum: Be16,
}

/// Size of an Ethernet header.
pub const ETHERNET_LEN: u16 = 14;
/// Size of an IPv4 header without options.
pub const IPV4_LEN: u16 = 20;
/// Size of an IPv6 header.
pub const IPV6_LEN: u16 = 40;
/// Size of a UDP header.
pub const UDP_LEN: u16 = 8;

const _: () = assert!(size_of::<Ethernet>() == ETHERNET_LEN as usize);
const _: () = assert!(size_of::<Ipv4>() == IPV4_LEN as usize);
const _: () = assert!(size_of::<Ipv6>() == IPV6_LEN as usize);
const _: () = assert!(size_of::<Udp>() == UDP_LEN as usize);

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: Be16 = Be16::new(0x0800);
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: Be16 = Be16::new(0x86dd);
/// EtherType of ARP.
pub const ETHERTYPE_ARP: Be16 = Be16::new(0x0806);

/// First byte of an IPv4 header without options.
pub const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// First byte of an IPv6 header of the traffic class 0.
pub const IPV6_VERSION: u8 = 0x60;
/// "Do not fragment".
pub const DO_NOT_FRAGMENT: u16 = 0x4000;
/// Another fragment follows.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Mask of the fragment's offset.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Extension header of IPv6: options for each hop.
pub const HOP_BY_HOP: u8 = 0;
/// Extension header of IPv6: stations on the way.
pub const ROUTING: u8 = 43;
/// Extension header of IPv6: of a fragment.
pub const FRAGMENT: u8 = 44;
/// Extension header of IPv6: options for the receiver.
pub const DESTINATION_OPTIONS: u8 = 60;

/// ICMP type of an answer to an echo request.
pub const ECHO_REPLY: u8 = 0;
/// ICMP type of an echo request.
pub const ECHO_REQUEST: u8 = 8;

/// ICMPv6 type of an echo request.
pub const ECHO_REQUEST_V6: u8 = 128;
/// ICMPv6 type of an answer to an echo request.
pub const ECHO_REPLY_V6: u8 = 129;
/// ICMPv6 type of the question for routers.
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router's presentation.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of the question for a neighbour's MAC.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of the answer to it.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// ICMPv6 type of a router's hint at another one.
pub const REDIRECT: u8 = 137;
/// ICMPv6 type of a report which groups are listened to (version 2; the first version's are 131 and 132).
pub const LISTENER_REPORT: u8 = 143;

/// The sender will send no more.
pub const TCP_FIN: u8 = 0x01;
/// The first packet of a connection, in each direction.
pub const TCP_SYN: u8 = 0x02;
/// The connection is no more.
pub const TCP_RST: u8 = 0x04;
/// Set in all packets of a connection but the first.
pub const TCP_ACK: u8 = 0x10;

/// Size of a TCP header without options.
pub const TCP_LEN: u16 = 20;
/// Where the length of TCP's header is in it, in the upper half of a byte, and behind it the flags.
pub const TCP_LENGTH_AND_FLAGS: u16 = 12;
/// Where the checksum is in TCP's header.
pub const TCP_CHECKSUM: u16 = 16;
/// TCP option: no more follow.
pub const TCP_OPTION_END: u8 = 0;
/// TCP option: nothing, one byte long.
pub const TCP_OPTION_NOTHING: u8 = 1;
/// TCP option: the largest segment that the sender wants to get.
pub const TCP_OPTION_MAXIMUM_SEGMENT_SIZE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::{Be16, Ip, Ip4};
    use std::net::{IpAddr, Ipv6Addr};

    #[test]
    fn the_hosts_own_addresses_are_told_from_others() {
        for (address, loopback) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("128.0.0.1", false),
            ("10.30.0.1", false),
            ("::1", true),
            ("::2", false),
            ("fe80::1", false),
        ] {
            let ip = match address.parse().unwrap() {
                IpAddr::V4(address) => Ip::from_v4(Ip4(address.octets())),
                IpAddr::V6(address) => Ip::from_octets(address.octets()),
            };
            assert_eq!(ip.is_loopback(), loopback, "{address}");
            assert_eq!(ip.is_v4(), address.contains('.'), "{address}");
        }
    }

    #[test]
    fn an_ipv4_address_is_the_mapped_one() {
        let ip = Ip::from_v4(Ip4([10, 18, 0, 66]));
        assert_eq!(Ipv6Addr::from(ip.octets()).to_string(), "::ffff:10.18.0.66");
        assert_eq!(Ip::from_octets(ip.octets()), ip);
        assert_eq!((ip.is_v4(), ip.v4()), (true, Ip4([10, 18, 0, 66])));
        assert!(Ip::NONE.is_none() && !ip.is_none() && !Ip::from_v4(Ip4::NONE).is_none());
        assert!(Ip::from_optional_v4(Ip4::NONE).is_none());
    }

    #[test]
    fn the_gateway_is_the_first_host_of_the_block() {
        for (host, gateway) in [(2, 1), (1, 1), (62, 1), (66, 65), (190, 129), (254, 193)] {
            assert_eq!(Ip4([10, 18, 3, host]).gateway(), Ip4([10, 18, 3, gateway]));
            let ip = |host| Ip::from_v4(Ip4([10, 18, 3, host]));
            assert_eq!(ip(host).gateway(), ip(gateway));
        }
        let ip = |text: &str| Ip::from_octets(text.parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(ip("fc00::1:142").gateway(), ip("fc00::1:101"));
    }

    #[test]
    fn big_endian_numbers_keep_their_value() {
        assert_eq!(Be16::new(50103).0, [0xc3, 0xb7]);
        assert_eq!(Be16([0xc3, 0xb7]).get(), 50103);
    }
}
