//! Telling user space which service addresses are needed and not known.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use netmanager_common::event::{MISS_INTERVAL_NS, MissRecord};
use netmanager_common::wire::Ip;

use crate::maps::{EVENTS, MISSES};

/// Reports that `service_ip` is needed for the sake of the container `ns_ip`, unless that was reported less than
/// [`MISS_INTERVAL_NS`] ago.
#[inline(always)]
pub(crate) fn report(service_ip: &Ip, ns_ip: &Ip) {
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a value of 8 aligned bytes is read at once; if the entry is recycled meanwhile, a report may come too
    // early or a packet too late.
    if let Some(&last) = unsafe { MISSES.get(service_ip) } {
        if now.wrapping_sub(last) < MISS_INTERVAL_NS {
            return;
        }
        // Several CPUs may be here. All that remove the entry may try to make it anew: one of them succeeds.
        if MISSES.remove(service_ip).is_err() {
            return;
        }
    }
    if MISSES.insert(service_ip, now, u64::from(BPF_NOEXIST)).is_err() {
        return;
    }
    if EVENTS.output::<MissRecord>(MissRecord { service_ip: *service_ip, ns_ip: *ns_ip }, 0).is_err() {
        // The ring is full. Nobody has been told, so the next packet may try again.
        MISSES.insert(service_ip, now.wrapping_sub(MISS_INTERVAL_NS), u64::from(BPF_ANY)).ok();
    }
}
