//! The clock of the data plane, in the units in which its tables note it.

/// Nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moment(pub(super) u64);

impl Moment {
    /// As flows note it.
    #[expect(clippy::cast_possible_truncation, reason = "136 years of uptime")]
    pub(super) fn seconds(self) -> u32 {
        (self.0 / 1_000_000_000) as u32
    }

    /// As [`netmanager_common::health`] notes it.
    #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
    pub(super) fn milliseconds(self) -> u32 {
        (self.0 / 1_000_000) as u32
    }

    /// As round trips are measured, wrapped; never 0.
    #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
    pub(super) fn microseconds(self) -> u32 {
        (self.0 / 1000) as u32 | 1
    }
}

/// The clock by which flows count and round trips are measured: read once for all that is done at a time.
pub(super) fn now() -> Moment {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the argument is a valid place for the answer. Linux always has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Moment(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default())
}
