//! What must hold of every frame, read by a parser that is not ours.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, IpSlice, Ipv6ExtensionSlice, LaxIpSlice, TcpSlice, UdpSlice};
use netmanager::datapath::{DropReason, Endpoint};

use crate::bed::{DROP, NEXT, NODE, Outcome, PASS, REDIRECT};
use crate::fuzz::world::{CONTAINERS, INSTANCES, NODE6};
use crate::packet::ETHERNET;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    LeftAlone,
    Dropped(DropReason),
    Delivered,
    Encapsulated,
}

/// Of a frame that a container has sent.
#[track_caller]
pub(crate) fn of_container(sent: &[u8], outcome: &Outcome) -> Fate {
    if let Some(fate) = ended(sent, outcome, PASS) {
        return fate;
    }
    let before = Read::of(&sent[ETHERNET..]);
    let overhead = outcome.frame.len().checked_sub(sent.len()).expect("nothing is cut off");
    let (fate, after) = if overhead == 0 {
        (Fate::Delivered, delivered(&outcome.frame))
    } else {
        (Fate::Encapsulated, encapsulated(&outcome.frame))
    };
    after.is_translated(&before);
    assert_eq!(after.hops, before.hops - 1, "one hop less: {outcome:02x?} of {sent:02x?}");
    let sender = CONTAINERS.iter().find(|container| addresses(container).contains(&before.source));
    let sender = sender.expect("only the node's own containers are heard");
    let instance_ip =
        [sender.instance_ip.map(IpAddr::V4), sender.instance_ip6.map(IpAddr::V6)].into_iter().flatten();
    let mut may_show = instance_ip.chain([before.source]);
    let as_dialled = overhead == 0 && is_service(after.source);
    assert!(as_dialled || may_show.any(|address| address == after.source), "{after:?} of {before:?}");
    fate
}

/// Of a frame that has arrived at the uplink.
#[track_caller]
pub(crate) fn at_uplink(arrived: &[u8], outcome: &Outcome) -> Fate {
    if let Some(fate) = ended(arrived, outcome, NEXT) {
        return fate;
    }
    let outer = if arrived[ETHERNET] >> 4 == 4 { 28 } else { 48 };
    let before = Read::of(&arrived[ETHERNET + outer..]);
    let after = delivered(&outcome.frame);
    after.is_translated(&before);
    assert_eq!((after.hops, after.destination), (before.hops, before.destination));
    assert!(after.source == before.source || is_service(after.source), "{after:?} of {before:?}");
    Fate::Delivered
}

/// The fate of a frame that is not sent on: left alone (verdict `untouched`), or dropped with exactly one reason.
#[track_caller]
fn ended(frame: &[u8], outcome: &Outcome, untouched: i32) -> Option<Fate> {
    match (outcome.verdict, outcome.dropped.as_slice()) {
        (REDIRECT, []) => None,
        (DROP, [reason]) => Some(Fate::Dropped(*reason)),
        (verdict, []) if verdict == untouched => {
            assert_eq!(outcome.frame, frame, "left alone, but changed");
            Some(Fate::LeftAlone)
        }
        _ => panic!("an unknown verdict, or not one reason for one drop: {outcome:02x?} of {frame:02x?}"),
    }
}

/// The packet in a frame for a container of this node.
#[track_caller]
fn delivered(frame: &[u8]) -> Read<'_> {
    let read = Read::of(&frame[ETHERNET..]);
    let receiver = CONTAINERS.iter().find(|container| addresses(container).contains(&read.destination));
    let receiver = receiver.unwrap_or_else(|| panic!("nobody's: {read:?}"));
    assert_eq!((&frame[..6], &frame[6..12]), (&receiver.mac[..], &receiver.gateway_mac[..]));
    let ethertype: [u8; 2] = if read.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    assert_eq!(frame[12..14], ethertype, "{read:?}");
    read
}

/// The packet in a frame for another node. Its Ethernet header is written later, by the kernel.
#[track_caller]
fn encapsulated(frame: &[u8]) -> Read<'_> {
    let outer = IpSlice::from_slice(&frame[ETHERNET..]).expect("an outer IP header");
    let whole = frame.len() - ETHERNET;
    let (source, headers) = match &outer {
        IpSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!(usize::from(header.total_len()), whole);
            (IpAddr::V4(NODE), 20)
        }
        IpSlice::Ipv6(ip) => {
            assert_eq!(usize::from(ip.header().payload_length()) + 40, whole);
            (IpAddr::V6(NODE6), 40)
        }
    };
    let udp = UdpSlice::from_slice(outer.payload().payload).expect("an outer UDP header");
    assert_eq!((usize::from(udp.length()), udp.checksum()), (whole - headers, 0));
    let read = Read::of(udp.payload());
    let instance = INSTANCES.iter().find(|instance| {
        IpAddr::V4(instance.ns_ip) == read.destination
            || instance.ns_ip6.map(IpAddr::V6) == Some(read.destination)
    });
    let instance = instance.unwrap_or_else(|| panic!("nobody's: {read:?}"));
    assert_eq!(outer.source_addr(), source);
    assert_eq!(SocketAddr::new(outer.destination_addr(), udp.destination_port()), instance.node);
    read
}

fn addresses(container: &Endpoint) -> Vec<IpAddr> {
    [Some(container.ns_ip.into()), container.ns_ip6.map(IpAddr::V6)].into_iter().flatten().collect()
}

fn is_service(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == [10, 30],
        IpAddr::V6(address) => address.octets()[..2] == [0xfd, 0xff],
    }
}

/// A whole IP packet.
#[derive(Debug)]
struct Read<'a> {
    bytes: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    /// Where a change of the addresses changes bytes beside themselves.
    transport_checksum: Option<usize>,
    /// Of the IPv4 header, and of the transport header, if there is one that can be read.
    checksums: [Option<Checksum>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    Right,
    Wrong,
    Absent,
}

impl<'a> Read<'a> {
    /// Reads the packet that `bytes` begin with; in what arrives, the rest of the frame may be padding.
    #[track_caller]
    fn of(bytes: &'a [u8]) -> Self {
        // What a later fragment begins with is no header, and what it is said to be may not be allowed there.
        let (ip, _) = LaxIpSlice::from_slice(bytes).unwrap_or_else(|error| panic!("{error} in {bytes:02x?}"));
        let payload = ip.payload();
        assert!(!payload.incomplete, "more is promised than there is in {bytes:02x?}");
        let at = payload.payload.as_ptr().addr() - bytes.as_ptr().addr();
        let (hops, header) = match &ip {
            LaxIpSlice::Ipv4(ip) => {
                let header = ip.header();
                let right = header.header_checksum() == header.to_header().calc_header_checksum();
                (header.ttl(), Some(Checksum::when(right)))
            }
            LaxIpSlice::Ipv6(ip) => (ip.header().hop_limit(), None),
        };
        // A later fragment begins in the middle of its datagram, and no checksum with it.
        let is_later = match &ip {
            LaxIpSlice::Ipv4(ip) => ip.header().fragments_offset().value() != 0,
            LaxIpSlice::Ipv6(ip) => ip.extensions().clone().into_iter().any(|extension| {
                matches!(extension, Ipv6ExtensionSlice::Fragment(fragment) if fragment.fragment_offset().value() != 0)
            }),
        };
        let (offset, transport) = match ip.payload_ip_number() {
            _ if is_later => (None, None),
            IpNumber::TCP => (Some(16), tcp(&ip)),
            IpNumber::UDP => (Some(6), udp(&ip)),
            IpNumber::IPV6_ICMP => (Some(2), icmp6(&ip)),
            _ => (None, None),
        };
        Self {
            bytes: &bytes[..at + payload.payload.len()],
            source: ip.source_addr(),
            destination: ip.destination_addr(),
            hops,
            transport_checksum: offset.map(|offset| at + offset),
            checksums: [header, transport],
        }
    }

    /// Nothing but addresses and hops differs from `before`, and what depends on them; what was right is right, and
    /// what was wrong is not hidden.
    #[track_caller]
    fn is_translated(&self, before: &Self) {
        let families = [self.source, self.destination, before.source, before.destination];
        assert!(families.iter().all(|address| address.is_ipv4() == self.source.is_ipv4()), "{families:?}");
        let mapped = |address: &IpAddr| address.to_canonical() != *address;
        assert!(!families.iter().any(mapped), "IPv4 by the name of IPv6: {families:?}");
        assert_eq!(self.checksums, before.checksums, "{self:02x?} of {before:02x?}");
        let rest = |read: &Self| {
            let mut bytes = read.bytes.to_vec();
            if read.source.is_ipv4() {
                bytes[8] = 0;
                bytes[10..20].fill(0);
            } else {
                bytes[7] = 0;
                bytes[8..40].fill(0);
            }
            if let Some(at) = read.transport_checksum {
                bytes[at..at + 2].fill(0);
            }
            bytes
        };
        assert_eq!(rest(self), rest(before), "{self:02x?} of {before:02x?}");
    }
}

impl Checksum {
    fn when(right: bool) -> Self {
        if right { Self::Right } else { Self::Wrong }
    }
}

fn tcp(ip: &LaxIpSlice<'_>) -> Option<Checksum> {
    let tcp = TcpSlice::from_slice(ip.payload().payload).ok()?;
    let right = match ip {
        LaxIpSlice::Ipv4(ip) => {
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).ok()?
        }
        LaxIpSlice::Ipv6(ip) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).ok()?
        }
    };
    Some(Checksum::when(tcp.checksum() == right))
}

fn udp(ip: &LaxIpSlice<'_>) -> Option<Checksum> {
    let udp = UdpSlice::from_slice(ip.payload().payload).ok()?;
    if udp.checksum() == 0 {
        return Some(Checksum::Absent);
    }
    let header = udp.to_header();
    let right = match ip {
        LaxIpSlice::Ipv4(ip) => header
            .calc_checksum_ipv4_raw(ip.header().source(), ip.header().destination(), udp.payload())
            .ok()?,
        LaxIpSlice::Ipv6(ip) => header
            .calc_checksum_ipv6_raw(ip.header().source(), ip.header().destination(), udp.payload())
            .ok()?,
    };
    Some(Checksum::when(udp.checksum() == right))
}

fn icmp6(ip: &LaxIpSlice<'_>) -> Option<Checksum> {
    let LaxIpSlice::Ipv6(ip) = ip else { return None };
    let icmp = etherparse::Icmpv6Slice::from_slice(ip.payload().payload).ok()?;
    Some(Checksum::when(icmp.is_checksum_valid(ip.header().source(), ip.header().destination())))
}
