//! Input that nobody would send, made from what somebody has sent.
//!
//! A campaign is a row of rounds. The number of a round seeds all chance in it, so the ordinary tests see the same input
//! on every machine; a round that fails says its number, and [`ROUND`] repeats it.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// In the environment: for how long each campaign goes on, instead of the rounds that it has in the ordinary tests.
pub const SECONDS: &str = "HYPHA_FUZZ_SECONDS";
/// In the environment: the number of the only round.
pub const ROUND: &str = "HYPHA_FUZZ_ROUND";

/// Numbers at which programs go wrong more often than at others.
const EDGES: [u8; 8] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff];

/// Runs `round` with one generator after another: `rounds` times, or as the environment says. Gives how often it ran.
///
/// # Panics
/// When `round` does, or when the environment holds other than numbers.
#[allow(clippy::print_stderr, reason = "what a person looks for who waits for it")]
pub fn campaign(rounds: u64, mut round: impl FnMut(&mut Chance)) -> u64 {
    let mut run = |number| {
        let failing = Failing(number);
        round(&mut Chance(StdRng::seed_from_u64(number)));
        std::mem::forget(failing);
    };
    if let Some(only) = from_environment(ROUND) {
        run(only);
        return 1;
    }
    let Some(seconds) = from_environment(SECONDS) else {
        (0..rounds).for_each(run);
        return rounds;
    };
    // Other rounds than those of every test, and of the last time.
    let first = rand::random_range(rounds..u64::MAX / 2);
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut next = first;
    while next == first || start.elapsed() < limit {
        run(next);
        next += 1;
    }
    eprintln!("{} rounds from {first} on", next - first);
    next - first
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

/// Dropped only when a round panics.
struct Failing(u64);

impl Drop for Failing {
    #[allow(clippy::print_stderr, reason = "the test harness shows it with the panic")]
    fn drop(&mut self) {
        eprintln!("this was round {0}; repeat it with {ROUND}={0}", self.0);
    }
}

/// All chance of one round.
#[derive(Debug)]
pub struct Chance(StdRng);

impl Chance {
    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.random_range(0..limit)
    }

    /// Whether the one case in `cases` is there.
    pub fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn of<'a, T>(&mut self, several: &'a [T]) -> &'a T {
        several.choose(&mut self.0).expect("one of none")
    }

    pub fn byte(&mut self) -> u8 {
        if self.one_in(2) { *self.of(&EDGES) } else { self.0.random() }
    }

    /// Changes some of `bytes` from `first` on, and sometimes how many there are.
    pub fn spoil(&mut self, bytes: &mut Vec<u8>, first: usize) {
        for _ in 0..=self.below(4) {
            if bytes.len() <= first {
                return;
            }
            // Most of what can go wrong is decided by the beginning.
            let reach = if self.one_in(2) { bytes.len() } else { bytes.len().min(first + 64) };
            let at = first + self.below(reach - first);
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 => drop(bytes.remove(at)),
                3 => bytes[at] ^= 1 << self.below(8),
                4 => {
                    let again = bytes[at..bytes.len().min(at + 16)].to_vec();
                    bytes.extend(again);
                }
                _ => bytes[at] = self.byte(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::campaign;

    #[test]
    fn rounds_are_the_same_each_time_and_differ_from_each_other() {
        let input = || {
            let mut seen = Vec::new();
            campaign(20, |chance| {
                let mut bytes = b"GET / HTTP/1.1\r\n".to_vec();
                chance.spoil(&mut bytes, 4);
                assert!(bytes.starts_with(b"GET "));
                seen.push(bytes);
            });
            seen
        };
        let seen = input();
        assert_eq!(seen, input());
        assert!(seen.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
