//! ICMP errors, and the translation of the addresses in them: their own, and those of the packet that they quote. Pure.
//!
//! A quoted packet travelled the other way. So when a packet from `a` to `b` is to go on as one from `c` to `d`, what it
//! quotes was from `b` to `a` and becomes one from `d` to `c`: that is how whoever gets the error has sent it.

use std::net::IpAddr;

use netmanager_common::checksum::{Difference, update};
use netmanager_common::wire::{
    Be16, FRAGMENT_OFFSET, ICMP, ICMPV6, IPV4_LEN, IPV4_WITHOUT_OPTIONS, IPV6_LEN, Ip4, TCP, UDP,
};

use crate::datapath::Arrival;

/// Type, code, checksum, and four bytes that depend on the type.
const ICMP_LEN: usize = 8;
const V4: usize = IPV4_LEN as usize;
const V6: usize = IPV6_LEN as usize;
/// Bytes of the quoted transport header that every quotation has (RFC 792), ports among them.
const QUOTED_LEN: usize = 8;

/// An ICMP or ICMPv6 error that quotes a TCP or UDP packet or an echo, complete and of the overlay's simple form: no IP
/// options, no extension headers, no fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IcmpError {
    bytes: Vec<u8>,
    is_v4: bool,
    /// Where the quoted IP header begins.
    quoted: usize,
    /// Where the quoted transport header begins.
    transport: usize,
    protocol: u8,
}

impl IcmpError {
    /// Reads an IP packet; nothing if it is none of these.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let is_v4 = match bytes.first()? >> 4 {
            4 => true,
            6 => false,
            _ => return None,
        };
        let (header, protocol) = if is_v4 { (V4, ICMP) } else { (V6, ICMPV6) };
        if carried(bytes)? != (header, protocol) {
            return None;
        }
        let is_error = match *bytes.get(header)? {
            // Destination unreachable, time exceeded, parameter problem.
            3 | 11 | 12 if is_v4 => true,
            // The same, and packet too big.
            1..=4 if !is_v4 => true,
            _ => false,
        };
        let quoted = header + ICMP_LEN;
        let (length, protocol) = carried(bytes.get(quoted..)?)?;
        let transport = quoted + length;
        let is_known = matches!(protocol, TCP | UDP) || protocol == if is_v4 { ICMP } else { ICMPV6 };
        let is_whole = bytes.len() >= transport + QUOTED_LEN;
        let same_family = (bytes[quoted] >> 4 == 4) == is_v4;
        if !(is_error && is_known && is_whole && same_family) {
            return None;
        }
        let error = Self { bytes: bytes.to_vec(), is_v4, quoted, transport, protocol };
        // Whoever sent the quoted packet is told.
        (error.addresses(quoted).0 == error.destination()).then_some(error)
    }

    pub(super) fn source(&self) -> IpAddr {
        self.addresses(0).0
    }

    pub(super) fn destination(&self) -> IpAddr {
        self.addresses(0).1
    }

    /// The answer to the quoted packet, in whose stead this error goes: its addresses and ports.
    pub(super) fn answer(&self) -> Arrival {
        let (source, destination) = self.addresses(self.quoted);
        let (source_port, destination_port) = self.ports();
        Arrival {
            source: destination,
            destination: source,
            source_port: destination_port,
            destination_port: source_port,
            protocol: self.protocol,
        }
    }

    /// Whether it says that nobody takes such packets: nobody listens there, or a firewall refuses them.
    pub(super) fn says_untaken(&self) -> bool {
        let at = self.quoted - ICMP_LEN;
        let (kind, code) = (self.bytes[at], self.bytes[at + 1]);
        // Protocol or port unreachable, prohibited (RFC 1812, 5.2.7.1; RFC 4443, 3.1).
        if self.is_v4 {
            kind == 3 && matches!(code, 2 | 3 | 10 | 13)
        } else {
            kind == 1 && matches!(code, 1 | 4)
        }
    }

    /// Whether the quoted packet is one of UDP.
    pub(super) fn is_about_udp(&self) -> bool {
        self.protocol == UDP
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Makes it an error from `source` to `destination` about a packet from `destination` to `quoted_destination`. All of
    /// one family, that of the packet; else nothing is changed.
    pub(super) fn readdress(&mut self, source: IpAddr, destination: IpAddr, quoted_destination: IpAddr) {
        let of_family = |address: IpAddr| address.is_ipv4() == self.is_v4;
        if ![source, destination, quoted_destination].into_iter().all(of_family) {
            return;
        }
        let outer = self.replace(0, source, destination);
        let inner = self.replace(self.quoted, destination, quoted_destination);
        // What the ICMP checksum is over: the quoted packet, and of IPv6 the addresses too.
        let mut changed = inner;
        if self.is_v4 {
            let checksum = self.update(10, outer);
            self.store(10, checksum);
            changed = self.update_quoted(self.quoted + 10, inner, changed);
        } else {
            changed = changed.and(outer);
        }
        let field = match self.protocol {
            TCP => Some(16),
            UDP => Some(6),
            ICMPV6 if !self.is_v4 => Some(2),
            _ => None,
        };
        if let Some(at) = field.map(|field| self.transport + field).filter(|at| at + 2 <= self.bytes.len()) {
            let absent = self.protocol == UDP && self.load(at) == Be16::new(0);
            if !absent {
                changed = self.update_quoted(at, inner, changed);
            }
        }
        let field = self.quoted - ICMP_LEN + 2;
        let checksum = self.update(field, changed);
        self.store(field, checksum);
    }

    /// Updates a checksum of the quoted packet, which itself is under the ICMP checksum.
    fn update_quoted(&mut self, at: usize, difference: Difference, changed: Difference) -> Difference {
        let (old, mut new) = (self.load(at), self.update(at, difference));
        if self.protocol == UDP && at > self.transport && new == Be16::new(0) {
            // Zero would say that there is none.
            new = Be16::new(0xffff);
        }
        self.store(at, new);
        changed.replace_pair(old.0, new.0)
    }

    fn update(&self, at: usize, difference: Difference) -> Be16 {
        update(self.load(at), difference)
    }

    fn load(&self, at: usize) -> Be16 {
        Be16([self.bytes[at], self.bytes[at + 1]])
    }

    fn store(&mut self, at: usize, value: Be16) {
        self.bytes[at..at + 2].copy_from_slice(&value.0);
    }

    /// Replaces the addresses of the IP header at `at` and gives what has changed.
    fn replace(&mut self, at: usize, source: IpAddr, destination: IpAddr) -> Difference {
        let before = self.addresses(at);
        let mut changed = Difference::NONE;
        for (old, new, second) in [(before.0, source, false), (before.1, destination, true)] {
            match (old, new) {
                (IpAddr::V4(old), IpAddr::V4(new)) => {
                    let place = at + if second { 16 } else { 12 };
                    self.bytes[place..place + 4].copy_from_slice(&new.octets());
                    changed = changed.replace(Ip4(old.octets()), Ip4(new.octets()));
                }
                (IpAddr::V6(old), IpAddr::V6(new)) => {
                    let place = at + if second { 24 } else { 8 };
                    self.bytes[place..place + 16].copy_from_slice(&new.octets());
                    changed = changed.replace6(
                        netmanager_common::wire::Ip::from_octets(old.octets()),
                        netmanager_common::wire::Ip::from_octets(new.octets()),
                    );
                }
                _ => {}
            }
        }
        changed
    }

    /// Source and destination of the IP header at `at`, which has been checked to be there.
    fn addresses(&self, at: usize) -> (IpAddr, IpAddr) {
        if self.is_v4 {
            let address = |place: usize| <[u8; 4]>::try_from(&self.bytes[place..place + 4]).map(IpAddr::from);
            let none = IpAddr::from([0u8; 4]);
            (address(at + 12).unwrap_or(none), address(at + 16).unwrap_or(none))
        } else {
            let address =
                |place: usize| <[u8; 16]>::try_from(&self.bytes[place..place + 16]).map(IpAddr::from);
            let none = IpAddr::from([0u8; 16]);
            (address(at + 8).unwrap_or(none), address(at + 24).unwrap_or(none))
        }
    }

    /// The quoted packet's, as the programs count them: see [`netmanager_common::flow::Ports`].
    fn ports(&self) -> (u16, u16) {
        if matches!(self.protocol, TCP | UDP) {
            return (self.load(self.transport).get(), self.load(self.transport + 2).get());
        }
        let identifier = self.load(self.transport + 4).get();
        // An echo request is 8, in ICMPv6 128; all else is taken for its reply.
        if matches!(self.bytes[self.transport], 8 | 128) { (identifier, 0) } else { (0, identifier) }
    }
}

/// Bytes of the IP header at the beginning, and what it carries; nothing if that is not all there or not that simple.
fn carried(bytes: &[u8]) -> Option<(usize, u8)> {
    match bytes.first()? >> 4 {
        4 => {
            let header = bytes.get(..V4)?;
            let is_first = Be16([header[6], header[7]]).get() & FRAGMENT_OFFSET == 0;
            (header[0] == IPV4_WITHOUT_OPTIONS && is_first).then_some((V4, header[9]))
        }
        6 => bytes.get(..V6).map(|header| (V6, header[6])),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
