//! The inner packet: its headers read once, checked, and kept as a value.

use crate::checksum::Difference;
use crate::event::DropReason;
use crate::extension::{self, Behind};
use crate::flow::{self, Ports};
use crate::header::{Header, Part, Transport};
use crate::map::FlowKey;
use crate::wire::{Be16, Ip, TCP, TCP_LEN, TCP_LENGTH_AND_FLAGS, UDP, UDP_LEN, Wire};

/// The memory that a packet lies in, and what else its bearer knows: the kernel's buffer, or one of our own.
pub trait Frame {
    /// Copies out what lies at `offset`; nothing when the frame ends before.
    fn load<T: Wire>(&self, offset: u16) -> Option<T>;

    /// Payload bytes of each packet that this frame stands for, when it stands for several; else 0.
    fn gso_size(&self) -> u32;

    /// Looks behind the extension headers of IPv6 as [`extension::walk`] does.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn behind_extensions(&self, offset: u16, first: u8) -> Result<Behind, DropReason>
    where
        Self: Sized,
    {
        extension::walk(self, offset, first)
    }

    /// Notes the ports of a datagram whose first fragment this is.
    ///
    /// # Errors
    /// When there is no room.
    fn remember<H: Header>(
        &self,
        ip: &H,
        identification: u32,
        protocol: u8,
        ports: Ports,
    ) -> Result<(), DropReason>;

    /// The ports of a datagram of which this is a later fragment.
    ///
    /// # Errors
    /// When its first one has not come before it.
    fn ports<H: Header>(&self, ip: &H, identification: u32, protocol: u8) -> Result<Ports, DropReason>;
}

/// A packet of the overlay: TCP, UDP or ICMP echo, whole or a fragment; over IPv4 without options, or over IPv6 with few
/// extension headers.
#[derive(Debug)]
pub struct Packet<H> {
    /// Its header, with what has been rewritten so far; the frame has the old one until it is stored.
    pub ip: H,
    /// What has changed in the addresses, for the transport checksum.
    changed: Difference,
    /// What it carries.
    pub transport: Transport,
    /// As the flow's key has them.
    pub ports: Ports,
    /// Has no transport header, hence no checksum.
    is_later_fragment: bool,
    /// Of TCP, else 0.
    pub tcp_flags: u8,
    /// IP and transport header.
    headers: u16,
}

impl<H: Header> Packet<H> {
    /// Reads the packet whose IP header `ip` was found at `offset`, in a frame that has `available` bytes from there
    /// on.
    ///
    /// # Errors
    /// When it is none of the overlay's, or broken.
    #[inline(always)]
    pub fn parse(frame: &impl Frame, ip: H, offset: u16, available: u32) -> Result<Self, DropReason> {
        let (transport, part) = ip.transport(frame, offset)?;
        if ip.length() != available {
            return Err(DropReason::Malformed);
        }
        if let Part::Later(identification) = part {
            let ports = frame.ports(&ip, identification, transport.protocol)?;
            let headers = transport.offset;
            return Ok(Self {
                ip,
                changed: Difference::NONE,
                transport,
                ports,
                is_later_fragment: true,
                tcp_flags: 0,
                headers,
            });
        }
        let at = offset.wrapping_add(transport.offset);
        let start: [u8; UDP_LEN as usize] = frame.load(at).ok_or(DropReason::Malformed)?;
        let (ports, tcp_flags, length) = match transport.protocol {
            TCP => {
                let [length, flags] =
                    frame.load::<[u8; 2]>(at + TCP_LENGTH_AND_FLAGS).ok_or(DropReason::Malformed)?;
                let length = u16::from(length >> 4) * 4;
                if length < TCP_LEN {
                    return Err(DropReason::Malformed);
                }
                (ports(&start), flags, length)
            }
            UDP => (ports(&start), 0, UDP_LEN),
            icmp if icmp == H::ICMP => (echo_ports::<H>(&start)?, 0, UDP_LEN),
            _ => return Err(DropReason::UnsupportedProtocol),
        };
        let headers = transport.offset + length;
        if available < u32::from(headers) {
            return Err(DropReason::Malformed);
        }
        if let Part::First(identification) = part {
            frame.remember(&ip, identification, transport.protocol, ports)?;
        }
        Ok(Self {
            ip,
            changed: Difference::NONE,
            transport,
            ports,
            is_later_fragment: false,
            tcp_flags,
            headers,
        })
    }

    /// A packet whose content does not matter, since none of it is translated.
    #[must_use]
    #[inline(always)]
    pub fn opaque(ip: H) -> Self {
        let transport = Transport { offset: H::LEN, protocol: 0 };
        Self {
            ip,
            changed: Difference::NONE,
            transport,
            ports: Ports::NONE,
            is_later_fragment: false,
            tcp_flags: 0,
            headers: H::LEN,
        }
    }

    /// Whether a packet that cannot be parsed for this reason may be carried by NsIP, as opaque: there is nothing wrong
    /// with it.
    #[must_use]
    #[inline(always)]
    pub fn may_be_opaque(reason: DropReason) -> bool {
        matches!(reason, DropReason::UnsupportedProtocol | DropReason::Fragment)
    }

    /// Whether it was made by [`Self::opaque`].
    #[must_use]
    #[inline(always)]
    pub fn is_opaque(&self) -> bool {
        self.transport.protocol == 0
    }

    /// IP protocol number; 0 of an opaque packet.
    #[must_use]
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.transport.protocol
    }

    /// The key of the flow that the packet arrives on.
    #[must_use]
    #[inline(always)]
    pub fn arrival_key(&self) -> FlowKey {
        flow::arrival_key(self.ip.source(), self.ip.destination(), self.ports, self.protocol())
    }

    /// Whether each packet that the frame stands for fits into `mtu` bytes.
    #[must_use]
    #[inline(always)]
    pub fn fits(&self, frame: &impl Frame, mtu: u16) -> bool {
        let length = match frame.gso_size() {
            0 => self.ip.length(),
            payload => u32::from(self.headers) + payload,
        };
        length <= u32::from(mtu)
    }

    /// What its transport checksum must be told of.
    #[must_use]
    #[inline(always)]
    pub fn change_of_checksum(&self) -> Difference {
        if self.is_later_fragment { Difference::NONE } else { self.changed }
    }

    /// Replaces the sender.
    #[inline(always)]
    pub fn set_source(&mut self, source: Ip) {
        self.changed = H::replaced(self.changed, self.ip.source(), source);
        self.ip.set_source(source);
    }

    /// Replaces the receiver.
    #[inline(always)]
    pub fn set_destination(&mut self, destination: Ip) {
        self.changed = H::replaced(self.changed, self.ip.destination(), destination);
        self.ip.set_destination(destination);
    }
}

#[inline(always)]
fn ports(transport: &[u8; UDP_LEN as usize]) -> Ports {
    let [a, b, c, d, ..] = *transport;
    Ports { source: Be16([a, b]), destination: Be16([c, d]) }
}

#[inline(always)]
fn echo_ports<H: Header>(transport: &[u8; UDP_LEN as usize]) -> Result<Ports, DropReason> {
    let [kind, _, _, _, a, b, ..] = *transport;
    let (identifier, none) = (Be16([a, b]), Be16::new(0));
    if kind == H::ECHO_REQUEST {
        Ok(Ports { source: identifier, destination: none })
    } else if kind == H::ECHO_REPLY {
        Ok(Ports { source: none, destination: identifier })
    } else {
        Err(DropReason::UnsupportedProtocol)
    }
}
