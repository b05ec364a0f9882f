//! Counting tests by what the harness prints.

use std::fmt;
use std::ops::{Add, AddAssign};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Reads the line by which each test binary ends:
    /// `test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            let part = counts.split("; ").find_map(|part| part.strip_suffix(what))?;
            part.trim_end().parse().ok()
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }

    /// As many of those that passed have only said that they cannot run here.
    pub(crate) fn without(self, excuses: u64) -> Self {
        Self { passed: self.passed.saturating_sub(excuses), skipped: self.skipped + excuses, ..self }
    }
}

/// Whether a test says that it cannot run here. It is seen only where the harness shows what tests print.
pub(crate) fn is_excuse(line: &str) -> bool {
    line.starts_with("test ") && line.contains(" ... skipped: ")
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, is_excuse};

    #[test]
    fn results_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 40 filtered out; finished in 1.20s";
        let tally = Tally::of_line(line).unwrap_or_default();
        assert_eq!(tally, Tally { passed: 12, failed: 3, skipped: 1 });
        assert_eq!((tally + tally).to_string(), "24 passed, 6 failed, 2 skipped");
    }

    #[test]
    fn a_test_that_could_not_run_has_not_passed() {
        let line = "test restart::cleanup_leaves_nothing_with_tcx ... skipped: tcx needs Linux 6.6";
        assert!(is_excuse(line) && !is_excuse("test a::b ... ok") && !is_excuse("skipped: x"));
        let tally = Tally { passed: 5, failed: 0, skipped: 1 }.without(2);
        assert_eq!(tally, Tally { passed: 3, failed: 0, skipped: 3 });
    }

    #[test]
    fn other_lines_are_not() {
        for line in ["test a::b ... ok", "running 3 tests", "test result: ", ""] {
            assert_eq!(Tally::of_line(line), None, "{line}");
        }
    }
}
