//! The way of what a program cannot finish alone: to netmanager, and back.

use netmanager_common::budget;
use netmanager_common::event::DropReason;
use netmanager_common::header::Header;
use netmanager_common::link::{self, SHELL_LEN};
use netmanager_common::map::MAX_ENDPOINTS;
use netmanager_common::packet::Packet;
use netmanager_common::punt::{self, Origin, TAG_LEN, Tag};
use netmanager_common::trace::Record;
use netmanager_common::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, IPV6_LEN, Ip, Ipv4, Ipv6,
};

use crate::maps::{self, BUDGETS, SLOW_PATH};
use crate::skb::{self, Family, Skb};
use crate::{container, count, deliver, select, trace, uplink};

/// The verdict on a frame whose path has come to this [`count::end`]: what it says, or the slow path, or a drop with its
/// reason counted.
#[inline(always)]
pub(crate) fn finish(skb: &Skb, origin: Origin, end: i32) -> i32 {
    let (verdict, reason) = match count::reason(end) {
        None => (end, u32::from(Record::NO_REASON)),
        Some(reason) if punt::is_slow(reason) && origin != Origin::Netmanager => {
            (punt(skb, origin, reason), reason)
        }
        Some(reason) => (count::drop(reason), reason),
    };
    if trace::is_on() {
        trace::tell(skb, origin, verdict, reason);
    }
    verdict
}

/// Gives the frame to netmanager, if that listens and the container has not used up its share. A function to the kernel
/// too: the path that has ended has left its stack to this one.
#[inline(never)]
fn punt(skb: &Skb, origin: Origin, reason: u32) -> i32 {
    match to_netmanager(skb, origin, reason) {
        Some(verdict) => {
            count::punted(reason);
            verdict
        }
        None => count::drop(reason),
    }
}

#[inline(always)]
fn to_netmanager(skb: &Skb, origin: Origin, reason: u32) -> Option<i32> {
    let &device = SLOW_PATH.get(0).filter(|device| **device != 0)?;
    let share = match origin {
        Origin::Container => sender(skb)?,
        _ => receiver(skb)?.wrapping_add(MAX_ENDPOINTS),
    };
    let budget = BUDGETS.get_ptr_mut(share)?;
    // SAFETY: the entry stays; two CPUs that take at once may take the same share, which is only generous.
    if !unsafe { &mut *budget }.take(budget::CONTAINER, select::now_ns()) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "reasons are few")]
    let tag = Tag { origin, reason: reason as u8, ifindex: skb.ifindex() };
    skb.store(0, &tag.bytes()).ok()?;
    Some(skb::redirect(device))
}

/// The slot of the container that has truly sent the frame.
#[inline(always)]
fn sender(skb: &Skb) -> Option<u32> {
    let ethernet: Ethernet = skb.load(0)?;
    let sender = match ethernet.ethertype {
        ETHERTYPE_IPV4 => container::check_source(skb, &skb.load::<Ipv4>(ETHERNET_LEN)?),
        ETHERTYPE_IPV6 => container::check_source(skb, &skb.load::<Ipv6>(ETHERNET_LEN)?),
        _ => return None,
    };
    sender.ok().map(|sender| sender.slot)
}

/// Where the destination is: it ends either header.
const DESTINATION: u16 = IPV4_LEN - 4;
const DESTINATION6: u16 = IPV6_LEN - 16;

/// The slot of the container that the inner packet is for.
#[inline(always)]
fn receiver(skb: &Skb) -> Option<u32> {
    let ethernet: Ethernet = skb.load(0)?;
    let outer = if ethernet.ethertype == ETHERTYPE_IPV4 { Family::V4 } else { Family::V6 };
    let mut inner = ETHERNET_LEN + outer.overhead();
    let [mut version]: [u8; 1] = skb.load(inner)?;
    if version == link::FIRST {
        inner += SHELL_LEN;
        [version] = skb.load(inner)?;
    }
    // Not the whole header, for the sake of the stack.
    let destination = match version >> 4 {
        4 => Ip::from_v4(skb.load(inner + DESTINATION)?),
        _ => skb.load(inner + DESTINATION6)?,
    };
    maps::veth(&destination).map(|veth| veth.slot)
}

/// The verdict on a frame that netmanager has written.
#[inline(always)]
pub(crate) fn handle(skb: &Skb) -> i32 {
    let Some(tag) = skb.load::<[u8; TAG_LEN]>(0).and_then(Tag::read) else {
        // The kernel itself speaks on every interface that is up.
        return count::drop(DropReason::NotIp as u32);
    };
    if skb.set_for_host().is_err() {
        return count::drop(DropReason::KernelRefused as u32);
    }
    let skb = &skb.again_from(tag.ifindex);
    let end = match tag.origin {
        Origin::Container => container::handle(skb),
        Origin::Uplink => uplink::handle(skb),
        Origin::Netmanager => deliver(skb),
    };
    finish(skb, tag.origin, end)
}

/// A function to the kernel too, for the sake of the stack.
#[inline(never)]
fn deliver(skb: &Skb) -> i32 {
    let Some(ethernet) = skb.load::<Ethernet>(0) else { return count::end(Err(DropReason::Malformed)) };
    count::end(match ethernet.ethertype {
        ETHERTYPE_IPV4 => by_destination::<Ipv4>(skb),
        ETHERTYPE_IPV6 => by_destination::<Ipv6>(skb),
        _ => Err(DropReason::NotIp),
    })
}

/// Brings a complete packet to the container that it is for, on this node or another one.
#[inline(always)]
fn by_destination<H: Header>(skb: &Skb) -> Result<i32, DropReason> {
    let ip: H = skb.load(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
    let destination = ip.destination();
    let packet = Packet::opaque(ip);
    if let Some(receiver) = maps::veth(&destination) {
        return deliver::to_container(skb, &packet, &receiver);
    }
    container::to_node(skb, &packet, container::host_of(&destination)?)
}
