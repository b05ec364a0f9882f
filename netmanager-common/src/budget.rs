//! Budgets: how many packets somebody may have looked at more closely, so that one who scans or floods takes nothing from
//! others.

/// How fast a budget is used up at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Packets at once.
    pub burst: u32,
    /// After how many nanoseconds there may be one more.
    pub refill_ns: u64,
}

impl Rate {
    /// `burst` packets at once, and as many in each second.
    const fn of(burst: u32) -> Self {
        Self { burst, refill_ns: 1_000_000_000 / burst as u64 }
    }
}

/// What a container may give to the slow path; the same again of what arrives for it.
pub const CONTAINER: Rate = Rate::of(256);
/// What one address on the underlay may have looked at of sources that are not known: enough for the first packets of a
/// node that has just joined, whose answer from the cluster takes a few milliseconds.
pub const UNKNOWN_SOURCE: Rate = Rate::of(32);
/// The same of all addresses together where no node is known: who invents the one can invent many.
pub const STRANGERS: Rate = Rate::of(256);

/// Packets that a person who watches is told of.
pub const TRACE: Rate = Rate::of(1000);

/// Flows that a container may begin without being answered, and without being asked: 512 in a second. The table of all
/// flows is then turned over in a minute, whatever one container does.
pub const NEW_FLOWS: Rate = Rate { burst: 4096, refill_ns: 1_953_125 };

/// What is left of a budget.
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
    pub const fn take(&mut self, rate: Rate, now: u64) -> bool {
        let more = self.refilled(rate, now);
        if more >= rate.burst as u64 {
            self.left = rate.burst;
            self.since = now;
        } else if more > 0 {
            #[expect(clippy::cast_possible_truncation, reason = "less than a burst")]
            let sum = self.left.saturating_add(more as u32);
            self.left = if sum < rate.burst { sum } else { rate.burst };
            self.since += more * rate.refill_ns;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }

    /// Gives one share back, up to a burst. Whether any was ever taken.
    #[inline(always)]
    pub const fn give_back(&mut self, rate: Rate) -> bool {
        if self.since == 0 {
            return false;
        }
        if self.left < rate.burst {
            self.left += 1;
        }
        true
    }

    /// Whether [`Self::take`] would find nothing.
    #[must_use]
    #[inline(always)]
    pub const fn is_used_up(&self, rate: Rate, now: u64) -> bool {
        self.left == 0 && self.refilled(rate, now) == 0
    }

    #[inline(always)]
    const fn refilled(&self, rate: Rate, now: u64) -> u64 {
        now.saturating_sub(self.since) / rate.refill_ns
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, CONTAINER, NEW_FLOWS, Rate, STRANGERS, UNKNOWN_SOURCE};
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const RATES: [Rate; 4] = [CONTAINER, UNKNOWN_SOURCE, STRANGERS, NEW_FLOWS];

    fn take_all(budget: &mut Budget, rate: Rate, now: u64) -> u32 {
        (0..).take_while(|_| budget.take(rate, now)).last().map_or(0, |last| last + 1)
    }

    #[test]
    fn a_budget_begins_full_and_refills_slowly() {
        for rate in RATES {
            let mut budget = Budget::default();
            assert!(!budget.is_used_up(rate, SECOND * 100));
            assert_eq!(take_all(&mut budget, rate, SECOND * 100), rate.burst);
            assert!(budget.is_used_up(rate, SECOND * 100));
            assert_eq!(take_all(&mut budget, rate, SECOND * 100 + rate.refill_ns - 1), 0);
            assert!(!budget.is_used_up(rate, SECOND * 100 + rate.refill_ns));
            assert_eq!(take_all(&mut budget, rate, SECOND * 100 + rate.refill_ns), 1);
            let in_a_second = u32::try_from(SECOND / rate.refill_ns).unwrap().min(rate.burst);
            assert_eq!(take_all(&mut budget, rate, SECOND * 101), in_a_second - 1);
            let later = take_all(&mut budget, rate, SECOND * 1000);
            assert_eq!(later, rate.burst, "no more than a burst is saved up");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_but_no_more_is_saved_up() {
        for rate in RATES {
            let mut budget = Budget::default();
            assert!(!budget.give_back(rate), "nothing was taken");
            assert_eq!(take_all(&mut budget, rate, SECOND * 100), rate.burst);
            assert!(budget.give_back(rate));
            assert_eq!(take_all(&mut budget, rate, SECOND * 100), 1);
            for _ in 0..2 * rate.burst {
                budget.give_back(rate);
            }
            assert_eq!(take_all(&mut budget, rate, SECOND * 100), rate.burst);
        }
    }

    proptest! {
        #[test]
        fn a_budget_is_never_overdrawn(
            which in 0..RATES.len(), times in proptest::collection::vec(0u64..SECOND * 10, 1..2000)
        ) {
            let rate = RATES[which];
            let (mut budget, mut taken) = (Budget::default(), 0u64);
            let mut sorted = times;
            sorted.sort_unstable();
            for now in &sorted {
                let used_up = budget.is_used_up(rate, SECOND + now);
                let took = budget.take(rate, SECOND + now);
                prop_assert_ne!(took, used_up);
                taken += u64::from(took);
            }
            let passed = sorted.last().unwrap() - sorted.first().unwrap();
            prop_assert!(taken <= u64::from(rate.burst) + passed / rate.refill_ns + 1);
        }
    }
}
