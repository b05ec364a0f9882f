//! What the packets of a flow say of it: its state, whether its backend answers, and which of its entries must not be
//! lost. What follows is decided by [`netmanager_common::life`] and [`netmanager_common::health`].
//!
//! A warm packet does no more here than to compare a second and two flags. The rest is done at the first packet in each
//! second, the first answer and the last packets, by functions to the kernel too: so they have a stack of their own. Both
//! keys are in the scratch memory: of the two directions the packet's own, and the other one as soon as it is needed.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use netmanager_common::budget;
use netmanager_common::flow;
use netmanager_common::header::Header;
use netmanager_common::life::{self, State};
use netmanager_common::map::{Backend, Flow};
use netmanager_common::packet::Packet;
use netmanager_common::wire::{self, TCP_RST};

use crate::maps::{self, ASSURED, BACKENDS, FLOWS, NEW_FLOWS, Scratch};
use crate::select;
use crate::{health, load};

/// Microseconds of the monotonic clock, wrapped; never 0.
#[expect(clippy::cast_possible_truncation, reason = "it wraps")]
#[inline(always)]
pub(crate) fn now_us() -> u32 {
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    (now / 1000) as u32 | 1
}

/// A container has sent a packet of the flow whose key is `scratch.forward`.
#[inline(always)]
pub(crate) fn sent<H: Header>(flow: &Flow, packet: &Packet<H>, now: u32) {
    if flow.last_seen != now || life::is_last(packet.tcp_flags) {
        note_sent(packet.tcp_flags.into(), now);
    }
}

/// A packet has come for the container at `ifindex`, on the flow whose key is `scratch.arrival`.
#[inline(always)]
pub(crate) fn arrived<H: Header>(flow: &Flow, packet: &Packet<H>, ifindex: u32, now: u32) {
    if flow.last_seen != now || flow.state == State::New as u8 || life::is_last(packet.tcp_flags) {
        note_arrived(packet.tcp_flags.into(), now, ifindex);
    }
}

/// Notes a packet that a container has sent with these TCP flags, on the flow whose key is in the scratch memory. Exported;
/// so it is given numbers, and looks the flow up again.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_sent(flags: u32, now: u32) -> u32 {
    let Ok(scratch) = maps::scratch() else { return 0 };
    if let Some(flow) = FLOWS.get_ptr_mut(&scratch.forward) {
        // SAFETY: as in `select::lookup`.
        sent_in(scratch, unsafe { &mut *flow }, flags, now);
    }
    0
}

#[inline(always)]
fn sent_in(scratch: &mut Scratch, flow: &mut Flow, flags: u32, now: u32) {
    let before = flow.last_seen;
    flow.last_seen = now;
    if flow.chosen == 0 && !flow::keeps_warm(now, before) && !is_last(flags) {
        return;
    }
    let Scratch { forward, arrival, .. } = scratch;
    let Some(backend) = backend_of(flow) else { return };
    *arrival = flow::reply_key(forward, backend.answers_from(forward.source, flow.source));
    if before != now {
        await_answer(scratch, flow, now);
    }
    if is_last(flags) {
        end(scratch, flow, flags, false);
    }
}

/// A packet of a new second goes out: its backend is expected to send some too, and the entry for what it sends to be
/// there.
#[expect(clippy::cast_possible_truncation, reason = "a protocol is one byte")]
#[inline(never)]
fn await_answer(scratch: &mut Scratch, flow: &Flow, now: u32) {
    let Scratch { forward, arrival, flow: value, .. } = scratch;
    let Some(other) = FLOWS.get_ptr_mut(&*arrival) else {
        // It has fallen out, and the flow goes on.
        *value = Flow { source: forward.destination, ..*flow };
        FLOWS.insert(&*arrival, &*value, u64::from(BPF_ANY)).ok();
        return;
    };
    // SAFETY: as in `select::lookup`.
    let other = unsafe { &mut *other };
    if flow.state == State::New as u8 {
        // An answer may now be one to either packet.
        other.began = 0;
    } else if other.last_seen == now || State::of(flow.state).is_ending() {
        return;
    }
    if flow.chosen != 0 {
        health::asked(flow.backend, flow.generation, forward.protocol as u8, forward.destination_port);
    }
}

/// As [`note_sent`], a packet that has come for the container at `ifindex`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_arrived(flags: u32, now: u32, ifindex: u32) -> u32 {
    let Ok(scratch) = maps::scratch() else { return 0 };
    if let Some(flow) = FLOWS.get_ptr_mut(&scratch.arrival) {
        // SAFETY: as in `select::lookup`.
        arrived_in(scratch, unsafe { &mut *flow }, flags, now, ifindex);
    }
    0
}

#[inline(always)]
fn arrived_in(scratch: &mut Scratch, flow: &mut Flow, flags: u32, now: u32, ifindex: u32) {
    let before = flow.last_seen;
    flow.last_seen = now;
    scratch.forward = flow::answered_key(&scratch.arrival, ifindex, flow.source);
    if backend_of(flow).is_some() {
        judge(scratch, flow, flags);
    }
    advance(scratch, flow, flags, before, now);
    if is_last(flags) {
        end(scratch, flow, flags, true);
    }
}

/// What an arriving packet says of the backend, and that its flow is answered.
#[expect(clippy::cast_possible_truncation, reason = "a protocol is one byte")]
#[inline(never)]
fn judge(scratch: &Scratch, flow: &Flow, flags: u32) {
    let (protocol, port) = (scratch.arrival.protocol as u8, scratch.arrival.source_port);
    if flow.state != State::New as u8 {
        return health::heard(flow.backend);
    }
    if is_refusal(flags) {
        return health::refused(flow.backend, flow.generation, port);
    }
    give_back(flow.slot);
    let measured = flow.began != 0 && protocol != wire::UDP;
    let round_trip = measured.then(|| now_us().wrapping_sub(flow.began));
    health::answered(flow.backend, protocol, port, round_trip);
}

/// Enters into both entries what an answer makes of them.
#[expect(clippy::cast_possible_truncation, reason = "a protocol is one byte")]
#[inline(never)]
fn advance(scratch: &Scratch, flow: &mut Flow, flags: u32, before: u32, now: u32) {
    if is_refusal(flags) {
        return;
    }
    let protocol = scratch.arrival.protocol as u8;
    let state = life::answered(protocol, State::of(flow.state), before != now) as u8;
    if state == flow.state && !flow::keeps_warm(now, before) {
        return;
    }
    let is_news = state != flow.state;
    flow.state = state;
    let Some(other) = FLOWS.get_ptr_mut(&scratch.forward) else { return };
    // SAFETY: as in `select::lookup`.
    let other = unsafe { &mut *other };
    if protocol != wire::TCP {
        // Answers alone keep a datagram flow.
        other.last_seen = now;
    }
    if !is_news {
        return;
    }
    if other.state < State::Closing as u8 {
        other.state = state;
    }
    if state == State::Assured as u8 && flow.chosen != 0 {
        ASSURED.insert(&scratch.arrival, &*flow, u64::from(BPF_ANY)).ok();
        ASSURED.insert(&scratch.forward, &*other, u64::from(BPF_ANY)).ok();
    }
}

/// Enters what a packet that ends its connection, or its sender's half, makes of both entries: `flow` is the one of its own
/// direction.
#[expect(clippy::cast_possible_truncation, reason = "flags are one byte")]
#[inline(always)]
fn end(scratch: &Scratch, flow: &mut Flow, flags: u32, arriving: bool) {
    let key = if arriving { &scratch.forward } else { &scratch.arrival };
    let was_closed = flow.state == State::Closed as u8;
    let Some(other) = FLOWS.get_ptr_mut(key) else {
        flow.state = State::Closed as u8;
        return forget(scratch, flow, was_closed);
    };
    // SAFETY: as in `select::lookup`.
    let other = unsafe { &mut *other };
    let next = life::after(State::of(flow.state), flags as u8, other.state == State::Closing as u8);
    flow.state = next as u8;
    if next == State::Closed {
        other.state = State::Closed as u8;
        forget(scratch, flow, was_closed);
    }
}

/// It need not be kept any longer, nor counted if it has not been over before.
#[inline(always)]
fn forget(scratch: &Scratch, flow: &Flow, was_closed: bool) {
    if !was_closed {
        load::ended(flow);
    }
    if flow.chosen != 0 {
        ASSURED.remove(&scratch.forward).ok();
        ASSURED.remove(&scratch.arrival).ok();
    }
}

#[expect(clippy::cast_possible_truncation, reason = "flags are one byte")]
#[inline(always)]
fn is_last(flags: u32) -> bool {
    life::is_last(flags as u8)
}

#[inline(always)]
fn is_refusal(flags: u32) -> bool {
    flags & u32::from(TCP_RST) != 0
}

/// Puts the flow whose key is `scratch.forward` back into the table of all flows, if it had fallen out there and must not.
/// Whether it was so; then it is in `scratch.flow`.
#[inline(always)]
pub(crate) fn recall_sent(scratch: &mut Scratch) -> bool {
    let Scratch { forward, flow, .. } = scratch;
    // SAFETY: copied at once; what another flow in its place would do, that flow's own packets are refused for.
    let Some(remembered) = (unsafe { ASSURED.get(&*forward) }) else { return false };
    maps::copy(flow, remembered);
    flow.last_seen = select::now();
    FLOWS.insert(&*forward, &*flow, u64::from(BPF_ANY)).is_ok()
}

/// A packet has come for the container that has `slot`, on no flow that is known: who is asked may answer, so it may begin
/// one more. Whether there is an entry after all, by `scratch.arrival`, as in [`recall_sent`].
#[inline(always)]
pub(crate) fn recall_arrived(tcp_flags: u8, slot: u32, ifindex: u32) -> bool {
    let recalled = recall(tcp_flags.into(), slot) != 0;
    if recalled {
        // Not from within that one, for the sake of the stack.
        note_arrived(tcp_flags.into(), select::now(), ifindex);
    }
    recalled
}

/// Exported: few packets come here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn recall(tcp_flags: u32, slot: u32) -> u32 {
    // Who has never begun a flow waits for no answer.
    if !give_back(slot) || tcp_flags & u32::from(wire::TCP_SYN) != 0 {
        return 0;
    }
    let Ok(Scratch { arrival, flow, .. }) = maps::scratch() else { return 0 };
    // SAFETY: as in `recall_sent`.
    let Some(remembered) = (unsafe { ASSURED.get(&*arrival) }) else { return 0 };
    maps::copy(flow, remembered);
    FLOWS.insert(&*arrival, &*flow, u64::from(BPF_ANY)).ok();
    1
}

/// Whether the container may begin one more flow.
#[inline(always)]
pub(crate) fn may_begin(slot: u32) -> bool {
    let Some(budget) = NEW_FLOWS.get_ptr_mut(slot) else { return false };
    // SAFETY: the entry stays; two CPUs that take at once may take the same share, which is only generous.
    unsafe { &mut *budget }.take(budget::NEW_FLOWS, select::now_ns())
}

/// Whether the container has begun any flow.
#[inline(always)]
fn give_back(slot: u32) -> bool {
    let Some(budget) = NEW_FLOWS.get_ptr_mut(slot) else { return false };
    // SAFETY: as in `may_begin`.
    unsafe { &mut *budget }.give_back(budget::NEW_FLOWS)
}

#[inline(always)]
fn backend_of(flow: &Flow) -> Option<&'static Backend> {
    BACKENDS.get(flow.backend).filter(|backend| backend.generation == flow.generation)
}
