//! Every map. What is in them, who writes and who reads: [`netmanager_common::map`].

use core::mem::offset_of;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use netmanager_common::budget::Budget;
use netmanager_common::event::{DROP_REASONS, DropReason};
use netmanager_common::health::Health;
use netmanager_common::map::{
    Backend, EVENTS_SIZE, Endpoint, Flow, FlowKey, FragmentKey, FragmentPorts, MAX_ASSURED, MAX_BACKENDS,
    MAX_BUDGETS, MAX_EARLY, MAX_ENDPOINTS, MAX_FLOWS, MAX_FRAGMENTS, MAX_HOSTS, MAX_MISSES, MAX_PEERS,
    MAX_SENDERS, MAX_SERVICES, MAX_TURN_LOCKS, Node, Peer, Service, TRACES_SIZE, Traffic, Veth,
};
use netmanager_common::plan::Plan;
use netmanager_common::trace::{Record, Switch, Told};
use netmanager_common::wire::Ip;

#[map]
pub(crate) static NODE: Array<Node> = Array::pinned(1, 0);

#[map]
pub(crate) static PLAN: Array<Plan> = Array::pinned(1, 0);

#[map]
pub(crate) static ENDPOINTS: HashMap<Ip, Endpoint> = HashMap::pinned(MAX_ENDPOINTS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static SERVICES: HashMap<Ip, Service> = HashMap::pinned(MAX_SERVICES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::pinned(MAX_BACKENDS, 0);

#[map]
pub(crate) static HOSTS: HashMap<Ip, u32> = HashMap::pinned(MAX_HOSTS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static PEERS: HashMap<Peer, u32> = HashMap::pinned(MAX_PEERS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(MAX_FLOWS, 0);

#[map]
pub(crate) static ASSURED: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(MAX_ASSURED, 0);

#[map]
pub(crate) static NEW_FLOWS: Array<Budget> = Array::pinned(MAX_ENDPOINTS, 0);

#[map]
pub(crate) static HEALTH: Array<Health> = Array::pinned(MAX_BACKENDS, 0);

#[map]
pub(crate) static LOADS: Array<u32> = Array::pinned(MAX_BACKENDS, 0);

#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> = LruHashMap::pinned(MAX_FRAGMENTS, 0);

#[map]
pub(crate) static TURNS: HashMap<Ip, u32> = HashMap::pinned(MAX_SERVICES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static TURN_LOCKS: HashMap<Ip, u32> = HashMap::pinned(MAX_TURN_LOCKS, 0);

#[map]
pub(crate) static MISSES: LruHashMap<Ip, u64> = LruHashMap::pinned(MAX_MISSES, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(EVENTS_SIZE, 0);

#[map]
pub(crate) static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(DROP_REASONS, 0);

#[map]
pub(crate) static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::pinned(MAX_ENDPOINTS, 0);

#[map]
pub(crate) static SLOW_PATH: Array<u32> = Array::pinned(1, 0);

#[map]
pub(crate) static BUDGETS: Array<Budget> = Array::pinned(MAX_BUDGETS, 0);

#[map]
pub(crate) static SENDERS: LruHashMap<Ip, Budget> = LruHashMap::pinned(MAX_SENDERS, 0);

#[map]
pub(crate) static EARLY: PerCpuArray<u64> = PerCpuArray::pinned(MAX_EARLY, 0);

#[map]
pub(crate) static PUNTS: PerCpuArray<u64> = PerCpuArray::pinned(DROP_REASONS, 0);

#[map]
pub(crate) static TRACE: Array<Switch> = Array::pinned(1, 0);

#[map]
pub(crate) static TRACED: Array<Told> = Array::pinned(1, 0);

#[map]
pub(crate) static TRACES: RingBuf = RingBuf::pinned(TRACES_SIZE, 0);

/// Keys and values for [`FLOWS`] and [`FRAGMENTS`], which would take half of the stack. Programs at these hooks run with
/// softirqs disabled, so that on one CPU no other one gets between.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) forward: FlowKey,
    pub(crate) arrival: FlowKey,
    pub(crate) other: FlowKey,
    pub(crate) flow: Flow,
    pub(crate) fragment: FragmentKey,
    /// Where an option of TCP begins.
    pub(crate) option: u16,
    /// What is told of a packet.
    pub(crate) traced: Record,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's scratch memory. What is in it is undefined; whoever calls has no other reference to it.
#[inline(always)]
pub(crate) fn scratch() -> Result<&'static mut Scratch, DropReason> {
    // SAFETY: the memory is this CPU's own and any bytes are a value; each part of a path takes it for itself.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch }).ok_or(DropReason::KernelRefused)
}

/// Copies a value, of words alone, from memory to memory. What the compiler makes of an assignment would be a call of its
/// own function: slower, and one frame of the stack more.
#[inline(always)]
pub(crate) fn copy<T: Copy>(to: &mut T, from: &T) {
    const { assert!(size_of::<T>().is_multiple_of(size_of::<u32>()) && align_of::<T>() == align_of::<u32>()) };
    let (to, from) = (core::ptr::from_mut(to).cast::<u32>(), core::ptr::from_ref(from).cast::<u32>());
    for place in 0..size_of::<T>() / size_of::<u32>() {
        // SAFETY: it is borrowed, and as long as that.
        let word = unsafe { from.wrapping_add(place).read() };
        // SAFETY: as above.
        unsafe { to.wrapping_add(place).write_volatile(word) };
    }
}

/// As [`copy`], of [`Ip::NONE`].
#[inline(always)]
pub(crate) fn clear(address: &mut Ip) {
    let address = core::ptr::from_mut(address).cast::<u32>();
    for place in 0..size_of::<Ip>() / size_of::<u32>() {
        // SAFETY: an address is four words.
        unsafe { address.wrapping_add(place).write_volatile(0) };
    }
}

/// Which addresses are whose. It changes only while no container is attached.
#[inline(always)]
pub(crate) fn plan() -> Result<&'static Plan, DropReason> {
    PLAN.get(0).ok_or(DropReason::NotReady)
}

/// The attachment of the container of this node that has this NsIP. Nothing also if its entry is replaced at this
/// very moment.
#[inline(always)]
pub(crate) fn veth(ns_ip: &Ip) -> Option<Veth> {
    const WORDS: usize = size_of::<Veth>() / size_of::<u32>();
    let entry = ENDPOINTS.get_ptr(ns_ip)?;
    // SAFETY: see `words`.
    let words: [u32; WORDS] = unsafe { words(entry, offset_of!(Endpoint, veth)) };
    // SAFETY: of the same size; any words are an attachment.
    is_of(entry, ns_ip).then(|| unsafe { core::mem::transmute::<[u32; WORDS], Veth>(words) })
}

/// The instance address of the container of this node that has this NsIP, or none.
#[inline(always)]
pub(crate) fn instance_ip(ns_ip: &Ip) -> Ip {
    let Some(entry) = ENDPOINTS.get_ptr(ns_ip) else { return Ip::NONE };
    // SAFETY: see `words`.
    let address = Ip::from_words(unsafe { words(entry, offset_of!(Endpoint, instance_ip)) });
    if is_of(entry, ns_ip) { address } else { Ip::NONE }
}

/// Whether what has been read of `entry` so far was this container's.
#[inline(always)]
fn is_of(entry: *const Endpoint, ns_ip: &Ip) -> bool {
    // SAFETY: see `words`. Read last what a change would have written first.
    Ip::from_words(unsafe { words(entry, offset_of!(Endpoint, ns_ip)) }) == *ns_ip
}

/// The words of an entry of [`ENDPOINTS`] from the byte `at` on.
///
/// # Safety
/// They must be within the entry, whose memory stays a value of the map until the program ends. The kernel may put
/// another entry there meanwhile, hence word by word, volatile, which the compiler does not reorder.
#[inline(always)]
unsafe fn words<const N: usize>(entry: *const Endpoint, at: usize) -> [u32; N] {
    let mut words = [0; N];
    let first = entry.wrapping_byte_add(at).cast::<u32>();
    for (place, word) in words.iter_mut().enumerate() {
        // SAFETY: by the contract of this function.
        *word = unsafe { core::ptr::read_volatile(first.wrapping_add(place)) };
    }
    words
}
