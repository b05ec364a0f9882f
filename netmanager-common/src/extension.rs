//! The extension headers of IPv6 (RFC 8200, 4): one walk over them, for packets of the overlay and for all others.

use crate::event::DropReason;
use crate::header::{Part, Transport};
use crate::packet::Frame;
use crate::wire::{Be16, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, IPV6_LEN, ROUTING};

/// Extension headers that are looked behind.
const MAX_EXTENSIONS: u32 = 4;
/// In the fragment header: more fragments follow, and what is the fragment's offset.
const MORE: u16 = 1;
const OFFSET: u16 = !7;

/// What stands behind the extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// What follows them; of a later fragment what the fragment header says.
    pub transport: Transport,
    /// Which part of its datagram the packet is.
    pub part: Part,
    /// Whether the addresses of the IPv6 header can be replaced: no header is where its receiver would refuse it, no
    /// routing header names another last receiver (over whose address the checksum is), and none stands behind a
    /// fragment header, where later fragments do not show it.
    pub is_translatable: bool,
}

/// Whether this is the number of an extension header that can be looked behind.
#[must_use]
#[inline(always)]
pub const fn is_one(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT)
}

impl Behind {
    /// Of a packet without extension headers, whose IPv6 header says that `protocol` follows.
    #[must_use]
    #[inline(always)]
    pub const fn none(protocol: u8) -> Self {
        let transport = Transport { offset: IPV6_LEN, protocol };
        Self { transport, part: Part::Whole, is_translatable: true }
    }
}

/// What [`walk`] has found, in one word: a function of BPF gives no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed(pub u64);

impl Packed {
    const ERROR: u64 = 1 << 63;
    const FIRST: u64 = 1 << 62;
    const LATER: u64 = 1 << 61;
    const TRANSLATABLE: u64 = 1 << 60;

    /// Packs it.
    #[must_use]
    #[inline(always)]
    pub const fn new(found: Result<Behind, DropReason>) -> Self {
        let Behind { transport, part, is_translatable } = match found {
            Ok(found) => found,
            Err(DropReason::Malformed) => return Self(Self::ERROR),
            Err(_too_many) => return Self(Self::ERROR | 1),
        };
        let part = match part {
            Part::Whole => 0,
            Part::First(number) => Self::FIRST | number as u64,
            Part::Later(number) => Self::LATER | number as u64,
        };
        let translatable = if is_translatable { Self::TRANSLATABLE } else { 0 };
        Self(part | translatable | (transport.offset as u64) << 32 | (transport.protocol as u64) << 48)
    }

    /// What was packed.
    ///
    /// # Errors
    /// As [`walk`].
    #[expect(clippy::cast_possible_truncation, reason = "each part is taken out by its width")]
    #[inline(always)]
    pub const fn unpack(self) -> Result<Behind, DropReason> {
        let Self(word) = self;
        if word & Self::ERROR != 0 {
            return Err(if word & 1 == 0 { DropReason::Malformed } else { DropReason::ExtensionHeaders });
        }
        let part = if word & Self::FIRST != 0 {
            Part::First(word as u32)
        } else if word & Self::LATER != 0 {
            Part::Later(word as u32)
        } else {
            Part::Whole
        };
        let transport = Transport { offset: (word >> 32) as u16, protocol: (word >> 48) as u8 };
        Ok(Behind { transport, part, is_translatable: word & Self::TRANSLATABLE != 0 })
    }
}

/// Looks behind the extension headers of a packet whose IPv6 header is at `offset` of the frame and says that `first`
/// follows.
///
/// # Errors
/// `Malformed` when the frame ends before they do, `ExtensionHeaders` when there are too many: what stands behind could
/// then be anything.
#[inline(always)]
pub fn walk(frame: &impl Frame, offset: u16, first: u8) -> Result<Behind, DropReason> {
    let mut found = Transport { offset: IPV6_LEN, protocol: first };
    let (mut part, mut is_translatable) = (Part::Whole, true);
    for _ in 0..=MAX_EXTENSIONS {
        if !is_one(found.protocol) {
            return Ok(Behind { transport: found, part, is_translatable });
        }
        let is_fragment = found.protocol == FRAGMENT;
        let at = offset.wrapping_add(found.offset);
        let [next, length, a, b]: [u8; 4] = frame.load(at).ok_or(DropReason::Malformed)?;
        let is_misplaced = match found.protocol {
            // Only the first header may be this one.
            HOP_BY_HOP => found.offset != IPV6_LEN,
            // Stations are left.
            ROUTING => b != 0,
            _ => false,
        };
        if is_misplaced || part != Part::Whole {
            is_translatable = false;
        }
        found.protocol = next;
        if !is_fragment {
            found.offset += (u16::from(length) + 1) * 8;
            continue;
        }
        found.offset += 8;
        let field = Be16([a, b]).get();
        // A datagram in one fragment is whole (RFC 6946).
        if field & (OFFSET | MORE) != 0 {
            let number: [u8; 4] = frame.load(at.wrapping_add(4)).ok_or(DropReason::Malformed)?;
            let number = u32::from_ne_bytes(number);
            if field & OFFSET != 0 {
                let part = Part::Later(number);
                return Ok(Behind { transport: found, part, is_translatable });
            }
            part = Part::First(number);
        }
    }
    Err(DropReason::ExtensionHeaders)
}

#[cfg(test)]
mod tests {
    use super::{Behind, Packed, walk};
    use crate::event::DropReason;
    use crate::flow::Ports;
    use crate::header::{Header, Part, Transport};
    use crate::packet::Frame;
    use crate::wire::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, UDP, Wire};
    use proptest::prelude::*;

    const NUMBER: [u8; 4] = [1, 2, 3, 4];

    struct Bytes(Vec<u8>);

    impl Frame for Bytes {
        fn load<T: Wire>(&self, offset: u16) -> Option<T> {
            let bytes = self.0.get(usize::from(offset)..)?.get(..size_of::<T>())?;
            // SAFETY: as many bytes are there, and any bytes are a value (`Wire`).
            Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
        }

        fn gso_size(&self) -> u32 {
            0
        }

        fn remember<H: Header>(&self, _: &H, _: u32, _: u8, _: Ports) -> Result<(), DropReason> {
            Ok(())
        }

        fn ports<H: Header>(&self, _: &H, _: u32, _: u8) -> Result<Ports, DropReason> {
            Err(DropReason::Fragment)
        }
    }

    /// Walks over these headers of eight bytes, each with what stands behind its first byte, in front of UDP.
    fn over(headers: &[(u8, [u8; 7])]) -> Result<Behind, DropReason> {
        let mut bytes = vec![0; 40];
        let next = headers.iter().map(|(kind, _)| *kind).skip(1).chain([UDP]);
        for ((_, rest), next) in headers.iter().zip(next) {
            bytes.push(next);
            bytes.extend(rest);
        }
        walk(&Bytes(bytes), 0, headers.first().map_or(UDP, |(kind, _)| *kind))
    }

    fn fragment(offset_and_more: u16) -> (u8, [u8; 7]) {
        let ([a, b], [c, d, e, f]) = (offset_and_more.to_be_bytes(), NUMBER);
        (FRAGMENT, [0, a, b, c, d, e, f])
    }

    fn behind(headers: u16, part: Part, is_translatable: bool) -> Result<Behind, DropReason> {
        Ok(Behind { transport: Transport { offset: 40 + 8 * headers, protocol: UDP }, part, is_translatable })
    }

    const OPTIONS: (u8, [u8; 7]) = (DESTINATION_OPTIONS, [0; 7]);
    const HOPS: (u8, [u8; 7]) = (HOP_BY_HOP, [0; 7]);

    #[test]
    fn up_to_four_headers_are_looked_behind() {
        assert_eq!(over(&[]), behind(0, Part::Whole, true));
        assert_eq!(over(&[HOPS, (ROUTING, [0; 7]), OPTIONS, OPTIONS]), behind(4, Part::Whole, true));
        assert_eq!(over(&[OPTIONS; 5]), Err(DropReason::ExtensionHeaders));
    }

    #[test]
    fn a_header_may_be_longer_than_eight_bytes() {
        let mut bytes = vec![0; 40 + 24];
        bytes[40..42].copy_from_slice(&[UDP, 2]);
        let found = walk(&Bytes(bytes), 0, DESTINATION_OPTIONS).unwrap();
        assert_eq!(found.transport, Transport { offset: 64, protocol: UDP });
    }

    #[test]
    fn what_its_receiver_refuses_or_what_names_another_one_is_not_translated() {
        assert_eq!(over(&[OPTIONS, HOPS]), behind(2, Part::Whole, false));
        assert_eq!(over(&[(ROUTING, [0, 0, 1, 0, 0, 0, 0])]), behind(1, Part::Whole, false));
        assert_eq!(over(&[fragment(1), OPTIONS]), behind(2, Part::First(u32::from_ne_bytes(NUMBER)), false));
    }

    #[test]
    fn fragments_have_their_datagrams_number() {
        let number = u32::from_ne_bytes(NUMBER);
        assert_eq!(over(&[fragment(1)]), behind(1, Part::First(number), true));
        assert_eq!(over(&[OPTIONS, fragment(8)]), behind(2, Part::Later(number), true));
        assert_eq!(over(&[fragment(8 | 1)]), behind(1, Part::Later(number), true));
        assert_eq!(over(&[fragment(0)]), behind(1, Part::Whole, true), "all of it");
        // What follows is not there.
        let later = over(&[fragment(8), OPTIONS]).unwrap();
        assert_eq!(later.transport, Transport { offset: 48, protocol: DESTINATION_OPTIONS });
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out(offset: u16, protocol: u8, number: u32, kind in 0usize..3, is_translatable: bool) {
            let part = [Part::Whole, Part::First(number), Part::Later(number)][kind];
            let found = Ok(Behind { transport: Transport { offset, protocol }, part, is_translatable });
            prop_assert_eq!(Packed::new(found).unpack(), found);
        }

        #[test]
        fn whatever_comes_the_walk_ends_within_the_frame(bytes in proptest::collection::vec(any::<u8>(), 40..200), first: u8) {
            let length = bytes.len();
            let found = walk(&Bytes(bytes), 0, first);
            prop_assert_eq!(Packed::new(found).unpack(), found);
            match found {
                Ok(found) => prop_assert!(usize::from(found.transport.offset) <= length + 256 * 8),
                Err(reason) => prop_assert!(matches!(reason, DropReason::Malformed | DropReason::ExtensionHeaders)),
            }
        }
    }
}
