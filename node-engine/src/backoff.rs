//! Waiting between tries: longer each time, never in step with other workers.

use std::time::Duration;

use rand::Rng;

/// Delays that double from `first` up to `longest`, each made up to a quarter shorter or longer by chance: when a
/// cluster comes back, its workers do not all knock in the same millisecond.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, tries: 0 }
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let delay = nth_delay(self.first, self.longest, self.tries);
        self.tries = self.tries.saturating_add(1);
        delay.mul_f64(rand::rng().random_range(0.75..1.25))
    }

    /// Whether the last try failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.tries > 0
    }

    /// The try succeeded: the next failure waits shortly again. Returns whether tries had failed before.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.tries) > 0
    }
}

/// The delay after `tries` failures, without the part of chance.
#[must_use]
pub fn nth_delay(first: Duration, longest: Duration, tries: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(tries)).min(longest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, nth_delay};

    #[test]
    fn delays_double_up_to_the_longest() {
        let delays: Vec<u64> = (0..6)
            .map(|tries| nth_delay(Duration::from_secs(1), Duration::from_secs(10), tries).as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
        assert_eq!(nth_delay(Duration::from_secs(1), Duration::from_secs(10), u32::MAX).as_secs(), 10);
    }

    #[test]
    fn chance_moves_a_delay_by_a_quarter_at_most() {
        let mut backoff = Backoff::new(Duration::from_millis(1000), Duration::from_millis(1000));
        for _ in 0..100 {
            let delay = backoff.next_delay();
            assert!((750..1250).contains(&delay.as_millis()), "{delay:?}");
        }
    }

    #[test]
    fn recovery_is_told_once() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        assert!(!backoff.succeeded());
        backoff.next_delay();
        assert!(backoff.is_failing());
        assert!(backoff.succeeded());
        assert!(!backoff.succeeded());
    }
}
