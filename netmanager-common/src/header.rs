//! What the two IP headers have in common for a packet on its way.

use crate::checksum::{self, Difference};
use crate::event::DropReason;
use crate::packet::Frame;
use crate::wire::{
    self, Be16, DESTINATION_OPTIONS, ECHO_REPLY, ECHO_REPLY_V6, ECHO_REQUEST, ECHO_REQUEST_V6,
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT, FRAGMENT_OFFSET, HOP_BY_HOP, ICMP, ICMPV6, IPV4_LEN,
    IPV4_WITHOUT_OPTIONS, IPV6_LEN, Ip, Ipv4, Ipv6, MORE_FRAGMENTS, ROUTING, Wire,
};

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Where its header begins, counted from the IP header.
    pub offset: u16,
    /// Its IP protocol number.
    pub protocol: u8,
}

/// Which part of its datagram a packet is, and the number that all parts have, in the order of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has the ports.
    First(u32),
    /// A later one.
    Later(u32),
}

/// An IP header without what may follow it.
pub trait Header: Wire {
    /// Its size.
    const LEN: u16;
    /// Of the frame that carries it.
    const ETHERTYPE: Be16;
    /// Protocol number of its family's ICMP.
    const ICMP: u8;
    /// Type of an echo request there.
    const ECHO_REQUEST: u8;
    /// Type of an answer to it.
    const ECHO_REPLY: u8;
    /// Whether a change of the header changes the sum of the whole packet: it has no checksum that would balance it.
    const CHANGES_SUM: bool;

    /// The sender.
    fn source(&self) -> Ip;
    /// The receiver.
    fn destination(&self) -> Ip;
    /// Replaces the sender; the header's own checksum, if it has one, is right afterwards.
    fn set_source(&mut self, address: Ip);
    /// The same of the receiver.
    fn set_destination(&mut self, address: Ip);

    /// Whether the addresses are of this header's family. The tables have IPv4 addresses as ::ffff:a.b.c.d; who writes
    /// those into an IPv6 header would be taken for whoever has the IPv4 address.
    fn is_of_its_family(&self) -> bool;

    /// Bytes of the packet, this header included.
    fn length(&self) -> u32;

    /// Checks the header, found at `offset` of the frame, and looks for what it carries.
    ///
    /// # Errors
    /// When it is none, or has what the overlay does not carry.
    fn transport(&self, frame: &impl Frame, offset: u16) -> Result<Transport, DropReason>;

    /// Of IPv6 always the whole: its fragments have no transport that could be found.
    fn part(&self) -> Part;

    /// Takes one hop off, as a router does.
    ///
    /// # Errors
    /// When there is none left.
    fn hop(&mut self) -> Result<(), DropReason>;

    /// `sum` after `old` has become `new`.
    fn replaced(sum: Difference, old: Ip, new: Ip) -> Difference;
}

impl Header for Ipv4 {
    const LEN: u16 = IPV4_LEN;
    const ETHERTYPE: Be16 = ETHERTYPE_IPV4;
    const ICMP: u8 = ICMP;
    const ECHO_REQUEST: u8 = ECHO_REQUEST;
    const ECHO_REPLY: u8 = ECHO_REPLY;
    const CHANGES_SUM: bool = false;

    #[inline(always)]
    fn source(&self) -> Ip {
        Ip::from_v4(self.source)
    }

    #[inline(always)]
    fn destination(&self) -> Ip {
        Ip::from_v4(self.destination)
    }

    #[inline(always)]
    fn set_source(&mut self, address: Ip) {
        let difference = Difference::NONE.replace(self.source, address.v4());
        self.checksum = checksum::update(self.checksum, difference);
        self.source = address.v4();
    }

    #[inline(always)]
    fn set_destination(&mut self, address: Ip) {
        let difference = Difference::NONE.replace(self.destination, address.v4());
        self.checksum = checksum::update(self.checksum, difference);
        self.destination = address.v4();
    }

    #[inline(always)]
    fn is_of_its_family(&self) -> bool {
        true
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.total_length.get().into()
    }

    #[inline(always)]
    fn transport(&self, _frame: &impl Frame, _offset: u16) -> Result<Transport, DropReason> {
        if self.version_and_length != IPV4_WITHOUT_OPTIONS {
            let is_ipv4 = self.version_and_length >> 4 == 4 && self.version_and_length & 0x0f > 5;
            return Err(if is_ipv4 { DropReason::IpOptions } else { DropReason::Malformed });
        }
        Ok(Transport { offset: IPV4_LEN, protocol: self.protocol })
    }

    #[inline(always)]
    fn part(&self) -> Part {
        let identification = u16::from_ne_bytes(self.identification.0).into();
        match self.fragment.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) {
            0 => Part::Whole,
            MORE_FRAGMENTS => Part::First(identification),
            _ => Part::Later(identification),
        }
    }

    #[inline(always)]
    fn hop(&mut self) -> Result<(), DropReason> {
        if self.ttl <= 1 {
            return Err(DropReason::TtlExpired);
        }
        let ttl = self.ttl - 1;
        let difference = Difference::NONE.replace_pair([self.ttl, self.protocol], [ttl, self.protocol]);
        self.checksum = checksum::update(self.checksum, difference);
        self.ttl = ttl;
        Ok(())
    }

    #[inline(always)]
    fn replaced(sum: Difference, old: Ip, new: Ip) -> Difference {
        sum.replace(old.v4(), new.v4())
    }
}

/// Extension headers that are looked behind.
const MAX_EXTENSIONS: u32 = 4;

impl Header for Ipv6 {
    const LEN: u16 = IPV6_LEN;
    const ETHERTYPE: Be16 = ETHERTYPE_IPV6;
    const ICMP: u8 = ICMPV6;
    const ECHO_REQUEST: u8 = ECHO_REQUEST_V6;
    const ECHO_REPLY: u8 = ECHO_REPLY_V6;
    const CHANGES_SUM: bool = true;

    #[inline(always)]
    fn source(&self) -> Ip {
        self.source
    }

    #[inline(always)]
    fn destination(&self) -> Ip {
        self.destination
    }

    #[inline(always)]
    fn set_source(&mut self, address: Ip) {
        self.source = address;
    }

    #[inline(always)]
    fn set_destination(&mut self, address: Ip) {
        self.destination = address;
    }

    #[inline(always)]
    fn is_of_its_family(&self) -> bool {
        !self.source.is_v4() && !self.destination.is_v4()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        u32::from(self.payload_length.get()) + u32::from(IPV6_LEN)
    }

    #[inline(always)]
    fn transport(&self, frame: &impl Frame, offset: u16) -> Result<Transport, DropReason> {
        if self.version_class_flow[0] >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        let mut found = Transport { offset: IPV6_LEN, protocol: self.next_header };
        for _ in 0..MAX_EXTENSIONS {
            if !matches!(found.protocol, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
                break;
            }
            let [next, length, _kind, left]: [u8; 4] =
                frame.load(offset.wrapping_add(found.offset)).ok_or(DropReason::Malformed)?;
            if found.protocol == HOP_BY_HOP && found.offset != IPV6_LEN {
                // Only the first header may be this one (RFC 8200); its receiver would refuse it.
                return Err(DropReason::ExtensionHeaders);
            }
            if found.protocol == ROUTING && left != 0 {
                // The checksum is over the address of the last station, which is not the one that we would replace.
                return Err(DropReason::ExtensionHeaders);
            }
            found.offset += (u16::from(length) + 1) * 8;
            found.protocol = next;
        }
        match found.protocol {
            FRAGMENT => Err(DropReason::Fragment),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => Err(DropReason::ExtensionHeaders),
            _ => Ok(found),
        }
    }

    #[inline(always)]
    fn part(&self) -> Part {
        Part::Whole
    }

    #[inline(always)]
    fn hop(&mut self) -> Result<(), DropReason> {
        if self.hop_limit <= 1 {
            return Err(DropReason::TtlExpired);
        }
        self.hop_limit -= 1;
        Ok(())
    }

    #[inline(always)]
    fn replaced(sum: Difference, old: Ip, new: Ip) -> Difference {
        sum.replace6(old, new)
    }
}

/// Whether the transport checksum is over a pseudo header, and its offset in the transport header; nothing if it does
/// not change with the addresses.
#[inline(always)]
#[must_use]
pub const fn checksum_offset(protocol: u8) -> Option<u16> {
    match protocol {
        wire::TCP => Some(16),
        wire::UDP => Some(6),
        ICMPV6 => Some(2),
        // ICMP of IPv4 has no pseudo header.
        _ => None,
    }
}
