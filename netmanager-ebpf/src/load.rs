//! How many flows each backend has, for services whose new flows go to the one that has the fewest.
//!
//! The counts are not exact: CPUs that count at the same time may lose one, and flows that end without a packet are not
//! heard of. netmanager counts anew from time to time.

use netmanager_common::flow;
use netmanager_common::life::State;
use netmanager_common::map::{Flow, FlowKey, MAX_BACKENDS_PER_SERVICE, Service};

use crate::maps::{BACKENDS, FLOWS, LOADS};

/// A flow has begun.
#[inline(always)]
pub(crate) fn begun(flow: &Flow) {
    change(flow, |open| open.saturating_add(1));
}

/// A flow is over.
#[inline(always)]
pub(crate) fn ended(flow: &Flow) {
    change(flow, |open| open.saturating_sub(1));
}

/// Another flow takes the place of the one with this key.
#[inline(always)]
pub(crate) fn replaced(key: &FlowKey) {
    // SAFETY: read at once; if it is another flow's by now, a count is one too low for a while.
    let Some(before) = (unsafe { FLOWS.get(key) }) else { return };
    if before.state != State::Closed as u8 {
        ended(before);
    }
}

/// Of those that an instance was chosen for: what goes to an instance's own address is mostly its clients' answers.
#[inline(always)]
fn change(flow: &Flow, change: impl FnOnce(u32) -> u32) {
    let lives = BACKENDS.get(flow.backend).is_some_and(|backend| backend.generation == flow.generation);
    if flow.chosen == 0 || !lives {
        return;
    }
    if let Some(load) = LOADS.get_ptr_mut(flow.backend) {
        // SAFETY: an aligned word of the map, which no other one needs to be exact.
        let open = unsafe { core::ptr::read_volatile(load) };
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(load, change(open)) };
    }
}

/// The place, among the first `count` backends of a service, of the one that has the fewest flows; of several the first
/// one from that on whose turn it is.
#[inline(always)]
pub(crate) fn fewest(service: &Service, first: u16, turn: u32, count: u32) -> usize {
    let (mut best, mut fewest) = (0, u32::MAX);
    #[expect(clippy::cast_possible_truncation, reason = "a few bits")]
    for step in 0..MAX_BACKENDS_PER_SERVICE as u32 {
        if step >= count {
            break;
        }
        let place = flow::in_turn(first, turn.wrapping_add(step), count);
        let Some(number) = service.backends.get(place) else { break };
        // SAFETY: a valid reference; see `select::choose` for what is written there meanwhile.
        let number = u32::from(unsafe { core::ptr::read_volatile(number) });
        let Some(load) = LOADS.get_ptr(number) else { continue };
        // SAFETY: as in `change`.
        let load = unsafe { core::ptr::read_volatile(load) };
        if load < fewest {
            (best, fewest) = (place, load);
        }
    }
    best
}
