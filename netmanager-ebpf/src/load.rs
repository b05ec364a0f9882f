//! How many flows each backend has, for services whose new flows go to the one that has the fewest.
//!
//! The counts are not exact: CPUs that count at the same time may lose one, and flows that end without a packet are not
//! heard of. netmanager counts anew from time to time.

use netmanager_common::flow;
use netmanager_common::map::{MAX_BACKENDS_PER_SERVICE, Service};

use crate::maps::LOADS;

/// A flow to this backend has begun.
#[inline(always)]
pub(crate) fn begun(number: u32) {
    if let Some(load) = LOADS.get_ptr_mut(number) {
        // SAFETY: an aligned word of the map, which no other one needs to be exact.
        let open = unsafe { core::ptr::read_volatile(load) };
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(load, open.saturating_add(1)) };
    }
}

/// A flow to this backend is over.
#[inline(always)]
pub(crate) fn ended(number: u32) {
    if let Some(load) = LOADS.get_ptr_mut(number) {
        // SAFETY: as in `begun`.
        let open = unsafe { core::ptr::read_volatile(load) };
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(load, open.saturating_sub(1)) };
    }
}

/// The place, among the first `count` backends of a service, of the one that has the fewest flows; of several the first
/// one from that on whose turn it is. A function to the kernel too, for the sake of the stack.
#[inline(never)]
pub(crate) fn fewest(service: &Service, first: u32, turn: u32, count: u32) -> u32 {
    let (mut best, mut fewest) = (0, u32::MAX);
    for step in 0..MAX_BACKENDS_PER_SERVICE as u32 {
        if step >= count {
            break;
        }
        let place = flow::in_turn(first as u16, turn.wrapping_add(step), count);
        let Some(number) = service.backends.get(place) else { break };
        // SAFETY: a valid reference; see `select::choose` for what is written there meanwhile.
        let number = u32::from(unsafe { core::ptr::read_volatile(number) });
        let Some(load) = LOADS.get_ptr(number) else { continue };
        // SAFETY: as in `begun`.
        let load = unsafe { core::ptr::read_volatile(load) };
        if load < fewest {
            (best, fewest) = (place as u32, load);
        }
    }
    best
}
