//! The header that the kernel puts before a frame, and takes from us, to say what is still to be done with it: segments
//! to be cut, a checksum to be completed (`linux/virtio_net.h`). In the machine's byte order.

use std::net::{IpAddr, Ipv4Addr};

use netmanager_common::checksum::Difference;
use netmanager_common::wire::{ETHERNET_LEN, IPV4_LEN, TCP, UDP};

use crate::datapath::ip;

/// Bytes before the frame.
pub(crate) const LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP: u8 = 5;
/// A bit beside the type: TCP with ECN.
const GSO_ECN: u8 = 0x80;

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offload {
    /// Where in the frame the transport header begins, and where in that the checksum is, if it is to be completed.
    pub(super) checksum: Option<(u16, u16)>,
    /// Payload bytes of each segment and the protocol to segment by, if there are several.
    pub(super) segments: Option<Segments>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segments {
    kind: u8,
    pub(super) size: u16,
    /// Bytes of the frame before the payload.
    headers: u16,
}

impl Segments {
    /// TCP segments of `size` bytes each behind `headers` bytes.
    pub(super) fn of_tcp(is_v4: bool, size: u16, headers: u16) -> Self {
        Self { kind: if is_v4 { GSO_TCPV4 } else { GSO_TCPV6 }, size, headers }
    }

    pub(super) fn protocol(&self) -> u8 {
        if self.kind == GSO_UDP { UDP } else { TCP }
    }
}

impl Offload {
    /// Nothing where the kernel asks for what we have not said that we can do.
    pub(super) fn read(header: [u8; LEN]) -> Option<Self> {
        let [flags, kind, a, b, c, d, e, f, g, h] = header;
        let [headers, size, start, offset] = [[a, b], [c, d], [e, f], [g, h]].map(u16::from_ne_bytes);
        let checksum = (flags & NEEDS_CHECKSUM != 0).then_some((start, offset));
        let segments = match kind & !GSO_ECN {
            0 => None,
            GSO_TCPV4 | GSO_TCPV6 | GSO_UDP if size > 0 && checksum.is_some() => {
                Some(Segments { kind, size, headers })
            }
            _ => return None,
        };
        Some(Self { checksum, segments })
    }

    /// Of a TCP super-packet over IPv4 without options, with `headers` bytes before the payload.
    pub(crate) fn of_tcp_super_packet(size: u16, headers: u16) -> Self {
        let transport = ETHERNET_LEN + IPV4_LEN;
        Self { checksum: Some((transport, 16)), segments: Some(Segments::of_tcp(true, size, headers)) }
    }

    /// Of a TCP packet over IPv4 without options whose checksum is to be completed.
    pub(crate) fn of_tcp_checksum() -> Self {
        Self { segments: None, ..Self::of_tcp_super_packet(0, 0) }
    }

    pub(crate) fn bytes(&self) -> [u8; LEN] {
        let (flags, (start, offset)) = self.checksum.map_or((0, (0, 0)), |place| (NEEDS_CHECKSUM, place));
        let (kind, size, headers) = self.segments.map_or((0, 0, 0), |it| (it.kind, it.size, it.headers));
        let ([a, b], [c, d]) = (headers.to_ne_bytes(), size.to_ne_bytes());
        let ([e, f], [g, h]) = (start.to_ne_bytes(), offset.to_ne_bytes());
        [flags, kind, a, b, c, d, e, f, g, h]
    }
}

/// Leaves the checksum of a frame of TCP over IPv4 without options to be completed, as a kernel does that leaves it to a NIC.
/// What is too short for one stays as it is.
pub(crate) fn leave_open(frame: &mut [u8]) {
    const IP: usize = ETHERNET_LEN as usize;
    const TRANSPORT: usize = IP + IPV4_LEN as usize;
    const CHECKSUM: usize = TRANSPORT + 16;
    let address = |at: usize| -> Option<_> {
        let octets: [u8; 4] = *frame.get(IP + at..)?.first_chunk()?;
        Some(ip(IpAddr::V4(Ipv4Addr::from(octets))))
    };
    let carried = frame.len().checked_sub(TRANSPORT).and_then(|length| u16::try_from(length).ok());
    let (Some(source), Some(destination), Some(carried)) = (address(12), address(16), carried) else {
        return;
    };
    let open = Difference::NONE.and_pseudo_header(source, destination, TCP, carried).leave_open();
    if let Some(place) = frame.get_mut(CHECKSUM..CHECKSUM + 2) {
        place.copy_from_slice(&open.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{LEN, Offload, Segments};

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let plain = Offload::default();
        let open = Offload { checksum: Some((34, 6)), segments: None };
        let super_packet =
            Offload { checksum: Some((34, 16)), segments: Some(Segments::of_tcp(true, 1398, 66)) };
        for offload in [plain, open, super_packet] {
            assert_eq!(Offload::read(offload.bytes()), Some(offload));
        }
    }

    #[test]
    fn segments_without_an_open_checksum_or_of_an_unknown_kind_are_not_taken() {
        let mut header = [0; LEN];
        header[1] = 1;
        header[4..6].copy_from_slice(&1000u16.to_ne_bytes());
        assert_eq!(Offload::read(header), None);
        header[0] = 1;
        assert!(Offload::read(header).is_some());
        header[1] = 3;
        assert_eq!(Offload::read(header), None);
    }
}
