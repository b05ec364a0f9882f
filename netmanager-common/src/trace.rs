//! Sampling packets for a person who watches: what is switched on, and what is then told of a packet.

use crate::event::DropReason;
use crate::wire::{Be16, Ip};

/// How long the switch stays on without being renewed, so that a tracer that was killed costs nothing any more.
pub const LEASE_NS: u64 = 3_000_000_000;
/// Addresses that an end may have: two of each family.
pub const MOST_ADDRESSES: usize = 4;

/// Value of [`crate::map::TRACE`]: which packets are told of. All zeroes: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Switch {
    /// Until when, nanoseconds of the monotonic clock; 0: it is off.
    pub until: u64,
    /// Only those from one of these, as they were sent or as they go on. The first one none: from anybody.
    pub from: [Ip; MOST_ADDRESSES],
    /// Only those to one of these, likewise.
    pub to: [Ip; MOST_ADDRESSES],
    /// Other than 0: only those that are dropped.
    pub drops_only: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Switch>() == 8 + 2 * 64 + 4 + 4);

impl Switch {
    /// Whether a packet is to be told of.
    #[must_use]
    #[inline(always)]
    pub fn wants(&self, record: &Record) -> bool {
        if self.drops_only != 0 && record.verdict != Verdict::Dropped as u8 {
            return false;
        }
        is_among(&self.from, &record.source, &record.onward_source)
            && is_among(&self.to, &record.destination, &record.onward_destination)
    }
}

#[inline(always)]
fn is_among(wanted: &[Ip; MOST_ADDRESSES], sent: &Ip, onward: &Ip) -> bool {
    if wanted[0].is_none() {
        return true;
    }
    wanted.iter().any(|wanted| !wanted.is_none() && (wanted == sent || wanted == onward))
}

/// What has become of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// It went into a container of this node.
    Delivered = 1,
    /// It went into the tunnel.
    Sent = 2,
    /// The host's own stack has it.
    Host = 3,
    /// Netmanager has it, which holds or answers it.
    Given = 4,
    /// It went nowhere.
    Dropped = 5,
}

/// Which program has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Program {
    /// At a container's veth.
    Container = 1,
    /// At the uplink.
    Uplink = 2,
    /// At the slow path's device, where packets begin anew.
    SlowPath = 3,
}

/// A record of [`crate::map::TRACES`]: one packet at the end of its way through a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Record {
    /// Nanoseconds of the monotonic clock, with the precision of a tick.
    pub time_ns: u64,
    /// The inner source as the packet came; none if it is no IP.
    pub source: Ip,
    /// The inner destination as the packet came.
    pub destination: Ip,
    /// The inner source as the packet goes on; none if it does not.
    pub onward_source: Ip,
    /// The inner destination as the packet goes on.
    pub onward_destination: Ip,
    /// The other node, as far as there are outer headers at the end of the way; or none.
    pub node: Ip,
    /// Where it came in.
    pub ifindex: u32,
    /// Bytes of the inner IP packet, as its header says.
    pub length: u32,
    /// Port of TCP or UDP; 0 of anything else.
    pub source_port: Be16,
    /// Port of TCP or UDP.
    pub destination_port: Be16,
    /// A [`Verdict`].
    pub verdict: u8,
    /// Index of the [`DropReason`] if it was dropped or given to netmanager, else [`Record::NO_REASON`].
    pub reason: u8,
    /// A [`Program`].
    pub program: u8,
    /// IP protocol.
    pub protocol: u8,
}

const _: () = assert!(size_of::<Record>() == 8 + 5 * 16 + 4 + 4 + 2 + 2 + 4);
const _: () = assert!(DropReason::ALL.len() < Record::NO_REASON as usize);

impl Record {
    /// Of a packet that goes on.
    pub const NO_REASON: u8 = u8::MAX;
}

/// Value of [`crate::map::TRACED`]: what is left to be told of in this moment, and what was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Told {
    /// At [`crate::budget::TRACE`].
    pub budget: crate::budget::Budget,
    /// Packets that were wanted and not told of, since there were too many. Several CPUs may count at once: a little less.
    pub untold: u64,
}

const _: () = assert!(size_of::<Told>() == 16 + 8);

#[cfg(test)]
mod tests {
    use super::{Record, Switch, Verdict};
    use crate::wire::{Ip, Ip4};

    fn ip(last: u8) -> Ip {
        Ip::from_v4(Ip4([10, 18, 0, last]))
    }

    fn packet(verdict: Verdict) -> Record {
        let (source, destination, onward_source, onward_destination) = (ip(1), ip(2), ip(3), ip(4));
        Record {
            source,
            destination,
            onward_source,
            onward_destination,
            verdict: verdict as u8,
            ..Record::default()
        }
    }

    #[test]
    fn ends_are_known_by_what_they_were_and_by_what_they_become() {
        let delivered = packet(Verdict::Delivered);
        let among = |from: &[u8], to: &[u8]| {
            let mut switch = Switch::default();
            for (place, last) in switch.from.iter_mut().zip(from) {
                *place = ip(*last);
            }
            for (place, last) in switch.to.iter_mut().zip(to) {
                *place = ip(*last);
            }
            switch.wants(&delivered)
        };
        assert!(among(&[], &[]) && among(&[1], &[]) && among(&[9, 3], &[]) && among(&[1], &[9, 8, 7, 4]));
        assert!(!among(&[2], &[]) && !among(&[], &[3]) && !among(&[1], &[9]) && !among(&[9], &[2]));
        // A packet that goes nowhere has no ends there, which nobody asks for.
        let dropped =
            Record { onward_source: Ip::NONE, onward_destination: Ip::NONE, ..packet(Verdict::Dropped) };
        let switch = Switch { from: [ip(3), Ip::NONE, Ip::NONE, Ip::NONE], ..Switch::default() };
        assert!(!switch.wants(&dropped));
    }

    #[test]
    fn drops_alone_are_told_of_if_that_is_wanted() {
        let switch = Switch { drops_only: 1, ..Switch::default() };
        for verdict in [Verdict::Delivered, Verdict::Sent, Verdict::Host, Verdict::Given] {
            assert!(!switch.wants(&packet(verdict)), "{verdict:?}");
        }
        assert!(switch.wants(&packet(Verdict::Dropped)));
    }
}
