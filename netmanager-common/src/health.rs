//! What the kernel side notes of a backend: whether its flows are answered, and how fast. It decides nothing; it tells
//! netmanager when there is something to decide.

use crate::wire::{self, Be16};

/// Packets without an answer that are one too many, if they were sent over at least [`SILENCE_MS`]. A first SYN and its
/// first retransmission are enough.
pub const SUSPICIOUS: u32 = 2;
/// How long nothing must have come back. Linux repeats a SYN after one second; the clock has the precision of a tick.
pub const SILENCE_MS: u32 = 900;
/// Refused connections in a row that are one too many.
pub const REFUSALS: u32 = 3;
/// A port that netmanager itself asks, so that it is refused: that says nothing of a service.
pub const QUESTION_PORT: u16 = 1;
/// How long the kernel keeps quiet about a backend after a report.
pub const REPORT_MS: u32 = 500;

/// Value of [`crate::map::HEALTH`]. Several CPUs may write at once: a count may then be one too low, which the next
/// packet makes up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Health {
    /// Packets since the last answer that should have been answered: of new flows, and, at most one a second, of flows
    /// that had been answered before.
    pub unanswered: u32,
    /// When the first of them was sent. This and the other times: milliseconds of the monotonic clock.
    pub silent_since: u32,
    /// When something came back last; 0: never.
    pub heard: u32,
    /// When netmanager was told last.
    pub told: u32,
    /// TCP connections refused since the last one that was accepted.
    pub refused: u32,
    /// Time from the first packet of a flow to its answer, smoothed; microseconds, 0: not measured.
    pub round_trip: u32,
    /// Where the last of `unanswered` went.
    pub asked_port: Be16,
    /// Its IP protocol.
    pub asked_protocol: u16,
    /// Where the last TCP connection was accepted.
    pub accepted_port: Be16,
    /// Where the last one was refused.
    pub refused_port: Be16,
}

const _: () = assert!(size_of::<Health>() == 6 * 4 + 4 * 2);

/// Milliseconds from `then` to `now`, also when the clock has wrapped in between; 0 if another CPU has noted `then` after
/// `now` was read.
#[must_use]
#[inline(always)]
pub const fn since(now: u32, then: u32) -> u32 {
    let passed = now.wrapping_sub(then);
    if passed > u32::MAX / 2 { 0 } else { passed }
}

impl Health {
    /// A packet was sent that should be answered. Whether netmanager is to be told.
    #[must_use]
    #[inline(always)]
    pub const fn asked(&mut self, now: u32, protocol: u8, port: Be16) -> bool {
        if self.unanswered == 0 {
            self.silent_since = now;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.asked_port = port;
        self.asked_protocol = protocol as u16;
        self.unanswered >= SUSPICIOUS && since(now, self.silent_since) >= SILENCE_MS && self.may_tell(now)
    }

    /// Something came back.
    #[inline(always)]
    pub const fn heard(&mut self, now: u32) {
        if self.unanswered != 0 {
            self.unanswered = 0;
        }
        self.heard = if now == 0 { 1 } else { now };
    }

    /// A flow to `port` was answered for the first time, after `round_trip` microseconds if that was measured.
    #[inline(always)]
    pub const fn answered(&mut self, now: u32, protocol: u8, port: Be16, round_trip: Option<u32>) {
        self.heard(now);
        if protocol == wire::TCP {
            self.refused = 0;
            self.accepted_port = port;
        }
        if let Some(sample) = round_trip {
            self.round_trip = smoothed(self.round_trip, sample);
        }
    }

    /// A connection to `port` was refused. Whether netmanager is to be told.
    #[must_use]
    #[inline(always)]
    pub const fn refused(&mut self, now: u32, port: Be16) -> bool {
        self.heard(now);
        if port.get() == QUESTION_PORT {
            return false;
        }
        self.refused = self.refused.saturating_add(1);
        self.refused_port = port;
        self.refused >= REFUSALS && self.may_tell(now)
    }

    /// Whether something came back within so many milliseconds before `now`, or something was sent in vain since then.
    #[must_use]
    pub const fn is_in_use(&self, now: u32, within: u32) -> bool {
        (self.heard != 0 && since(now, self.heard) <= within)
            || (self.unanswered != 0 && since(now, self.silent_since) <= within)
    }

    #[inline(always)]
    const fn may_tell(&mut self, now: u32) -> bool {
        if self.told != 0 && since(now, self.told) < REPORT_MS {
            return false;
        }
        self.told = if now == 0 { 1 } else { now };
        true
    }
}

/// RFC 6298, 2.3: an eighth of what is new.
#[must_use]
#[inline(always)]
pub const fn smoothed(before: u32, sample: u32) -> u32 {
    // Zero stands for no measurement.
    let sample = if sample == 0 { 1 } else { sample };
    if before == 0 {
        return sample;
    }
    #[expect(clippy::cast_possible_truncation, reason = "between the two")]
    let mean = ((before as u64 * 7 + sample as u64) / 8) as u32;
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PORT: Be16 = Be16::new(80);

    #[test]
    fn a_syn_and_its_retransmission_without_an_answer_are_told() {
        let mut health = Health::default();
        assert!(!health.asked(5000, wire::TCP, PORT));
        assert!(!health.asked(5100, wire::TCP, PORT), "an answer may still be on its way");
        assert!(health.asked(5999, wire::TCP, PORT));
        assert!(!health.asked(6000, wire::TCP, PORT), "told a moment ago");
        assert!(health.asked(6499, wire::TCP, PORT));
    }

    #[test]
    fn a_refused_question_of_our_own_is_a_sign_of_life_and_no_refusal() {
        let mut health = Health { unanswered: 1, ..Health::default() };
        for _ in 0..2 * REFUSALS {
            assert!(!health.refused(5000, Be16::new(QUESTION_PORT)));
        }
        assert_eq!((health.refused, health.unanswered, health.heard), (0, 0, 5000));
    }

    #[test]
    fn what_has_answered_or_was_asked_a_moment_ago_is_in_use() {
        let mut health = Health::default();
        assert!(!health.is_in_use(10, 1000), "never");
        health.heard(5000);
        assert!(health.is_in_use(6000, 1000) && !health.is_in_use(6001, 1000));
        assert!(!health.asked(7000, wire::TCP, PORT));
        assert!(health.is_in_use(8000, 1000) && !health.is_in_use(8001, 1000), "since the first one in vain");
        health.heard(9000);
        assert!(health.is_in_use(9500, 1000));
    }

    #[test]
    fn an_answer_ends_the_silence() {
        let mut health = Health::default();
        for now in 0..10_000 {
            assert!(!health.asked(now, wire::TCP, PORT));
            if now % 500 == 0 {
                health.heard(now);
            }
        }
    }

    #[test]
    fn three_refusals_in_a_row_are_told_and_an_accepted_connection_ends_the_row() {
        let mut health = Health::default();
        assert!(!health.refused(1000, PORT));
        assert!(!health.refused(1001, PORT));
        health.answered(1002, wire::TCP, PORT, None);
        assert!(!health.refused(1003, PORT));
        assert!(!health.refused(1004, PORT));
        assert!(health.refused(1005, PORT));
        assert_eq!(health.unanswered, 0, "who refuses is there");
    }

    #[test]
    fn the_clock_may_wrap() {
        assert_eq!(since(3, u32::MAX - 6), 10);
        assert_eq!(since(100, 101), 0);
        let mut health = Health::default();
        assert!(!health.asked(u32::MAX - 10, wire::UDP, PORT));
        assert!(health.asked(990, wire::UDP, PORT));
    }

    proptest! {
        #[test]
        fn a_smoothed_time_is_between_what_it_was_and_the_sample(before in 1u32.., sample in 1u32..) {
            let after = smoothed(before, sample);
            prop_assert!((before.min(sample)..=before.max(sample)).contains(&after), "{}", after);
        }

        #[test]
        fn a_time_that_stays_is_reached(before in 1u32..10_000_000, sample in 1u32..10_000_000) {
            let reached = (0..200).fold(before, |before, _| smoothed(before, sample));
            prop_assert!(reached.abs_diff(sample) < 8, "{}", reached);
        }

        #[test]
        fn netmanager_is_told_at_most_twice_a_second(times in proptest::collection::vec(0u32..10_000, 0..500)) {
            let (mut health, mut told) = (Health::default(), 0);
            let mut times = times;
            times.sort_unstable();
            for now in &times {
                told += u32::from(health.asked(1000 + now, wire::TCP, PORT));
            }
            prop_assert!(told <= 20);
        }
    }
}
