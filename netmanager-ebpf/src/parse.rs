//! The inner packet: its headers read once, checked, and kept as a value.

use netmanager_common::checksum::{self, Difference};
use netmanager_common::event::DropReason;
use netmanager_common::flow::Ports;
use netmanager_common::wire::{
    Be16, ECHO_REPLY, ECHO_REQUEST, ICMP, IPV4_LEN, IPV4_WITHOUT_OPTIONS, Ip, Ip4, Ipv4, TCP, UDP, UDP_LEN,
};

use crate::skb::{Skb, TCP_LENGTH_AND_FLAGS};

/// Smallest TCP header.
const TCP_LEN: u16 = 20;

/// A packet of the overlay: TCP, UDP or ICMP echo over IPv4 without options, not fragmented, complete.
pub(crate) struct Packet {
    /// Its header, with what has been rewritten so far; the frame has the old one until it is stored.
    pub(crate) ip: Ipv4,
    /// What has changed in the addresses, for the transport checksum.
    pub(crate) changed: Difference,
    pub(crate) ports: Ports,
    /// Of TCP, else 0.
    pub(crate) tcp_flags: u8,
    /// IP and transport header.
    headers: u16,
}

impl Packet {
    /// Reads the packet whose IPv4 header `ip` was found at `offset`, in a frame that has `available` bytes from
    /// there on.
    #[inline(always)]
    pub(crate) fn parse(skb: &Skb, ip: Ipv4, offset: u16, available: u32) -> Result<Self, DropReason> {
        if ip.version_and_length != IPV4_WITHOUT_OPTIONS {
            let is_ipv4 = ip.version_and_length >> 4 == 4 && ip.version_and_length & 0x0f > 5;
            return Err(if is_ipv4 { DropReason::IpOptions } else { DropReason::Malformed });
        }
        if u32::from(ip.total_length.get()) != available {
            return Err(DropReason::Malformed);
        }
        if ip.is_fragment() {
            return Err(DropReason::Fragment);
        }
        let transport = offset + IPV4_LEN;
        let start: [u8; UDP_LEN as usize] = skb.load(transport).ok_or(DropReason::Malformed)?;
        let (ports, tcp_flags, headers) = match ip.protocol {
            TCP => {
                let [length, flags] =
                    skb.load::<[u8; 2]>(transport + TCP_LENGTH_AND_FLAGS).ok_or(DropReason::Malformed)?;
                let length = u16::from(length >> 4) * 4;
                if length < TCP_LEN || available < u32::from(IPV4_LEN) + u32::from(length) {
                    return Err(DropReason::Malformed);
                }
                (ports(&start), flags, length)
            }
            UDP => (ports(&start), 0, UDP_LEN),
            ICMP => (echo_ports(&start)?, 0, UDP_LEN),
            _ => return Err(DropReason::UnsupportedProtocol),
        };
        Ok(Self { ip, changed: Difference::NONE, ports, tcp_flags, headers: headers + IPV4_LEN })
    }

    #[inline(always)]
    pub(crate) fn source(&self) -> Ip {
        Ip::from_v4(self.ip.source)
    }

    #[inline(always)]
    pub(crate) fn destination(&self) -> Ip {
        Ip::from_v4(self.ip.destination)
    }

    /// Whether each packet that the frame stands for fits into `mtu` bytes.
    #[inline(always)]
    pub(crate) fn fits(&self, skb: &Skb, mtu: u16) -> bool {
        let length = match skb.gso_size() {
            0 => u32::from(self.ip.total_length.get()),
            payload => u32::from(self.headers) + payload,
        };
        length <= u32::from(mtu)
    }

    /// Takes one hop off, as a router does.
    #[inline(always)]
    pub(crate) fn hop(&mut self) -> Result<(), DropReason> {
        if self.ip.ttl <= 1 {
            return Err(DropReason::TtlExpired);
        }
        let ttl = self.ip.ttl - 1;
        let difference =
            Difference::NONE.replace_pair([self.ip.ttl, self.ip.protocol], [ttl, self.ip.protocol]);
        self.ip.checksum = checksum::update(self.ip.checksum, difference);
        self.ip.ttl = ttl;
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn set_source(&mut self, source: Ip4) {
        let difference = Difference::NONE.replace(self.ip.source, source);
        self.changed = self.changed.replace(self.ip.source, source);
        self.ip.checksum = checksum::update(self.ip.checksum, difference);
        self.ip.source = source;
    }

    #[inline(always)]
    pub(crate) fn set_destination(&mut self, destination: Ip4) {
        let difference = Difference::NONE.replace(self.ip.destination, destination);
        self.changed = self.changed.replace(self.ip.destination, destination);
        self.ip.checksum = checksum::update(self.ip.checksum, difference);
        self.ip.destination = destination;
    }
}

#[inline(always)]
fn ports(transport: &[u8; UDP_LEN as usize]) -> Ports {
    let [a, b, c, d, ..] = *transport;
    Ports { source: Be16([a, b]), destination: Be16([c, d]) }
}

#[inline(always)]
fn echo_ports(transport: &[u8; UDP_LEN as usize]) -> Result<Ports, DropReason> {
    let [kind, _, _, _, a, b, ..] = *transport;
    let (identifier, none) = (Be16([a, b]), Be16::new(0));
    match kind {
        ECHO_REQUEST => Ok(Ports { source: identifier, destination: none }),
        ECHO_REPLY => Ok(Ports { source: none, destination: identifier }),
        _ => Err(DropReason::UnsupportedProtocol),
    }
}
