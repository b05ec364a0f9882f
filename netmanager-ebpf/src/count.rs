//! Counters, and the end of every path: a verdict for the kernel.

use aya_ebpf::bindings::TC_ACT_SHOT;
use netmanager_common::event::DropReason;

use crate::maps::{DROPS, TRAFFIC};

/// The verdict of a path: its own, or a drop with its reason counted.
#[inline(always)]
pub(crate) fn verdict(result: Result<i32, DropReason>) -> i32 {
    match result {
        Ok(verdict) => verdict,
        Err(reason) => {
            if let Some(count) = DROPS.get_ptr_mut(reason as u32) {
                // SAFETY: the counter is this CPU's own.
                unsafe { *count += 1 };
            }
            TC_ACT_SHOT
        }
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
