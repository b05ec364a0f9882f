//! Every map. What is in them, who writes and who reads: [`netmanager_common::map`].

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use netmanager_common::event::DROP_REASONS;
use netmanager_common::map::{
    Backend, EVENTS_SIZE, Endpoint, Flow, FlowKey, MAX_BACKENDS, MAX_ENDPOINTS, MAX_FLOWS, MAX_HOSTS,
    MAX_MISSES, MAX_PEERS, MAX_SERVICES, MAX_TURN_LOCKS, Node, Peer, Service, Traffic,
};
use netmanager_common::wire::Ip4;

#[map]
pub(crate) static NODE: Array<Node> = Array::pinned(1, 0);

#[map]
pub(crate) static ENDPOINTS: HashMap<Ip4, Endpoint> = HashMap::pinned(MAX_ENDPOINTS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static SERVICES: HashMap<Ip4, Service> = HashMap::pinned(MAX_SERVICES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::pinned(MAX_BACKENDS, 0);

#[map]
pub(crate) static HOSTS: HashMap<Ip4, u32> = HashMap::pinned(MAX_HOSTS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static PEERS: HashMap<Peer, u32> = HashMap::pinned(MAX_PEERS, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(MAX_FLOWS, 0);

#[map]
pub(crate) static TURNS: HashMap<Ip4, u32> = HashMap::pinned(MAX_SERVICES, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static TURN_LOCKS: HashMap<Ip4, u32> = HashMap::pinned(MAX_TURN_LOCKS, 0);

#[map]
pub(crate) static MISSES: LruHashMap<Ip4, u64> = LruHashMap::pinned(MAX_MISSES, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(EVENTS_SIZE, 0);

#[map]
pub(crate) static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(DROP_REASONS, 0);

#[map]
pub(crate) static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::pinned(MAX_ENDPOINTS, 0);

/// The container of this node that has this NsIP. Nothing also if its entry is replaced at this very moment.
#[inline(always)]
pub(crate) fn endpoint(ns_ip: Ip4) -> Option<Endpoint> {
    const WORDS: usize = size_of::<Endpoint>() / size_of::<u32>();
    let entry = ENDPOINTS.get_ptr(ns_ip)?;
    let mut copy = [0; WORDS];
    for (place, word) in copy.iter_mut().enumerate() {
        // SAFETY: within the entry, whose memory stays a value of this map until the program ends. The kernel may
        // put another entry there meanwhile, hence word by word, volatile, which the compiler does not reorder.
        *word = unsafe { core::ptr::read_volatile(entry.cast::<u32>().wrapping_add(place)) };
    }
    // SAFETY: as above. Read last what such a change would have written first.
    let owner = unsafe { core::ptr::read_volatile(entry.cast::<u32>()) };
    // SAFETY: of the same size; any words are an endpoint.
    (owner == ns_ip.word()).then(|| unsafe { core::mem::transmute::<[u32; WORDS], Endpoint>(copy) })
}
