//! Noting whether backends answer, and telling netmanager when one does not.

use netmanager_common::event::SuspectRecord;
use netmanager_common::health::Health;
use netmanager_common::wire::Be16;

use crate::maps::{EVENTS, HEALTH};
use crate::select;

/// Milliseconds of the monotonic clock, wrapped.
#[expect(clippy::cast_possible_truncation, reason = "it wraps")]
#[inline(always)]
fn now() -> u32 {
    (select::now_ns() / 1_000_000) as u32
}

/// A packet was sent to this backend that should be answered.
#[inline(always)]
pub(crate) fn asked(number: u32, generation: u32, protocol: u8, port: Be16) {
    if let Some(health) = of(number)
        && health.asked(now(), protocol, port)
    {
        tell(number, generation);
    }
}

/// A flow was answered for the first time.
#[inline(always)]
pub(crate) fn answered(number: u32, protocol: u8, port: Be16, round_trip: Option<u32>) {
    if let Some(health) = of(number) {
        health.answered(now(), protocol, port, round_trip);
    }
}

/// A flow goes on.
#[inline(always)]
pub(crate) fn heard(number: u32) {
    if let Some(health) = of(number) {
        health.heard(now());
    }
}

/// A connection was refused.
#[inline(always)]
pub(crate) fn refused(number: u32, generation: u32, port: Be16) {
    if let Some(health) = of(number)
        && health.refused(now(), port)
    {
        tell(number, generation);
    }
}

#[inline(always)]
fn of(number: u32) -> Option<&'static mut Health> {
    // SAFETY: the entry stays. Several CPUs may write its words at once; what is lost then is one count.
    HEALTH.get_ptr_mut(number).map(|health| unsafe { &mut *health })
}

/// If the ring is full, the next packet tells.
#[inline(always)]
fn tell(backend: u32, generation: u32) {
    EVENTS.output::<SuspectRecord>(SuspectRecord { backend, generation }, 0).ok();
}
