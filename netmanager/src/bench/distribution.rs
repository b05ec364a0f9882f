//! Many times, as quantiles.

use std::time::Duration;

/// Those that are kept of a [`Distribution`], in the order of the values.
pub const QUANTILES: [f64; 23] = [
    0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.998, 0.999, 0.9999, 1.0,
];

/// Of at least one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// How many times there were.
    pub count: usize,
    sorted: Vec<Duration>,
}

impl Distribution {
    /// Of no time, nothing.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        (!times.is_empty()).then_some(Self { count: times.len(), sorted: times })
    }

    /// The smallest time that at least this part of the times (0 to 1) is not above.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index, from a part of at most all"
    )]
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = (part.clamp(0.0, 1.0) * self.count as f64).ceil() as usize;
        self.sorted[rank.clamp(1, self.count) - 1]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Distribution;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let times = (1..=100).rev().map(Duration::from_micros).collect();
        let distribution = Distribution::of(times).unwrap();
        for (part, micros) in [(0.0, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)] {
            assert_eq!(distribution.quantile(part), Duration::from_micros(micros), "{part}");
        }
        assert_eq!(Distribution::of(Vec::new()), None);
    }
}
