//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are of words as they lie in memory: ones' complement addition gives the same bytes in either byte order, so
//! nothing is ever swapped.

use crate::wire::{Be16, Ip, Ip4, Ipv4};

/// What has changed below a checksum: the ones' complement sum of all new words and of the complements of the old
/// ones. The same as the kernel's `__wsum` difference, which `bpf_l4_csum_replace` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Difference(u32);

impl Difference {
    /// Nothing has changed.
    pub const NONE: Self = Self(0);

    /// Adds that an address has been replaced.
    #[must_use]
    #[inline(always)]
    pub const fn replace(self, old: Ip4, new: Ip4) -> Self {
        Self(add(add(self.0, !old.word()), new.word()))
    }

    /// The same of an IPv6 address.
    #[must_use]
    #[inline(always)]
    pub const fn replace6(self, old: Ip, new: Ip) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (old.words(), new.words());
        let sum = add(add(add(add(self.0, !a), !b), !c), !d);
        Self(add(add(add(add(sum, e), f), g), h))
    }

    /// Adds that a pair of neighbouring bytes at an even offset has been replaced.
    #[must_use]
    #[inline(always)]
    pub const fn replace_pair(self, old: [u8; 2], new: [u8; 2]) -> Self {
        Self(add(add(self.0, word(old) ^ 0xffff), word(new)))
    }

    /// Both changes.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// Adds bytes that begin at an even offset. If their number is odd, they are the last.
    #[must_use]
    pub fn and_bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let sum = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
        let mut last = [0; 4];
        for (place, byte) in last.iter_mut().zip(rest) {
            *place = *byte;
        }
        // At most 2^14 words in a packet, so that the high half of the sum is small.
        let (high, low) = (sum >> 32, sum & u64::from(u32::MAX));
        #[expect(clippy::cast_possible_truncation, reason = "both are less than 2^32")]
        Self(add(add(add(self.0, low as u32), high as u32), u32::from_ne_bytes(last)))
    }

    /// Adds the pseudo header of a transport packet of `length` bytes.
    #[must_use]
    #[inline(always)]
    pub const fn and_pseudo_header(self, source: Ip, destination: Ip, protocol: u8, length: u16) -> Self {
        let sum = if source.is_v4() {
            Self(self.0).replace(Ip4::NONE, source.v4()).replace(Ip4::NONE, destination.v4())
        } else {
            Self(self.0).replace6(Ip::NONE, source).replace6(Ip::NONE, destination)
        };
        Self(add(add(sum.0, word(length.to_be_bytes())), word([0, protocol])))
    }

    /// The checksum of all that was added.
    #[must_use]
    pub const fn finish(self) -> Be16 {
        Be16((!fold(self.0)).to_ne_bytes())
    }

    /// What the checksum's field holds while the rest of the sum is left to somebody else (virtio's "needs checksum").
    #[must_use]
    #[inline(always)]
    pub const fn leave_open(self) -> Be16 {
        Be16(fold(self.0).to_ne_bytes())
    }

    /// The value for `bpf_l4_csum_replace` with a size of 0.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The checksum after the change.
#[must_use]
#[inline(always)]
pub const fn update(checksum: Be16, difference: Difference) -> Be16 {
    Be16((!fold(add(word(checksum.0) ^ 0xffff, difference.0))).to_ne_bytes())
}

/// As [`update`], of a checksum that was left open.
#[must_use]
pub const fn update_open(sum: Be16, difference: Difference) -> Be16 {
    Difference(add(word(sum.0), difference.0)).leave_open()
}

/// The checksum of an IPv4 header, whatever its checksum field holds.
#[must_use]
#[inline(always)]
pub const fn of_header(header: &Ipv4) -> Be16 {
    let mut sum = word([header.version_and_length, header.tos]);
    sum += word(header.total_length.0);
    sum += word(header.identification.0);
    sum += word(header.fragment.0);
    sum += word([header.ttl, header.protocol]);
    Be16((!fold(add(add(sum, header.source.word()), header.destination.word()))).to_ne_bytes())
}

#[inline(always)]
const fn word(bytes: [u8; 2]) -> u32 {
    u16::from_ne_bytes(bytes) as u32
}

#[inline(always)]
const fn add(sum: u32, word: u32) -> u32 {
    let (sum, carry) = sum.overflowing_add(word);
    sum.wrapping_add(carry as u32)
}

#[expect(clippy::cast_possible_truncation, reason = "two additions leave no bit above the sixteenth")]
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    // At most 0x1_fffe by now, so that the second carry is the last.
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::{Difference, of_header, update, update_open};
    use crate::wire::Ip;
    use crate::wire::{Be16, Ip4, Ipv4};
    use proptest::prelude::*;

    /// The textbook's: big-endian words in a wide sum, folded at the end.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum: u64 = bytes
            .chunks(2)
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    /// 0 and 0xffff are the same number in ones' complement: a receiver takes either for the other.
    fn same(left: u16, right: u16) -> bool {
        left == right || [left, right].iter().all(|sum| [0, 0xffff].contains(sum))
    }

    fn bytes(header: &Ipv4) -> Vec<u8> {
        let mut bytes = vec![header.version_and_length, header.tos];
        bytes.extend(header.total_length.0);
        bytes.extend(header.identification.0);
        bytes.extend(header.fragment.0);
        bytes.extend([header.ttl, header.protocol, 0, 0]);
        bytes.extend(header.source.0);
        bytes.extend(header.destination.0);
        bytes
    }

    fn header() -> impl Strategy<Value = Ipv4> {
        (any::<[u8; 12]>(), any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(start, source, destination)| {
            Ipv4 {
                version_and_length: start[0],
                tos: start[1],
                total_length: Be16([start[2], start[3]]),
                identification: Be16([start[4], start[5]]),
                fragment: Be16([start[6], start[7]]),
                ttl: start[8],
                protocol: start[9],
                checksum: Be16([start[10], start[11]]),
                source: Ip4(source),
                destination: Ip4(destination),
            }
        })
    }

    proptest! {
        #[test]
        fn of_header_is_the_textbook_checksum(header in header()) {
            prop_assert_eq!(of_header(&header).get(), reference(&bytes(&header)));
        }

        #[test]
        fn an_update_equals_a_recomputation(mut header in header(), source: [u8; 4], destination: [u8; 4], ttl: u8) {
            header.checksum = of_header(&header);
            let difference = Difference::NONE
                .replace(header.source, Ip4(source))
                .replace(header.destination, Ip4(destination))
                .replace_pair([header.ttl, header.protocol], [ttl, header.protocol]);
            header.source = Ip4(source);
            header.destination = Ip4(destination);
            header.ttl = ttl;
            let (updated, full) = (update(header.checksum, difference), of_header(&header));
            prop_assert!(same(updated.get(), full.get()), "{:04x} and {:04x}", updated.get(), full.get());
        }

        #[test]
        fn a_wrong_checksum_stays_wrong(mut header in header(), wrong: u16, source: [u8; 4]) {
            let right = of_header(&header).get();
            prop_assume!(!same(wrong, right));
            header.checksum = Be16::new(wrong);
            let difference = Difference::NONE.replace(header.source, Ip4(source));
            header.source = Ip4(source);
            let updated = update(header.checksum, difference);
            prop_assert!(!same(updated.get(), of_header(&header).get()));
        }

        #[test]
        fn replacing_an_ipv6_address_equals_a_recomputation(old: [u8; 16], new: [u8; 16], rest: [u8; 8]) {
            let sum = |address: [u8; 16]| reference(&[&address[..], &rest].concat());
            let difference = Difference::NONE.replace6(Ip::from_octets(old), Ip::from_octets(new));
            let updated = update(Be16::new(sum(old)), difference);
            prop_assert!(same(updated.get(), sum(new)), "{:04x} and {:04x}", updated.get(), sum(new));
        }

        #[test]
        fn a_change_and_its_inverse_leave_the_checksum(checksum: u16, old: [u8; 4], new: [u8; 4]) {
            let there = update(Be16::new(checksum), Difference::NONE.replace(Ip4(old), Ip4(new)));
            let back = update(there, Difference::NONE.replace(Ip4(new), Ip4(old)));
            prop_assert!(same(back.get(), checksum));
        }
    }

    proptest! {
        #[test]
        fn the_sum_of_bytes_is_the_textbooks(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(same(Difference::NONE.and_bytes(&bytes).finish().get(), reference(&bytes)));
        }

        #[test]
        fn a_pseudo_header_is_summed_as_its_bytes(
            source: [u8; 4], destination: [u8; 4], source6: [u8; 16], destination6: [u8; 16], protocol: u8, length: u16
        ) {
            let [a, b] = length.to_be_bytes();
            let bytes = [&source[..], &destination, &[0, protocol, a, b]].concat();
            let (from, to) = (Ip::from_v4(Ip4(source)), Ip::from_v4(Ip4(destination)));
            let sum = Difference::NONE.and_pseudo_header(from, to, protocol, length).finish().get();
            prop_assert!(same(sum, reference(&bytes)));
            let (from, to) = (Ip::from_octets(source6), Ip::from_octets(destination6));
            prop_assume!(!from.is_v4());
            let bytes = [&source6[..], &destination6, &[0, 0, a, b, 0, 0, 0, protocol]].concat();
            let sum = Difference::NONE.and_pseudo_header(from, to, protocol, length).finish().get();
            prop_assert!(same(sum, reference(&bytes)));
        }

        #[test]
        fn a_sum_that_was_left_open_is_updated_like_one_that_was_not(old: [u8; 4], new: [u8; 4], sum: u16) {
            let change = Difference::NONE.replace(Ip4(old), Ip4(new));
            let open = update_open(Be16::new(!sum), change);
            prop_assert!(same(!open.get(), update(Be16::new(sum), change).get()));
        }
    }
}
