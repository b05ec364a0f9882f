//! Finding out by trying how large packets may be on a path. Pure.

/// How many sizes are tried at once.
const AT_ONCE: u16 = 8;

/// What is known so far: packets of up to `carried` bytes arrive, those of `lost` do not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Search {
    carried: u16,
    lost: u16,
}

/// The result of the first round, in which the smallest and the largest size are tried.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// Nothing comes back: nothing can be said.
    Silent,
    /// The largest arrives.
    Whole,
    /// Only the smallest does.
    Narrow(Search),
}

impl First {
    pub(super) fn of(least: u16, most: u16, answered: &[u16]) -> Self {
        if answered.contains(&most) {
            Self::Whole
        } else if answered.contains(&least) {
            Self::Narrow(Search { carried: least, lost: most })
        } else {
            Self::Silent
        }
    }
}

impl Search {
    /// What is to be tried next; nothing when it is found.
    pub(super) fn sizes(&self) -> Vec<u16> {
        let between = self.lost.saturating_sub(self.carried).saturating_sub(1);
        let steps = between.min(AT_ONCE);
        let part = |step: u16| {
            // At most the distance, which is a u16.
            u16::try_from(u32::from(step) * (u32::from(between) + 1) / (u32::from(steps) + 1))
                .unwrap_or(between)
        };
        (1..=steps).map(|step| self.carried + part(step)).collect()
    }

    /// These sizes of all that were tried have arrived.
    pub(super) fn round(&mut self, tried: &[u16], answered: &[u16]) {
        self.carried = answered.iter().copied().chain([self.carried]).max().unwrap_or(self.carried);
        let lost = tried.iter().copied().filter(|size| *size > self.carried);
        self.lost = lost.chain([self.lost]).min().unwrap_or(self.lost);
    }

    /// The largest size that has arrived.
    pub(super) fn carried(&self) -> u16 {
        self.carried
    }
}

#[cfg(test)]
mod tests {
    use super::First;
    use proptest::prelude::*;

    #[test]
    fn what_nobody_answers_says_nothing() {
        assert_eq!(First::of(576, 1478, &[]), First::Silent);
        assert_eq!(First::of(576, 1478, &[576, 1478]), First::Whole);
        assert_eq!(First::of(576, 1478, &[1478]), First::Whole);
    }

    proptest! {
        #[test]
        fn the_exact_size_is_found_in_four_rounds(carried in 576u16..1478) {
            let First::Narrow(mut search) = First::of(576, 1478, &[576]) else { panic!("narrow") };
            let mut rounds = 0;
            loop {
                let tried = search.sizes();
                if tried.is_empty() {
                    break;
                }
                rounds += 1;
                let answered: Vec<_> = tried.iter().copied().filter(|size| *size <= carried).collect();
                search.round(&tried, &answered);
            }
            prop_assert_eq!(search.carried(), carried);
            prop_assert!(rounds <= 4, "{} rounds", rounds);
        }
    }
}
