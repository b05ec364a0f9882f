//! Keeping the underlay out: bare packets with the addresses of containers, and floods from where nothing is known.

use aya_ebpf::bindings::BPF_ANY;
use netmanager_common::budget::{self, Budget};
use netmanager_common::map::{Backend, MAX_BACKENDS_PER_SERVICE, Peer, Policy, STRANGERS_BUDGET};
use netmanager_common::plan::Plan;
use netmanager_common::wire::Ip;

use crate::maps::{self, BACKENDS, BUDGETS, HOSTS, PEERS, SENDERS, SERVICES};
use crate::select;

/// Whether a packet between these addresses, at the uplink and outside of the tunnel, must not come in: one of them is a
/// container's on this node. The host has a route for just that address to the container, so that nobody out there who
/// has it too could be spoken to anyway. All others in the overlay's ranges may be the LAN's: whoever numbers a LAN by
/// 10.18.0.0/16 is not to lose it.
#[inline(always)]
pub(crate) fn is_inner(source: Ip, destination: Ip) -> bool {
    let Ok(plan) = maps::plan() else { return false };
    is_container_here(plan, destination) || is_container_here(plan, source)
}

#[inline(always)]
fn is_container_here(plan: &Plan, address: Ip) -> bool {
    plan.is_container(address) && maps::veth(&address).is_some()
}

/// What is known of whoever sends through the tunnel with some inner source.
pub(crate) enum Sender {
    /// The table has the source at this very node, as this instance's.
    Owner(&'static Backend),
    /// The table has it elsewhere, or it is none of the overlay's.
    Impostor,
    /// The table does not have it. `is_node`: it has the node; `is_service`: the source is a service address.
    New { is_node: bool, is_service: bool },
}

/// Who `peer`, an address of the underlay, is to a packet with the inner source `source`.
#[inline(always)]
pub(crate) fn sender(peer: Ip, source: Ip) -> Sender {
    // SAFETY: one aligned word. If it is another address's by now, the backend that it leads to says so.
    if let Some(&number) = unsafe { HOSTS.get(&source) } {
        return match at(number, peer, source).or_else(|| at(left_behind(&source), peer, source)) {
            Some(backend) => Sender::Owner(backend),
            None => Sender::Impostor,
        };
    }
    let Ok(plan) = maps::plan() else { return Sender::Impostor };
    let is_service = plan.is_service(source);
    if !is_service && !plan.is_container(source) {
        return Sender::Impostor;
    }
    // SAFETY: only whether there is an entry matters.
    let is_node = unsafe { PEERS.get(&Peer::node(peer)) }.is_some();
    Sender::New { is_node, is_service }
}

/// The backend of this number, if it has `source` and is at `peer`.
#[inline(always)]
fn at(number: u32, peer: Ip, source: Ip) -> Option<&'static Backend> {
    BACKENDS.get(number).filter(|backend| backend.node == peer && backend.in_use() && backend.owns(source))
}

/// The number of an instance that speaks under this address too: it has moved, and is being stopped where it was. The
/// address is its owner's, and that is where it has moved to. A number that is no backend's, if there is none. A function
/// to the kernel too: hardly a packet needs it.
#[inline(never)]
fn left_behind(source: &Ip) -> u32 {
    const NOBODY: u32 = u32::MAX;
    // SAFETY: read at once, and believed if it was this address's all the time.
    let Some(service) = (unsafe { SERVICES.get(source) }) else { return NOBODY };
    if service.resting == 0 || service.policy != Policy::Instance as u16 {
        return NOBODY;
    }
    let number = service.backends[usize::from(service.count) % MAX_BACKENDS_PER_SERVICE];
    if service.service_ip == *source { u32::from(number) } else { NOBODY }
}

/// Whether [`may_be_new`] would refuse a packet of a stranger. Takes nothing.
#[inline(always)]
pub(crate) fn is_over_budget(stranger: &Ip) -> bool {
    let now = select::now_ns();
    // SAFETY: read at once; what it says is only a moment early or late.
    let own = unsafe { SENDERS.get(stranger) };
    own.is_some_and(|budget| budget.is_used_up(budget::UNKNOWN_SOURCE, now))
        || BUDGETS.get(STRANGERS_BUDGET).is_some_and(|budget| budget.is_used_up(budget::STRANGERS, now))
}

/// Whether one more packet through the tunnel from `sender`, an address of the underlay, may be looked into although its
/// inner source is not known; a node is known there or not. A function to the kernel too, for the sake of the stack.
#[inline(never)]
pub(crate) fn may_be_new(sender: &Ip, is_node: bool) -> bool {
    let now = select::now_ns();
    if SENDERS.get_ptr_mut(sender).is_none() {
        SENDERS.insert(sender, &Budget::default(), u64::from(BPF_ANY)).ok();
    }
    // No entry: the table is at work on others just now.
    let Some(own) = SENDERS.get_ptr_mut(sender) else { return false };
    // SAFETY: the entry's memory stays a value of this map until the program ends. Two CPUs that take at once may take the
    // same share, and if it has become another sender's, that one has a packet less.
    if !unsafe { &mut *own }.take(budget::UNKNOWN_SOURCE, now) {
        return false;
    }
    let Some(strangers) = BUDGETS.get_ptr_mut(STRANGERS_BUDGET) else { return false };
    // SAFETY: as above.
    is_node || unsafe { &mut *strangers }.take(budget::STRANGERS, now)
}
