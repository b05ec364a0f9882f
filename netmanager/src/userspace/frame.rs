//! One frame in our memory, as far as it must lie in one piece: all of it, or of a merged one its headers.

use netmanager_common::checksum::{self, Difference};
use netmanager_common::event::DropReason;
use netmanager_common::flow::{self, Ports};
use netmanager_common::header::{self, Header, Transport};
use netmanager_common::map::{FragmentKey, FragmentPorts};
use netmanager_common::packet;
use netmanager_common::wire::{Be16, ETHERNET_LEN, UDP, Wire};

use super::flows::Fragments;
use super::moment::Moment;

/// A frame, Ethernet header first.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) bytes: &'a mut [u8],
    /// Bytes of the frame, those included that lie elsewhere.
    pub(super) length: u32,
    /// Payload bytes of each packet that it stands for, when it stands for several; else 0.
    pub(super) gso_size: u16,
    /// The transport checksum's field holds only the sum of the pseudo header; the rest is left to whoever sends it on.
    pub(super) open_checksum: bool,
    /// Where it has arrived first.
    pub(super) ifindex: u32,
    pub(super) fragments: &'a Fragments,
    pub(super) now: Moment,
}

impl Frame<'_> {
    /// Bytes behind the Ethernet header.
    pub(super) fn available(&self) -> u32 {
        self.length.wrapping_sub(ETHERNET_LEN.into())
    }

    pub(super) fn load<T: Wire>(&self, offset: u16) -> Option<T> {
        let bytes = self.bytes.get(usize::from(offset)..)?.get(..size_of::<T>())?;
        // SAFETY: as many bytes are there, and any bytes are a value (`Wire`).
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    pub(super) fn store<T: Wire>(&mut self, offset: u16, value: &T) -> Result<(), DropReason> {
        let place = self.bytes.get_mut(usize::from(offset)..).and_then(|rest| rest.get_mut(..size_of::<T>()));
        let place = place.ok_or(DropReason::KernelRefused)?;
        // SAFETY: as many bytes are there, and a value has no padding (`Wire`).
        unsafe { place.as_mut_ptr().cast::<T>().write_unaligned(*value) };
        Ok(())
    }

    /// Tells the transport checksum that addresses of its pseudo header have changed, in the way that its state needs:
    /// complete, or open, or absent (a UDP checksum of 0 stays 0).
    pub(super) fn update_checksum(
        &mut self,
        transport: &Transport,
        difference: Difference,
    ) -> Result<(), DropReason> {
        if difference == Difference::NONE {
            return Ok(());
        }
        let Some(field) = header::checksum_offset(transport.protocol) else { return Ok(()) };
        let at = ETHERNET_LEN.wrapping_add(transport.offset).wrapping_add(field);
        let old = Be16(self.load(at).ok_or(DropReason::KernelRefused)?);
        let is_udp = transport.protocol == UDP;
        if is_udp && old == Be16::new(0) {
            return Ok(());
        }
        let new = if self.open_checksum {
            checksum::update_open(old, difference)
        } else {
            checksum::update(old, difference)
        };
        self.store(at, &if is_udp && new == Be16::new(0) { [0xff; 2] } else { new.0 })
    }

    fn fragment_key<H: Header>(&self, ip: &H, identification: u32, protocol: u8) -> FragmentKey {
        FragmentKey {
            ifindex: self.ifindex,
            source: ip.source(),
            destination: ip.destination(),
            identification,
            protocol: protocol.into(),
        }
    }
}

impl packet::Frame for Frame<'_> {
    fn load<T: Wire>(&self, offset: u16) -> Option<T> {
        Frame::load(self, offset)
    }

    fn gso_size(&self) -> u32 {
        self.gso_size.into()
    }

    fn remember<H: Header>(
        &self,
        ip: &H,
        identification: u32,
        protocol: u8,
        ports: Ports,
    ) -> Result<(), DropReason> {
        let Ports { source, destination } = ports;
        let first = FragmentPorts { source, destination, since: self.now.seconds() };
        self.fragments.insert(self.fragment_key(ip, identification, protocol), first);
        Ok(())
    }

    fn ports<H: Header>(&self, ip: &H, identification: u32, protocol: u8) -> Result<Ports, DropReason> {
        match self.fragments.get(&self.fragment_key(ip, identification, protocol)) {
            Some(first) if flow::idle(self.now.seconds(), first.since) <= flow::FRAGMENTS_LIFETIME => {
                Ok(Ports { source: first.source, destination: first.destination })
            }
            _ => Err(DropReason::Fragment),
        }
    }
}
