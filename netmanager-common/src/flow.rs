//! Flows: their keys, and the choices made for them. How long they last: [`crate::life`].

use crate::map::{FlowKey, MAX_BACKENDS_PER_SERVICE};
use crate::wire::{Be16, Ip};

/// The two ports of a packet. An ICMP echo has its identifier at the asking end and 0 at the answering one, so that
/// a request and its reply are the two directions of one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ports {
    /// Port at the sender's end.
    pub source: Be16,
    /// Port at the receiver's end.
    pub destination: Be16,
}

impl Ports {
    /// Of a packet that has none, or whose ports do not matter.
    pub const NONE: Self = Self { source: Be16::new(0), destination: Be16::new(0) };
}

/// The key of the flow that a container at `ifindex` sends on.
#[must_use]
#[inline(always)]
pub const fn forward_key(ifindex: u32, source: Ip, destination: Ip, ports: Ports, protocol: u8) -> FlowKey {
    FlowKey {
        ifindex,
        source,
        destination,
        source_port: ports.source,
        destination_port: ports.destination,
        protocol: protocol as u32,
    }
}

/// The key of the flow that a packet arrives on.
#[must_use]
#[inline(always)]
pub const fn arrival_key(source: Ip, destination: Ip, ports: Ports, protocol: u8) -> FlowKey {
    forward_key(0, source, destination, ports, protocol)
}

/// The key on which the answers to `forward` arrive when `instance` gives them.
#[must_use]
#[inline(always)]
pub const fn reply_key(forward: &FlowKey, instance: Ip) -> FlowKey {
    FlowKey {
        ifindex: 0,
        source: instance,
        destination: forward.source,
        source_port: forward.destination_port,
        destination_port: forward.source_port,
        protocol: forward.protocol,
    }
}

/// The key on which the container at `ifindex` sends what `arrival` answers: it had dialled `dialled`.
#[must_use]
#[inline(always)]
pub const fn answered_key(arrival: &FlowKey, ifindex: u32, dialled: Ip) -> FlowKey {
    FlowKey {
        ifindex,
        source: arrival.destination,
        destination: dialled,
        source_port: arrival.destination_port,
        destination_port: arrival.source_port,
        protocol: arrival.protocol,
    }
}

/// Seconds between two looks at the other direction's entry, so that it is not the least recently used one while packets
/// go one way only. A power of two.
pub const KEEP_WARM: u32 = 8;

/// Whether such a look is due at a packet `now`, the one before having been seen at `last_seen`.
#[must_use]
#[inline(always)]
pub const fn keeps_warm(now: u32, last_seen: u32) -> bool {
    now / KEEP_WARM != last_seen / KEEP_WARM
}

/// Seconds for which later fragments may follow their first one. Numbers of datagrams are used again after 65,536.
pub const FRAGMENTS_LIFETIME: u32 = 2;

/// Seconds from `last_seen` to `now`, both of the monotonic clock. Whoever read the clock just before it went on may
/// find that another CPU has noted a packet of the next second: a flow that is busy, not one from 136 years ago.
#[must_use]
#[inline(always)]
pub const fn idle(now: u32, last_seen: u32) -> u32 {
    let seconds = now.wrapping_sub(last_seen);
    if seconds > u32::MAX / 2 { 0 } else { seconds }
}

/// Where the turns of a service begin at a node: at nodes with consecutive addresses one behind the other, so that the first
/// connections of many nodes do not all take the same backend. `node` is its address on the underlay.
#[must_use]
pub const fn first_turn(node: Ip, service_ip: Ip) -> u16 {
    last_octets(node).wrapping_add(last_octets(service_ip))
}

const fn last_octets(address: Ip) -> u16 {
    let [.., high, low] = address.octets();
    u16::from_be_bytes([high, low])
}

/// Which of `count` backends has the turn, of turns that begin at `first`: the index into a service's list.
#[must_use]
#[inline(always)]
pub const fn in_turn(first: u16, turn: u32, count: u32) -> usize {
    let turn = turn.wrapping_add(first as u32);
    // The mask is for the verifier, which does not follow the remainder.
    (turn % if count == 0 { 1 } else { count }) as usize & (MAX_BACKENDS_PER_SERVICE - 1)
}

/// The lowest source port of our tunnel packets.
pub const FIRST_TUNNEL_SOURCE_PORT: u16 = 49152;

/// The outer source port for an inner flow: the same for all its packets, spread over 49152 to 65535 by flow, so
/// that NICs and routers that hash ports treat each inner flow as one and the flows as many.
#[must_use]
#[inline(always)]
pub const fn tunnel_source_port(source: Ip, destination: Ip, ports: Ports, protocol: u8) -> Be16 {
    let [a, b] = ports.source.0;
    let [c, d] = ports.destination.0;
    let mut hash = word(source) ^ word(destination).rotate_left(15);
    hash = (hash ^ u32::from_ne_bytes([a, b, c, d])).wrapping_mul(0x9e37_79b1);
    hash = (hash ^ (hash >> 15) ^ protocol as u32).wrapping_mul(0x85eb_ca77);
    hash ^= hash >> 13;
    Be16::new(FIRST_TUNNEL_SOURCE_PORT | (hash >> 16) as u16)
}

/// All of an address in one word; of an IPv4 address, the address.
#[inline(always)]
const fn word(address: Ip) -> u32 {
    let [a, b, c, d] = address.words();
    if address.is_v4() { d } else { a ^ b.rotate_left(7) ^ c.rotate_left(13) ^ d }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Ip4};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn ip(a: u8, b: u8, c: u8, d: u8) -> Ip {
        Ip::from_v4(Ip4([a, b, c, d]))
    }

    #[test]
    fn a_reply_arrives_on_the_mirrored_key() {
        let ports = Ports { source: Be16::new(55854), destination: Be16::new(9000) };
        let forward = forward_key(7, ip(10, 18, 1, 2), ip(10, 30, 2, 10), ports, wire::TCP);
        let reply = reply_key(&forward, ip(10, 30, 12, 10));
        let ports = Ports { source: Be16::new(9000), destination: Be16::new(55854) };
        assert_eq!(reply, arrival_key(ip(10, 30, 12, 10), ip(10, 18, 1, 2), ports, wire::TCP));
        assert_eq!(answered_key(&reply, 7, ip(10, 30, 2, 10)), forward, "and back");
    }

    #[test]
    fn a_packet_noted_after_the_clock_was_read_is_no_idleness() {
        assert_eq!(idle(100, 101), 0);
        assert_eq!(idle(100, 100), 0);
        assert_eq!(idle(100, 40), 60);
        assert_eq!(idle(5, u32::MAX - 4), 10, "the clock has wrapped");
    }

    #[test]
    fn turns_go_round_and_survive_the_wrap() {
        let picks: Vec<_> = (0..7).map(|turn| in_turn(0, turn, 3)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(in_turn(0, u32::MAX, 64), 63);
        assert_eq!(in_turn(0, 5, 0), 0, "no division by zero");
    }

    #[test]
    fn the_first_turns_of_many_nodes_spread_over_the_list() {
        for service in [ip(10, 30, 0, 4), ip(10, 30, 255, 255)] {
            let mut picks = [0; 3];
            for node in 0..300u16 {
                let [high, low] = node.to_be_bytes();
                picks[in_turn(first_turn(ip(192, 168, high, low), service), 0, 3)] += 1;
            }
            assert!(picks.iter().all(|nodes| (98..=102).contains(nodes)), "{picks:?}");
        }
    }

    #[test]
    fn flows_spread_over_the_source_ports() {
        let source = ip(10, 30, 0, 1);
        let destination = ip(10, 18, 0, 66);
        let distinct: HashSet<_> = (0..1000)
            .map(|port| {
                let ports = Ports { source: Be16::new(32768 + port), destination: Be16::new(80) };
                tunnel_source_port(source, destination, ports, wire::TCP)
            })
            .collect();
        // A thousand balls in 16,384 bins meet about 30 times.
        assert!(distinct.len() > 930, "only {} of 1000 ports are distinct", distinct.len());
    }

    proptest! {
        #[test]
        fn source_ports_are_never_below_the_dynamic_range(
            source: [u8; 16], destination: [u8; 16], from: u16, to: u16, protocol: u8
        ) {
            let ports = Ports { source: Be16::new(from), destination: Be16::new(to) };
            let port = tunnel_source_port(Ip::from_octets(source), Ip::from_octets(destination), ports, protocol);
            prop_assert!(port.get() >= FIRST_TUNNEL_SOURCE_PORT);
        }

        #[test]
        fn a_turn_is_always_an_index_of_the_list(first: u16, turn: u32, count in 1u32..=64) {
            prop_assert!(in_turn(first, turn, count) < count as usize);
        }
    }
}
