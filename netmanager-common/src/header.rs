//! What the two IP headers have in common for a packet on its way.

use crate::checksum::{self, Difference};
use crate::event::DropReason;
use crate::extension::{self, Behind};
use crate::packet::Frame;
use crate::wire::{
    self, Be16, ECHO_REPLY, ECHO_REPLY_V6, ECHO_REQUEST, ECHO_REQUEST_V6, ETHERTYPE_IPV4, ETHERTYPE_IPV6,
    FRAGMENT_OFFSET, ICMP, ICMPV6, IPV4_LEN, IPV4_WITHOUT_OPTIONS, IPV6_LEN, Ip, Ipv4, Ipv6, MORE_FRAGMENTS,
    Wire,
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

    /// Checks the header of a packet of the overlay, found at `offset` of the frame, and looks for what it carries and
    /// which part of its datagram it is.
    ///
    /// # Errors
    /// When it is none, or has what the overlay does not carry.
    fn transport(&self, frame: &impl Frame, offset: u16) -> Result<(Transport, Part), DropReason>;

    /// What any packet carries, whatever its header has beside; nothing of a later fragment.
    ///
    /// # Errors
    /// When the frame ends before, or there is more in front of it than is looked behind.
    fn carried(&self, frame: &impl Frame, offset: u16) -> Result<Option<Transport>, DropReason>;

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
    fn transport(&self, _frame: &impl Frame, _offset: u16) -> Result<(Transport, Part), DropReason> {
        if self.version_and_length != IPV4_WITHOUT_OPTIONS {
            let is_ipv4 = self.version_and_length >> 4 == 4 && self.version_and_length & 0x0f > 5;
            return Err(if is_ipv4 { DropReason::IpOptions } else { DropReason::Malformed });
        }
        let identification = u16::from_ne_bytes(self.identification.0).into();
        let part = match self.fragment.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) {
            0 => Part::Whole,
            MORE_FRAGMENTS => Part::First(identification),
            _ => Part::Later(identification),
        };
        Ok((Transport { offset: IPV4_LEN, protocol: self.protocol }, part))
    }

    #[inline(always)]
    fn carried(&self, _frame: &impl Frame, _offset: u16) -> Result<Option<Transport>, DropReason> {
        let offset = u16::from(self.version_and_length & 0x0f) * 4;
        let is_first = self.fragment.get() & FRAGMENT_OFFSET == 0;
        Ok(is_first.then_some(Transport { offset, protocol: self.protocol }))
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
    fn transport(&self, frame: &impl Frame, offset: u16) -> Result<(Transport, Part), DropReason> {
        if self.version_class_flow[0] >> 4 != 6 {
            return Err(DropReason::Malformed);
        }
        let found = behind(self, frame, offset)?;
        if !found.is_translatable {
            return Err(DropReason::ExtensionHeaders);
        }
        Ok((found.transport, found.part))
    }

    #[inline(always)]
    fn carried(&self, frame: &impl Frame, offset: u16) -> Result<Option<Transport>, DropReason> {
        let found = behind(self, frame, offset)?;
        Ok((!matches!(found.part, Part::Later(_))).then_some(found.transport))
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

/// Nearly all packets have no extension headers.
#[inline(always)]
fn behind(ip: &Ipv6, frame: &impl Frame, offset: u16) -> Result<Behind, DropReason> {
    if extension::is_one(ip.next_header) {
        frame.behind_extensions(offset, ip.next_header)
    } else {
        Ok(Behind::none(ip.next_header))
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
