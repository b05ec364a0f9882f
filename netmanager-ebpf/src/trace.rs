//! Telling a person who watches what becomes of packets: at the end of their way, of those that are wanted, at most as many
//! as one can read. While nobody watches, it is one look at a word that no CPU writes.

use core::mem::offset_of;

use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC};
use netmanager_common::budget;
use netmanager_common::link::{self, SHELL_LEN};
use netmanager_common::punt::Origin;
use netmanager_common::trace::{Program, Record, Switch, Verdict};
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT_OFFSET, IPV4_LEN, IPV6_LEN, Ip, Ipv4, Ipv6,
    TCP, UDP, UDP_LEN,
};

use crate::maps::{self, NODE, Scratch, TRACE, TRACED, TRACES};
use crate::select;
use crate::skb::Skb;

/// Whether somebody watches. The kernel makes a few instructions of this look into an array: it calls nothing.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    until().is_some_and(|until| {
        // SAFETY: the entry stays; one aligned word of it is read.
        unsafe { core::ptr::read_volatile(until) != 0 }
    })
}

/// Where it stands until when somebody watches.
#[inline(always)]
fn until() -> Option<*mut u64> {
    const _: () = assert!(offset_of!(Switch, until) == 0);
    TRACE.get_ptr_mut(0).map(<*mut Switch>::cast)
}

/// Tells of a packet with this verdict, if it is wanted; `reason`: why it goes no further, or [`Record::NO_REASON`].
#[inline(always)]
pub(crate) fn tell(skb: &Skb, origin: Origin, verdict: i32, reason: u32) {
    // What the uplink leaves to the host is not ours.
    if verdict != TC_ACT_UNSPEC && note(skb, origin, verdict, reason) {
        publish();
    }
}

/// Notes what is told of a packet. Whether that has come about, and somebody still watches. A function to the kernel too:
/// the path that has ended has left its stack to this one.
#[inline(never)]
fn note(skb: &Skb, origin: Origin, verdict: i32, reason: u32) -> bool {
    let Some(until) = until() else { return false };
    let now = select::now_ns();
    // SAFETY: as in `is_on`.
    if unsafe { core::ptr::read_volatile(until) } <= now {
        // Whoever watched has gone without saying so. The next one writes it anew.
        // SAFETY: one aligned word of an entry that stays.
        unsafe { core::ptr::write_volatile(until, 0) };
        return false;
    }
    maps::scratch().is_ok_and(|scratch| look(skb, origin, verdict, reason, now, scratch).is_some())
}

/// Publishes what was noted, if it is wanted and there is room for it. As [`note`].
#[inline(never)]
fn publish() -> bool {
    let (Some(switch), Ok(scratch)) = (TRACE.get(0), maps::scratch()) else { return false };
    let record = &scratch.traced;
    // While the tracer changes the switch, a packet may be judged by both.
    if !switch.wants(record) {
        return false;
    }
    let Some(told) = TRACED.get_ptr_mut(0) else { return false };
    // SAFETY: the entry stays; two CPUs that take at once may take the same share, which is only generous.
    let told = unsafe { &mut *told };
    let fits = told.budget.take(budget::TRACE, record.time_ns) && TRACES.output::<Record>(record, 0).is_ok();
    if !fits {
        told.untold = told.untold.wrapping_add(1);
    }
    fits
}

/// What is not told of an IP header.
struct Header {
    /// Bytes of it.
    length: u16,
    /// Whether ports may follow.
    is_first: bool,
}

/// Notes the IP header at `at`.
#[inline(always)]
fn read(skb: &Skb, at: u16, is_v4: bool, record: &mut Record) -> Option<Header> {
    if is_v4 {
        let ip: Ipv4 = skb.load(at)?;
        record.source = Ip::from_v4(ip.source);
        record.destination = Ip::from_v4(ip.destination);
        record.protocol = ip.protocol;
        record.length = ip.total_length.get().into();
        let length = u16::from(ip.version_and_length & 0x0f) * 4;
        return Some(Header { length, is_first: ip.fragment.get() & FRAGMENT_OFFSET == 0 });
    }
    let ip: Ipv6 = skb.load(at)?;
    record.source = ip.source;
    record.destination = ip.destination;
    record.protocol = ip.next_header;
    record.length = u32::from(ip.payload_length.get()) + u32::from(IPV6_LEN);
    Some(Header { length: IPV6_LEN, is_first: true })
}

/// Notes all that is told of a packet, in the scratch memory: it would not fit on the stack of the path that has ended.
#[expect(clippy::cast_possible_truncation, reason = "reasons are few")]
#[inline(always)]
fn look(skb: &Skb, origin: Origin, verdict: i32, reason: u32, now: u64, scratch: &mut Scratch) -> Option<()> {
    let goes_on = reason == u32::from(Record::NO_REASON);
    let program = match origin {
        _ if skb.is_again() => Program::SlowPath,
        Origin::Container => Program::Container,
        Origin::Uplink => Program::Uplink,
        Origin::Netmanager => Program::SlowPath,
    };
    let record = &mut scratch.traced;
    record.time_ns = now;
    maps::clear(&mut record.source);
    maps::clear(&mut record.destination);
    maps::clear(&mut record.onward_source);
    maps::clear(&mut record.onward_destination);
    maps::clear(&mut record.node);
    record.ifindex = skb.ifindex();
    record.length = 0;
    record.source_port = Be16::new(0);
    record.destination_port = Be16::new(0);
    record.verdict = match (goes_on, verdict) {
        (true, TC_ACT_REDIRECT) => Verdict::Delivered,
        (true, _) => Verdict::Host,
        (false, TC_ACT_SHOT) => Verdict::Dropped,
        (false, _) => Verdict::Given,
    } as u8;
    record.reason = reason as u8;
    record.program = program as u8;
    record.protocol = 0;
    let ethertype = Be16(skb.load(ETHERNET_LEN - 2)?);
    if ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6 {
        return Some(());
    }
    let mut at = ETHERNET_LEN;
    // The Ethernet header is still that of the inner packet, which may be of another version than the outer one.
    let Some([version]) = skb.load::<[u8; 1]>(at) else { return Some(()) };
    let is_v4 = version >> 4 == 4;
    let Some(mut header) = read(skb, at, is_v4, record) else { return Some(()) };
    if is_tunnel(record, origin) {
        record.node = if origin == Origin::Uplink { record.source } else { record.destination };
        if goes_on {
            record.verdict = Verdict::Sent as u8;
        }
        at += UDP_LEN + if is_v4 { IPV4_LEN } else { IPV6_LEN };
        let Some([mut version]) = skb.load::<[u8; 1]>(at) else { return Some(()) };
        if version == link::FIRST {
            at += SHELL_LEN;
            let Some([behind]) = skb.load::<[u8; 1]>(at) else { return Some(()) };
            version = behind;
        }
        header = match read(skb, at, version >> 4 == 4, record) {
            Some(inner) => inner,
            None => return Some(()),
        };
    }
    if matches!(record.protocol, TCP | UDP)
        && header.is_first
        && let Some([a, b, c, d]) = skb.load::<[u8; 4]>(at + header.length)
    {
        record.source_port = Be16([a, b]);
        record.destination_port = Be16([c, d]);
    }
    if goes_on {
        record.onward_source = record.source;
        record.onward_destination = record.destination;
        as_it_came(scratch, origin);
    }
    Some(())
}

/// Whether these are outer headers: at the uplink they are to this node, elsewhere from it.
#[inline(always)]
fn is_tunnel(record: &Record, origin: Origin) -> bool {
    let Some(node) = NODE.get(0) else { return false };
    let ours = if origin == Origin::Uplink { record.destination } else { record.source };
    record.protocol == UDP && ours == node.address_towards(ours)
}

/// The ends before they were translated, which the key of the flow still has: only what was translated has a service
/// address for its source, and each packet that was leaves its key in the scratch memory of this CPU.
#[inline(always)]
fn as_it_came(scratch: &mut Scratch, origin: Origin) {
    let Scratch { forward, arrival, traced: record, .. } = scratch;
    let key = match origin {
        Origin::Container => forward,
        Origin::Uplink => arrival,
        Origin::Netmanager => return,
    };
    let Ok(plan) = maps::plan() else { return };
    let has_ports = matches!(record.protocol, TCP | UDP);
    let is_its = plan.is_service(record.onward_source)
        && key.protocol == u32::from(record.protocol)
        && (!has_ports
            || (key.source_port == record.source_port && key.destination_port == record.destination_port));
    if is_its {
        maps::copy(&mut record.source, &key.source);
        maps::copy(&mut record.destination, &key.destination);
    }
}
