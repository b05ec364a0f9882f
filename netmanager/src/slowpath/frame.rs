//! A frame of the slow path, and the IP packet in it that matters.

use std::net::IpAddr;

use etherparse::{
    Ipv6ExtensionSlice, Ipv6FragmentHeaderSlice, Ipv6Slice, LaxSlicedPacket, NetSlice, SlicedPacket,
    TransportSlice,
};
use netmanager_common::event::DropReason;
use netmanager_common::link;
use netmanager_common::punt::{Origin, TAG_LEN, Tag};
use netmanager_common::wire::{ECHO_REQUEST, ECHO_REQUEST_V6, ETHERNET_LEN, ICMP, ICMPV6};

use crate::datapath::{Arrival, Datagram};

/// What the programs have sent: a whole frame, its tag in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    tag: Tag,
    bytes: Vec<u8>,
}

/// What the slow path has to know of a packet that a container has sent or is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// IP header and all behind it.
    pub(super) bytes: &'a [u8],
}

impl Frame {
    /// Nothing if it is not of our programs: the kernel itself speaks on every interface that is up.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let tag = Tag::read(*bytes.first_chunk()?)?;
        Some(Self { tag, bytes: bytes.to_vec() })
    }

    pub(super) fn origin(&self) -> Origin {
        self.tag.origin
    }

    /// Why the programs could not go on; nothing if the number is of no reason.
    pub(super) fn reason(&self) -> Option<DropReason> {
        DropReason::try_from(u32::from(self.tag.reason)).ok()
    }

    /// Where it had arrived first.
    pub(super) fn ifindex(&self) -> u32 {
        self.tag.ifindex
    }

    /// As it is to be written, to begin anew where it came from.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The packet that a container has sent, or of a frame from the uplink the one in the tunnel.
    pub(super) fn packet(&self) -> Option<Packet<'_>> {
        match self.tag.origin {
            Origin::Uplink => {
                let sliced = SlicedPacket::from_ethernet(&self.bytes).ok()?;
                let TransportSlice::Udp(udp) = sliced.transport? else { return None };
                Packet::read(link::inside(udp.payload()))
            }
            _ => Packet::read(self.bytes.get(usize::from(ETHERNET_LEN)..)?),
        }
    }

    /// The node that has sent a frame from the uplink.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match LaxSlicedPacket::from_ethernet(&self.bytes).ok()?.net? {
            etherparse::LaxNetSlice::Ipv4(ip) => Some(ip.header().source_addr().into()),
            etherparse::LaxNetSlice::Ipv6(ip) => Some(ip.header().source_addr().into()),
            etherparse::LaxNetSlice::Arp(_) => None,
        }
    }
}

impl<'a> Packet<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (source, destination) = match SlicedPacket::from_ip(bytes).ok()?.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        Some(Self { source, destination, bytes })
    }

    /// The datagram that it is a later fragment of; nothing if it is none. `ifindex`: where it had arrived first.
    pub(super) fn datagram(&self, ifindex: u32) -> Option<Datagram> {
        let (identification, protocol, offset) = match SlicedPacket::from_ip(self.bytes).ok()?.net? {
            NetSlice::Ipv4(ip) => {
                let ip = ip.header();
                let identification = u16::from_ne_bytes(ip.identification().to_be_bytes());
                (identification.into(), ip.protocol(), ip.fragments_offset())
            }
            NetSlice::Ipv6(ip) => {
                let fragment = fragment(&ip)?;
                let identification = u32::from_ne_bytes(fragment.identification().to_be_bytes());
                (identification, fragment.next_header(), fragment.fragment_offset())
            }
            NetSlice::Arp(_) => return None,
        };
        let Self { source, destination, .. } = *self;
        let datagram = Datagram { ifindex, source, destination, identification, protocol: protocol.0 };
        (offset.value() != 0).then_some(datagram)
    }

    /// Addresses and ports, as the programs count them; nothing of a later fragment, which has no ports.
    pub(super) fn flow(&self) -> Option<Arrival> {
        let ip = SlicedPacket::from_ip(self.bytes).ok()?.net?;
        let (payload, is_first) = match &ip {
            NetSlice::Ipv4(ip) => (ip.payload(), ip.header().fragments_offset().value() == 0),
            NetSlice::Ipv6(ip) => (ip.payload(), fragment_offset(ip) == 0),
            NetSlice::Arp(_) => return None,
        };
        let [a, b, c, d, e, f, ..] = *payload.payload else { return None };
        let (kind, protocol) = (a, payload.ip_number.0);
        let (source_port, destination_port) = match protocol {
            ICMP | ICMPV6 => {
                let identifier = u16::from_be_bytes([e, f]);
                if matches!(kind, ECHO_REQUEST | ECHO_REQUEST_V6) { (identifier, 0) } else { (0, identifier) }
            }
            _ => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        };
        let Self { source, destination, .. } = *self;
        is_first.then_some(Arrival { source, destination, source_port, destination_port, protocol })
    }
}

/// The fragment header, if there is one.
fn fragment<'a>(ip: &Ipv6Slice<'a>) -> Option<Ipv6FragmentHeaderSlice<'a>> {
    ip.extensions().clone().into_iter().find_map(|header| match header {
        Ipv6ExtensionSlice::Fragment(fragment) => Some(fragment),
        _ => None,
    })
}

/// In units of eight bytes; 0 of what is no fragment.
pub(super) fn fragment_offset(ip: &Ipv6Slice<'_>) -> u16 {
    fragment(ip).map_or(0, |fragment| fragment.fragment_offset().value())
}

/// A frame around a packet that is made or translated here, to be delivered by its destination.
pub(super) fn to_deliver(packet: &[u8]) -> Vec<u8> {
    let tag = Tag { origin: Origin::Netmanager, reason: 0, ifindex: 0 };
    let ethertype: u16 = if packet.first().is_some_and(|byte| byte >> 4 == 4) { 0x0800 } else { 0x86dd };
    let mut bytes = Vec::with_capacity(usize::from(ETHERNET_LEN) + packet.len());
    bytes.extend(tag.bytes());
    bytes.extend([0; TAG_LEN]);
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(packet);
    bytes
}
