//! Counters, and the end of every path: a verdict for the kernel, or a reason why there is none.

use aya_ebpf::bindings::TC_ACT_SHOT;
use netmanager_common::event::DropReason;
use netmanager_common::map::Early;

use crate::maps::{DROPS, EARLY, PUNTS, TRAFFIC};

/// From here on a number stands for a drop, and its reason.
const DROPPED: i32 = 0x100;

/// The end of a path as one number, which functions can return to each other: a verdict for the kernel, or why there
/// is none.
#[inline(always)]
pub(crate) fn end(result: Result<i32, DropReason>) -> i32 {
    match result {
        Ok(verdict) => verdict,
        Err(reason) => DROPPED + reason as i32,
    }
}

/// What had this [`end`].
#[inline(always)]
pub(crate) fn result(end: i32) -> Result<i32, DropReason> {
    match reason(end) {
        None => Ok(end),
        Some(reason) => Err(DropReason::at(reason).unwrap_or(DropReason::KernelRefused)),
    }
}

/// The index of the reason for which a path has ended without a verdict.
#[inline(always)]
pub(crate) fn reason(end: i32) -> Option<u32> {
    (end >= DROPPED).then_some((end - DROPPED).cast_unsigned())
}

/// Counts a drop, and is its verdict.
#[inline(always)]
pub(crate) fn drop(reason: u32) -> i32 {
    if let Some(count) = DROPS.get_ptr_mut(reason) {
        // SAFETY: the counter is this CPU's own.
        unsafe { *count += 1 };
    }
    TC_ACT_SHOT
}

/// Counts a packet that goes to the slow path.
#[inline(always)]
pub(crate) fn punted(reason: u32) {
    if let Some(count) = PUNTS.get_ptr_mut(reason) {
        // SAFETY: the counter is this CPU's own.
        unsafe { *count += 1 };
    }
}

/// Counts what was done early at the uplink.
#[inline(always)]
pub(crate) fn early(event: Early) {
    if let Some(count) = EARLY.get_ptr_mut(event as u32) {
        // SAFETY: the counter is this CPU's own.
        unsafe { *count += 1 };
    }
}

/// A packet of a container has entered the overlay.
#[inline(always)]
pub(crate) fn sent(slot: u32, bytes: u32) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(slot) {
        // SAFETY: the counters are this CPU's own.
        let traffic = unsafe { &mut *traffic };
        traffic.sent_packets += 1;
        traffic.sent_bytes += u64::from(bytes);
    }
}

/// A packet has been delivered to a container.
#[inline(always)]
pub(crate) fn received(slot: u32, bytes: u32) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(slot) {
        // SAFETY: the counters are this CPU's own.
        let traffic = unsafe { &mut *traffic };
        traffic.received_packets += 1;
        traffic.received_bytes += u64::from(bytes);
    }
}
