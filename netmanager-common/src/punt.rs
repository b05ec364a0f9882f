//! The slow path: what a program cannot finish alone goes to netmanager as a whole frame, through a TAP device, and may
//! come back the same way. In both directions a [`Tag`] stands where the frame had its destination MAC, which nobody
//! needs any more: it was the gateway's or the uplink's.

use crate::event::DropReason;

/// Which way a frame was on, or is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Origin {
    /// A container has sent it. Coming back, it begins anew as if the container sent it now.
    Container = 1,
    /// It has arrived at the uplink, outer headers and all. Coming back, it begins anew there.
    Uplink = 2,
    /// Made, or translated, by netmanager: to be delivered by its destination, a container's NsIP, as it is.
    Netmanager = 3,
}

/// What is known of a frame at the TAP device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Which way it is on.
    pub origin: Origin,
    /// Index of the [`DropReason`] for which it could not go on; of no meaning on the way back.
    pub reason: u8,
    /// The interface where it had arrived first.
    pub ifindex: u32,
}

/// Bytes of a tag: those of a MAC.
pub const TAG_LEN: usize = 6;

/// Of a MAC that nobody has been sold.
const LOCALLY_ADMINISTERED: u8 = 0x02;

impl Tag {
    /// The tag as it stands in a frame: a unicast MAC, so that no device on the way takes it for a broadcast.
    #[must_use]
    #[inline(always)]
    pub const fn bytes(self) -> [u8; TAG_LEN] {
        let [a, b, c, d] = self.ifindex.to_be_bytes();
        [(self.origin as u8) << 2 | LOCALLY_ADMINISTERED, self.reason, a, b, c, d]
    }

    /// The tag that stands in a frame; nothing if it is none.
    #[must_use]
    #[inline(always)]
    pub const fn read(bytes: [u8; TAG_LEN]) -> Option<Self> {
        let [origin, reason, a, b, c, d] = bytes;
        let origin = match origin ^ LOCALLY_ADMINISTERED {
            0x04 => Origin::Container,
            0x08 => Origin::Uplink,
            0x0c => Origin::Netmanager,
            _ => return None,
        };
        Some(Self { origin, reason, ifindex: u32::from_be_bytes([a, b, c, d]) })
    }
}

/// The reasons for which there is something that netmanager can do: hold the packet until its service is known, say in
/// the network's own words why it goes no further, translate what is too rare to be translated in the kernel.
const SLOW: u64 = bit(DropReason::ServiceUnknown)
    | bit(DropReason::NoBackend)
    | bit(DropReason::BackendGone)
    | bit(DropReason::NoInstanceAddress)
    | bit(DropReason::NoEndpoint)
    | bit(DropReason::TooBig)
    | bit(DropReason::TtlExpired)
    | bit(DropReason::UnsupportedProtocol)
    | bit(DropReason::UnknownPeer);

const fn bit(reason: DropReason) -> u64 {
    1 << reason as u32
}

/// Whether packets that cannot go on for the reason with this index are for the slow path.
#[must_use]
#[inline(always)]
pub const fn is_slow(reason: u32) -> bool {
    SLOW >> (reason & 63) & 1 == 1
}

/// How many packets a container may have on the slow path at once; the same again of what arrives for it.
pub const BURST: u32 = 256;
/// After how many nanoseconds it may have one more: 256 in a second.
pub const REFILL_NS: u64 = 3_906_250;

/// What is left of a container's share of the slow path, so that one that scans or floods takes nothing from others. Value
/// of [`crate::map::BUDGETS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Budget {
    /// When `left` was counted, nanoseconds of the monotonic clock.
    pub since: u64,
    /// Packets.
    pub left: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Budget>() == 8 + 4 + 4);

impl Budget {
    /// Takes one packet's share; `false` if none is left. All zeroes is a full budget.
    #[must_use]
    #[inline(always)]
    pub const fn take(&mut self, now: u64) -> bool {
        let more = now.saturating_sub(self.since) / REFILL_NS;
        if more >= BURST as u64 {
            self.left = BURST;
            self.since = now;
        } else if more > 0 {
            #[expect(clippy::cast_possible_truncation, reason = "less than BURST")]
            let sum = self.left.saturating_add(more as u32);
            self.left = if sum < BURST { sum } else { BURST };
            self.since += more * REFILL_NS;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST, Budget, Origin, REFILL_NS, Tag, is_slow};
    use crate::event::{DROP_REASONS, DropReason};
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn take_all(budget: &mut Budget, now: u64) -> u32 {
        (0..).take_while(|_| budget.take(now)).last().map_or(0, |last| last + 1)
    }

    #[test]
    fn a_budget_begins_full_and_refills_slowly() {
        let mut budget = Budget::default();
        assert_eq!(take_all(&mut budget, SECOND * 100), BURST);
        assert_eq!(take_all(&mut budget, SECOND * 100 + REFILL_NS - 1), 0);
        assert_eq!(take_all(&mut budget, SECOND * 100 + REFILL_NS), 1);
        assert_eq!(take_all(&mut budget, SECOND * 101), BURST - 1);
        assert_eq!(take_all(&mut budget, SECOND * 1000), BURST, "no more than a burst is saved up");
    }

    #[test]
    fn spoofed_and_malformed_packets_stay_in_the_kernel() {
        for reason in [DropReason::SpoofedSource, DropReason::Malformed, DropReason::ForeignSource] {
            assert!(!is_slow(reason as u32), "{reason}");
        }
        assert!(is_slow(DropReason::ServiceUnknown as u32));
        const { assert!(DROP_REASONS <= 64, "a reason is one bit") };
    }

    proptest! {
        #[test]
        fn a_budget_is_never_overdrawn(times in proptest::collection::vec(0u64..SECOND * 10, 1..2000)) {
            let (mut budget, mut taken) = (Budget::default(), 0u64);
            let mut sorted = times;
            sorted.sort_unstable();
            for now in &sorted {
                taken += u64::from(budget.take(SECOND + now));
            }
            let passed = sorted.last().unwrap() - sorted.first().unwrap();
            prop_assert!(taken <= u64::from(BURST) + passed / REFILL_NS + 1);
        }

        #[test]
        fn a_tag_is_read_as_it_was_written(reason: u8, ifindex: u32, origin in 0usize..3) {
            let origin = [Origin::Container, Origin::Uplink, Origin::Netmanager][origin];
            let tag = Tag { origin, reason, ifindex };
            prop_assert_eq!(Tag::read(tag.bytes()), Some(tag));
            prop_assert_eq!(tag.bytes()[0] & 1, 0, "a unicast MAC");
        }
    }
}
