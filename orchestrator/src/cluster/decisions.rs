//! The last attempts to place one instance. In memory only: who asks wants to know of now.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::decision::Decision;

const KEPT: usize = 8;
/// How often it is said with other numbers why an instance gets no place.
const WITH_OTHER_NUMBERS: Duration = Duration::from_secs(300);

/// Why an instance got no place, without the numbers: those are never the same twice where they are measured, and each time
/// that it is said costs a write and a report. They are in the [`Attempts`].
#[derive(Debug)]
pub(super) struct WithoutPlace {
    by: Vec<(Cow<'static, str>, u32)>,
    at: Instant,
}

impl WithoutPlace {
    pub(super) fn new(decision: &Decision, now: Instant) -> Self {
        let by = decision.rejections.iter().map(|rejection| (rejection.filter.clone(), rejection.count));
        Self { by: by.collect(), at: now }
    }

    /// Whether it need not be said again, after that was.
    pub(super) fn repeats(&self, earlier: &Self) -> bool {
        self.by == earlier.by && self.at.saturating_duration_since(earlier.at) < WITH_OTHER_NUMBERS
    }
}

/// The newest first.
#[derive(Debug, Default)]
pub(super) struct Attempts(VecDeque<Decision>);

impl Attempts {
    /// One that ended like the one before it is that one once more: who waits long still knows what was before.
    pub(super) fn add(&mut self, mut decision: Decision) {
        let waits = |decision: &Decision| decision.chosen.is_none();
        let again =
            |last: &&mut Decision| waits(last) && waits(&decision) && last.rejections == decision.rejections;
        if let Some(last) = self.0.front_mut().filter(again) {
            decision.times = last.times.saturating_add(1);
            *last = decision;
            return;
        }
        self.0.truncate(KEPT - 1);
        self.0.push_front(decision);
    }

    pub(super) fn all(&self) -> Vec<Decision> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use protocol::decision::{Decision, Rejection};

    use super::{Attempts, KEPT};

    fn refused(count: u32, at: f64) -> Decision {
        let rejection = Rejection { filter: "memory".into(), count, detail: String::new() };
        Decision { at, times: 1, rejections: vec![rejection], ..Decision::default() }
    }

    #[test]
    fn the_same_again_is_counted_and_what_was_before_is_kept_for_a_while() {
        let mut attempts = Attempts::default();
        for (count, at) in [(1, 1.0), (2, 2.0), (2, 3.0)] {
            attempts.add(refused(count, at));
        }
        let told: Vec<_> = attempts.all().iter().map(|one| (one.at, one.times)).collect();
        assert_eq!(told, [(3.0, 2), (1.0, 1)]);
        (3..30).for_each(|count| attempts.add(refused(count, 4.0)));
        assert_eq!(attempts.all().len(), KEPT);
        assert_eq!(attempts.all()[0], refused(29, 4.0));
        let placed = Decision { chosen: Some("pi".to_owned()), ..Decision::default() };
        attempts.add(placed.clone());
        attempts.add(placed);
        assert_eq!(attempts.all()[0].times, attempts.all()[1].times, "each place is one of its own");
    }
}
