//! TCP segments that arrive one behind the other, merged into one super-packet for the container, as the kernel's GRO
//! does for a NIC. What is merged is what a container's kernel would see anyway: each segment is complete, its checksum
//! right, and its headers differ only in what segmentation makes different.

use netmanager_common::checksum::{Difference, update};
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, FRAGMENT_OFFSET, IPV4_WITHOUT_OPTIONS, MORE_FRAGMENTS, TCP, TCP_ACK,
};

use super::outgoing::Part;
use super::segment::addresses;
use super::virtio::{Offload, Segments};

const TCP_PSH: u8 = 0x08;
/// What an IP packet can hold.
const MOST_BYTES: usize = 65_535;

/// A complete segment with payload, of the kind that may be merged.
#[derive(Debug, Clone, Copy)]
struct Segment {
    is_v4: bool,
    /// Bytes of the IP header.
    ip: usize,
    /// Bytes of both headers.
    headers: usize,
    sequence: u32,
    payload: usize,
    pushes: bool,
}

/// Segments that belong together: the first one, and the payload of the others.
#[derive(Debug)]
pub(super) struct Run {
    first: Segment,
    /// Headers of the first one.
    headers: Vec<u8>,
    pub(super) payload: Vec<Part>,
    bytes: usize,
    next: u32,
    pushes: bool,
    ended: bool,
}

impl Run {
    /// Begins with `packet`, which lies in a buffer at `place`; nothing if it is not to be merged with any.
    pub(super) fn begin(packet: &[u8], place: Part) -> Option<Self> {
        let first = Segment::read(packet)?;
        let mut run = Self {
            first,
            headers: packet[..first.headers].to_vec(),
            payload: Vec::with_capacity(MOST_BYTES / first.payload.max(1) + 1),
            bytes: first.headers,
            next: first.sequence,
            pushes: false,
            ended: false,
        };
        run.take(first, place);
        Some(run)
    }

    /// Takes the next packet, if it continues the run.
    pub(super) fn extend(&mut self, packet: &[u8], place: Part) -> bool {
        if self.ended || packet.len() > self.first.headers + self.first.payload {
            return false;
        }
        let Some(segment) = Segment::read(packet) else { return false };
        let continues = segment.sequence == self.next
            && self.bytes + segment.payload <= MOST_BYTES
            && self.same_headers(packet, &segment);
        if continues {
            self.take(segment, place);
        }
        continues
    }

    /// How many segments there are.
    pub(super) fn count(&self) -> usize {
        self.payload.len()
    }

    /// The packets as they came.
    pub(super) fn packets(&self) -> impl Iterator<Item = Part> {
        let headers = self.first.headers;
        self.payload.iter().map(move |part| Part {
            start: part.start - headers,
            length: part.length + headers,
            ..*part
        })
    }

    /// The headers of the super-packet, with the checksum left open, and what is to be said of it.
    pub(super) fn finish(&mut self) -> (&[u8], Offload) {
        let Segment { is_v4, ip, headers, payload, .. } = self.first;
        let total = u16::try_from(self.bytes).unwrap_or(u16::MAX);
        let carried = u16::try_from(self.bytes - ip).unwrap_or(u16::MAX);
        let (source, destination) = addresses(&self.headers, is_v4);
        if is_v4 {
            let old = [self.headers[2], self.headers[3]];
            let changed = Difference::NONE.replace_pair(old, total.to_be_bytes());
            let sum = update(Be16([self.headers[10], self.headers[11]]), changed);
            self.headers[2..4].copy_from_slice(&total.to_be_bytes());
            self.headers[10..12].copy_from_slice(&sum.0);
        } else {
            self.headers[4..6].copy_from_slice(&carried.to_be_bytes());
        }
        if self.pushes {
            self.headers[ip + 13] |= TCP_PSH;
        }
        let open = Difference::NONE.and_pseudo_header(source, destination, TCP, carried).leave_open();
        self.headers[ip + 16..ip + 18].copy_from_slice(&open.0);
        // Both are of a packet that fits into 16 bits.
        let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let offload = Offload {
            checksum: Some((ETHERNET_LEN + short(ip), 16)),
            segments: Some(Segments::of_tcp(is_v4, short(payload), ETHERNET_LEN + short(headers))),
        };
        (&self.headers, offload)
    }

    fn take(&mut self, segment: Segment, place: Part) {
        let start = place.start + segment.headers;
        self.payload.push(Part { start, length: segment.payload, ..place });
        self.bytes += segment.payload;
        #[expect(clippy::cast_possible_truncation, reason = "less than 65,536")]
        let length = segment.payload as u32;
        self.next = self.next.wrapping_add(length);
        self.pushes |= segment.pushes;
        // A shorter one can only be the last, and what is pushed is not to wait.
        self.ended = segment.pushes || segment.payload < self.first.payload;
    }

    /// Whether the headers are those of the first one, but for lengths, numbers and checksums.
    fn same_headers(&self, packet: &[u8], segment: &Segment) -> bool {
        let Segment { is_v4, ip, headers, .. } = self.first;
        if (segment.is_v4, segment.headers) != (is_v4, headers) {
            return false;
        }
        let same = |from: usize, to: usize| self.headers[from..to] == packet[from..to];
        let flags = |headers: &[u8]| headers[ip + 13] & !TCP_PSH;
        let same_ip =
            if is_v4 { same(0, 2) && same(6, 10) && same(12, 20) } else { same(0, 4) && same(6, 40) };
        same_ip
            // Ports; the acknowledgement; the length; the window; the options.
            && same(ip, ip + 4)
            && same(ip + 8, ip + 13)
            && flags(&self.headers) == flags(packet)
            && same(ip + 14, ip + 16)
            && same(ip + 18, headers)
    }
}

impl Segment {
    fn read(packet: &[u8]) -> Option<Self> {
        let is_v4 = packet.first()? >> 4 == 4;
        let (ip, protocol, total) = if is_v4 {
            let header: &[u8; 20] = packet.first_chunk()?;
            let part = u16::from_be_bytes([header[6], header[7]]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
            if header[0] != IPV4_WITHOUT_OPTIONS || part != 0 {
                return None;
            }
            (20, header[9], usize::from(u16::from_be_bytes([header[2], header[3]])))
        } else {
            let header: &[u8; 40] = packet.first_chunk()?;
            (40, header[6], usize::from(u16::from_be_bytes([header[4], header[5]])) + 40)
        };
        let header: &[u8; 20] = packet.get(ip..)?.first_chunk()?;
        let headers = ip + usize::from(header[12] >> 4) * 4;
        let flags = header[13];
        // No connection begins or ends with it, nothing is urgent, no congestion is told of.
        let is_data = protocol == TCP && flags & !TCP_PSH == TCP_ACK && headers >= ip + 20;
        if !is_data || total != packet.len() || packet.len() <= headers {
            return None;
        }
        let carried = u16::try_from(packet.len() - ip).ok()?;
        let (source, destination) = addresses(packet, is_v4);
        let sum = Difference::NONE.and_pseudo_header(source, destination, TCP, carried);
        if sum.and_bytes(&packet[ip..]).finish() != Be16::new(0) {
            return None;
        }
        Some(Self {
            is_v4,
            ip,
            headers,
            sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            payload: packet.len() - headers,
            pushes: flags & TCP_PSH != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use netmanager_common::wire::TCP;
    use proptest::prelude::*;

    use super::{Part, Run};
    use crate::userspace::segment;

    fn packet(sequence: u32, payload: &[u8], psh: bool, v6: bool) -> Vec<u8> {
        let builder = if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 64)
        } else {
            PacketBuilder::ipv4([10, 30, 0, 9], [10, 18, 0, 2], 64)
        };
        let builder = builder.tcp(80, 4000, sequence, 1000).ack(7);
        let builder = if psh { builder.psh() } else { builder };
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        bytes
    }

    fn place(packet: &[u8]) -> Part {
        Part { input: Some(0), start: 0, length: packet.len() }
    }

    proptest! {
        /// What a super-packet is cut into is merged into the same super-packet again.
        #[test]
        fn merging_undoes_cutting(
            bytes in proptest::collection::vec(any::<u8>(), 1..20_000), size in 100u16..1500, psh: bool, v6: bool
        ) {
            let whole = packet(99, &bytes, psh, v6);
            let mut pieces = Vec::new();
            let transport = if v6 { 40 } else { 20 };
            segment::cut(&whole, transport, TCP, size, |headers, part| {
                pieces.push([headers, &whole[part.start..part.start + part.length]].concat());
            })
            .unwrap();
            let mut run = Run::begin(&pieces[0], place(&pieces[0])).unwrap();
            for piece in &pieces[1..] {
                prop_assert!(run.extend(piece, place(piece)));
            }
            prop_assert_eq!(run.count(), pieces.len());
            let carried: Vec<u8> = run
                .payload
                .iter()
                .zip(&pieces)
                .flat_map(|(part, piece)| piece[part.start..part.start + part.length].to_vec())
                .collect();
            let (headers, offload) = run.finish();
            let mut merged = [headers, carried.as_slice()].concat();
            let (start, offset) = offload.checksum.unwrap();
            segment::complete(&mut merged, (start - 14, offset)).unwrap();
            prop_assert_eq!(merged, whole);
        }
    }

    #[test]
    fn what_does_not_continue_is_not_merged() {
        let first = packet(100, &[1; 200], false, false);
        let run = || Run::begin(&first, place(&first)).unwrap();
        let next = packet(300, &[2; 200], false, false);
        assert!(run().extend(&next, place(&next)));

        for (what, other) in [
            ("a gap", packet(301, &[2; 200], false, false)),
            ("a longer one", packet(300, &[2; 201], false, false)),
            ("no payload", packet(300, &[], false, false)),
            ("another family", packet(300, &[2; 180], false, true)),
        ] {
            assert!(!run().extend(&other, place(&other)), "{what}");
        }
        for at in [1, 8, 12, 16, 20, 23, 28, 33, 34, 36, 40, 100] {
            let mut other = next.clone();
            other[at] ^= 0x11;
            assert!(!run().extend(&other, place(&other)), "byte {at} differs, and with it the checksum");
        }
        let mut run = run();
        let short = packet(300, &[2; 100], false, false);
        assert!(run.extend(&short, place(&short)));
        let behind = packet(400, &[2; 100], false, false);
        assert!(!run.extend(&behind, place(&behind)), "a short one is the last");
    }
}
