//! The flow of a packet to a service address: found, or begun by choosing a backend.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use netmanager_common::event::DropReason;
use netmanager_common::flow;
use netmanager_common::header::Header;
use netmanager_common::life::{self, State};
use netmanager_common::map::{Backend, Flow, Policy};
use netmanager_common::packet::Packet;
use netmanager_common::wire::{self, Ip};

use crate::maps::{self, BACKENDS, FLOWS, SERVICES, Scratch, TURN_LOCKS, TURNS};
use crate::miss;
use crate::{count, follow, health, load};

/// How often to try for a turn before taking one without the lock. Each try is a hash insertion, much longer than
/// the lock is held, so this ends early but for a CPU that was stopped (by a hypervisor) while it held the lock.
const TURN_TRIES: u32 = 16;

/// Seconds after which a lock was left behind: the kernel refuses to remove an entry while the same CPU, interrupted
/// in doing so, is at work on entries beside it.
const TURN_LOCK_LIFETIME: u32 = 1;

/// Nanoseconds of the monotonic clock, with the precision of a tick.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: takes nothing. The coarse clock is a memory read.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Seconds of the monotonic clock.
#[expect(clippy::cast_possible_truncation, reason = "136 years of uptime")]
#[inline(always)]
pub(crate) fn now() -> u32 {
    (now_ns() / 1_000_000_000) as u32
}

/// The translation of one packet.
pub(crate) struct Choice {
    pub(crate) source: Ip,
    pub(crate) backend: &'static Backend,
    pub(crate) slot: u32,
}

impl Choice {
    /// What a flow says, if its backend is still there.
    #[inline(always)]
    fn of(flow: &Flow) -> Option<Self> {
        let backend = BACKENDS.get(flow.backend)?;
        (backend.generation == flow.generation && backend.in_use()).then_some(Self {
            source: flow.source,
            backend,
            slot: flow.slot,
        })
    }
}

/// What is known of a packet's flow.
pub(crate) enum Lookup {
    Warm(Choice),
    /// A backend must be chosen. `replaces`: there is an entry, of a flow that has ended or lost its backend.
    New {
        replaces: bool,
    },
}

/// The flow that `packet`, whose key is `scratch.forward`, belongs to.
#[inline(always)]
pub(crate) fn lookup<H: Header>(scratch: &mut Scratch, packet: &Packet<H>) -> Result<Lookup, DropReason> {
    let Some(flow) = FLOWS.get_ptr_mut(&scratch.forward) else { return Ok(Lookup::New { replaces: false }) };
    // SAFETY: the entry's memory stays a value of this map until the program ends. If it becomes another flow's
    // meanwhile, this one packet may take that flow's way, and is refused at its end; and that flow may be noted as
    // seen or as ending, which changes nothing until a new connection takes its ports.
    let flow = unsafe { &mut *flow };
    let now = now();
    let (state, idle) = (State::of(flow.state), flow::idle(now, flow.last_seen));
    if life::begins_anew(packet.protocol(), packet.tcp_flags, state, idle) {
        return Ok(Lookup::New { replaces: true });
    }
    match Choice::of(flow) {
        Some(choice) => {
            let aside = choice.backend.aside != 0 && flow.chosen != 0;
            if aside && life::may_move(packet.protocol(), packet.tcp_flags, state) {
                return Ok(Lookup::New { replaces: true });
            }
            follow::sent(flow, packet, now);
            Ok(Lookup::Warm(choice))
        }
        None if life::is_first(packet.protocol(), packet.tcp_flags) => Ok(Lookup::New { replaces: true }),
        None => Err(DropReason::BackendGone),
    }
}

/// Begins the flow whose forward key is in `scratch`, of the container that has `slot`, with a packet that has these
/// flags.
#[inline(always)]
pub(crate) fn begin(
    scratch: &mut Scratch,
    slot: u32,
    replaces: bool,
    tcp_flags: u8,
) -> Result<Choice, DropReason> {
    // One after the other and not from within each other, for the sake of the stack.
    let known = count::result(recall_or_allow(slot, replaces.into(), tcp_flags.into()))?;
    if known != RECALLED {
        count::result(choose_backend())?;
        let replaces = replaces || known == OUTDATED;
        count::result(enter_flow(slot, replaces.into(), tcp_flags.into()))?;
    }
    // SAFETY: as in `lookup`.
    unsafe { FLOWS.get(&scratch.forward) }.and_then(Choice::of).ok_or(DropReason::TableChanged)
}

/// Of [`recall_or_allow`]: there is no entry.
const UNKNOWN: i32 = 0;
/// There is an entry again, and nothing to be chosen.
const RECALLED: i32 = 1;
/// There is an entry again, whose backend has gone.
const OUTDATED: i32 = 2;

/// Whether the flow whose forward key is in the scratch memory goes on, or may begin. Exported. What it gives is an end of
/// [`count`].
#[expect(clippy::cast_possible_truncation, reason = "flags are one byte")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn recall_or_allow(slot: u32, replaces: u32, tcp_flags: u32) -> i32 {
    let known = maps::scratch().and_then(|scratch| recall(scratch, slot, replaces != 0, tcp_flags as u8));
    count::end(known)
}

#[expect(clippy::cast_possible_truncation, reason = "a protocol is one byte")]
#[inline(always)]
fn recall(scratch: &mut Scratch, slot: u32, replaces: bool, tcp_flags: u8) -> Result<i32, DropReason> {
    let mut known = UNKNOWN;
    if !replaces && tcp_flags & wire::TCP_SYN == 0 && follow::recall_sent(scratch) {
        if Choice::of(&scratch.flow).is_some() {
            return Ok(RECALLED);
        }
        if !life::is_first(scratch.forward.protocol as u8, tcp_flags) {
            return Err(DropReason::BackendGone);
        }
        known = OUTDATED;
    }
    if follow::may_begin(slot) { Ok(known) } else { Err(DropReason::TooManyFlows) }
}

/// Chooses a backend for the flow whose forward key is in the scratch memory, and notes it in `flow` there. Exported. What it
/// gives is an end of [`count`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn choose_backend() -> i32 {
    let chosen = maps::scratch().and_then(|Scratch { forward: key, flow, .. }| {
        let Chosen { number, backend, chosen } = choose(&key.destination, &key.source)?;
        flow.backend = number;
        flow.generation = backend.generation;
        flow.chosen = chosen.into();
        Ok(0)
    });
    count::end(chosen)
}

/// [`enter`], exported. What it gives is an end of [`count`].
#[expect(clippy::cast_possible_truncation, reason = "flags are one byte")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enter_flow(slot: u32, replaces: u32, tcp_flags: u32) -> i32 {
    let entered = maps::scratch().and_then(|scratch| enter(scratch, slot, replaces != 0, tcp_flags as u8));
    count::end(entered.map(|()| 0))
}

/// Enters both directions of a flow to the backend that is noted in `scratch.flow`.
#[expect(clippy::cast_possible_truncation, reason = "a protocol is one byte")]
#[inline(always)]
fn enter(scratch: &mut Scratch, slot: u32, replaces: bool, tcp_flags: u8) -> Result<(), DropReason> {
    let Scratch { forward: key, arrival: reply, other: clash, flow, .. } = scratch;
    let Some(backend) = BACKENDS.get(flow.backend) else { return Err(DropReason::TableChanged) };
    if backend.generation != flow.generation {
        return Err(DropReason::TableChanged);
    }
    let instance_ip = maps::instance_ip(&key.source);
    if instance_ip.is_none() {
        return Err(DropReason::NoInstanceAddress);
    }
    let now = now();
    let answers_from = backend.answers_from(key.source, instance_ip);
    if answers_from.is_none() {
        return Err(DropReason::NoBackend);
    }
    *reply = flow::reply_key(key, answers_from);
    // SAFETY: read at once; what another flow in its place would do here is to refuse or allow these ports.
    if let Some(other) = unsafe { FLOWS.get(&*reply) }
        && other.source != key.destination
        && !State::of(other.state).is_ending()
    {
        // Packets may go in one direction only.
        *clash = flow::answered_key(reply, key.ifindex, other.source);
        // SAFETY: as above.
        let sent = unsafe { FLOWS.get(&*clash) }.map_or(u32::MAX, |sent| flow::idle(now, sent.last_seen));
        if sent.min(flow::idle(now, other.last_seen)) <= life::CLASH_LIFETIME {
            return Err(DropReason::PortClash);
        }
    }
    let protocol = key.protocol as u8;
    let is_timed = protocol != wire::UDP && (protocol != wire::TCP || tcp_flags & wire::TCP_SYN != 0);
    maps::copy(&mut flow.source, &key.destination);
    flow.slot = slot;
    flow.last_seen = now;
    flow.began = if is_timed { follow::now_us() } else { 0 };
    flow.state = State::New as u8;
    flow._pad = 0;
    // First the entry for the answers: once a packet is on its way, its answer must be understood.
    if FLOWS.insert(&*reply, &*flow, u64::from(BPF_ANY)).is_err() {
        return Err(DropReason::KernelRefused);
    }
    flow.source = instance_ip;
    if replaces {
        load::replaced(key);
    }
    let mode = if replaces { BPF_ANY } else { BPF_NOEXIST };
    match FLOWS.insert(&*key, &*flow, u64::from(mode)) {
        Ok(()) => load::begun(flow),
        Err(_) if replaces => return Err(DropReason::KernelRefused),
        // Another CPU has begun the same flow a moment ago: what it chose counts.
        Err(_) => {}
    }
    if flow.chosen != 0 {
        health::asked(flow.backend, flow.generation, protocol, key.destination_port);
    }
    Ok(())
}

/// What [`choose`] has chosen.
struct Chosen {
    number: u32,
    backend: &'static Backend,
    /// Among several, and not by an instance's own address.
    chosen: bool,
}

/// The backend of a service that has the turn, is the closest one, or has the fewest connections.
#[inline(always)]
fn choose(service_ip: &Ip, ns_ip: &Ip) -> Result<Chosen, DropReason> {
    // SAFETY: the entry's memory stays a value of this map until the program ends. The kernel may put another entry
    // there meanwhile, which the look at its address below finds out; all looks are volatile, so that the compiler
    // keeps their order.
    let Some(service) = (unsafe { SERVICES.get(service_ip) }) else {
        miss::report(service_ip, ns_ip);
        return Err(DropReason::ServiceUnknown);
    };
    // SAFETY: a valid reference, as above.
    let count = u32::from(unsafe { core::ptr::read_volatile(&raw const service.count) });
    if count == 0 {
        return Err(DropReason::NoBackend);
    }
    // SAFETY: as above.
    let policy = unsafe { core::ptr::read_volatile(&raw const service.policy) };
    let turn = if count == 1 || policy == Policy::Closest as u16 { 0 } else { take_turn(service_ip) };
    // SAFETY: as above.
    let first = unsafe { core::ptr::read_volatile(&raw const service.first) };
    let place = if count > 1 && policy == Policy::LeastConnections as u16 {
        load::fewest(service, first, turn, count)
    } else {
        flow::in_turn(first, turn, count)
    };
    let Some(number) = service.backends.get(place) else {
        return Err(DropReason::TableChanged);
    };
    // SAFETY: as above.
    let number = u32::from(unsafe { core::ptr::read_volatile(number) });
    // SAFETY: as above. Read last what a change would have written first.
    let owner = unsafe { core::ptr::read_volatile(&raw const service.service_ip) };
    if owner != *service_ip {
        return Err(DropReason::TableChanged);
    }
    match BACKENDS.get(number) {
        Some(backend) if backend.in_use() => {
            Ok(Chosen { number, backend, chosen: policy != Policy::Instance as u16 })
        }
        _ => Err(DropReason::TableChanged),
    }
}

/// Counts one connection to `service_ip` and says how many there were before.
///
/// The atomic "fetch and add" that one would use here is missing in the arm64 JIT before Linux 5.18, and programs
/// with it would not load there. So the counter has a lock: an entry that only one CPU can insert.
#[inline(always)]
fn take_turn(service_ip: &Ip) -> u32 {
    let Some(counter) = TURNS.get_ptr_mut(service_ip) else { return 0 };
    let now = now();
    let mut locked = false;
    for _ in 0..TURN_TRIES {
        if TURN_LOCKS.insert(service_ip, now, u64::from(BPF_NOEXIST)).is_ok() {
            locked = true;
            break;
        }
    }
    // SAFETY: one aligned word.
    let since = if locked { None } else { unsafe { TURN_LOCKS.get(service_ip) }.copied() };
    if since.is_some_and(|since| flow::idle(now, since) > TURN_LOCK_LIFETIME) {
        // Nobody holds a lock for so long: the kernel has refused to remove it. It is for the next one to take.
        locked = true;
    }
    // SAFETY: an aligned word of the map, changed by whoever holds the lock. Without it (see `TURN_TRIES`), or when the
    // word has become another service's meanwhile, one turn may be given twice, which is only unfair.
    let turn = unsafe { core::ptr::read_volatile(counter) };
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(counter, turn.wrapping_add(1)) };
    if locked {
        TURN_LOCKS.remove(service_ip).ok();
    }
    turn
}
