//! What the underlay must not do: come in bare, and flood from where nothing is known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use etherparse::PacketBuilder;
use netmanager::datapath::{Backend, DropReason, Endpoint, Policy};
use netmanager_common::budget::{STRANGERS, UNKNOWN_SOURCE};

use crate::bed::{Bed, CLIENT, DROP, NEXT, NODE, PEER, SERVER, SERVICE, TUNNEL_PORT};
use crate::packet::Transport::{TcpAck, TcpSyn, Udp};
use crate::packet::{Packet, delivered, frame, tunnelled};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0x102);

/// As any host of the LAN sends it.
fn bare(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    frame([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], &Packet::new(Udp, source, destination).bytes())
}

fn bare6(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .ipv6(source.octets(), destination.octets(), 64)
        .udp(1, 2)
        .write(&mut frame, b"bare")
        .unwrap();
    frame
}

#[test]
fn bare_packets_from_and_to_a_container_of_this_node_are_dropped() {
    let mut bed = Bed::new();
    bed.within(|datapath| datapath.attach_endpoint(&Endpoint { ns_ip6: Some(CLIENT6), ..CLIENT }));
    let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    for frame in [
        bare(OUTSIDE, CLIENT.ns_ip),
        bare(CLIENT.ns_ip, OUTSIDE),
        bare(CLIENT.ns_ip, NODE),
        bare6(outside, CLIENT6),
        bare6(CLIENT6, outside),
    ] {
        bed.uplink_receives(&frame).assert_dropped(DropReason::BareInner);
    }
    // Cut within its transport header it is no less bare.
    let mut cut = bare(OUTSIDE, CLIENT.ns_ip);
    cut.truncate(14 + 20 + 3);
    bed.uplink_receives(&cut).assert_dropped(DropReason::BareInner);
}

#[test]
fn a_lan_that_is_numbered_as_the_overlay_is_not_cut_off() {
    let mut bed = Bed::new();
    let own = Ipv4Addr::new(10, 18, 200, 1);
    for (source, destination) in [
        (Ipv4Addr::new(10, 18, 200, 9), own),
        (own, Ipv4Addr::new(10, 18, 200, 9)),
        (Ipv4Addr::new(10, 30, 200, 9), own),
        (SERVER.ns_ip, NODE),
        (SERVER.instance_ip, NODE),
        (OUTSIDE, SERVICE),
    ] {
        let frame = bare(source, destination);
        bed.uplink_receives(&frame).assert_untouched(NEXT, &frame);
    }
}

/// An instance that nobody has heard of.
fn unknown(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 30, 128, 0).to_bits() + number)
}

fn from_unknown(node: Ipv4Addr, number: u32) -> Vec<u8> {
    tunnelled(node, &Packet::new(TcpSyn, unknown(number), CLIENT.ns_ip).bytes())
}

fn count(outcomes: &[(i32, DropReason)], reason: DropReason) -> usize {
    outcomes.iter().filter(|outcome| **outcome == (DROP, reason)).count()
}

#[test]
fn one_strangers_flood_ends_at_its_budget_and_costs_nobody_else_anything() {
    let mut bed = Bed::new();
    let burst = usize::try_from(UNKNOWN_SOURCE.burst).unwrap();
    let outcomes: Vec<_> = (0..2000)
        .map(|number| {
            let outcome = bed.uplink_receives(&from_unknown(STRANGER, number));
            (outcome.verdict, outcome.dropped[0])
        })
        .collect();
    let asked = count(&outcomes, DropReason::UnknownPeer);
    assert!(asked >= burst, "{asked}");
    assert!(count(&outcomes, DropReason::OverBudget) > 1000, "{asked} were asked for");
    assert_eq!(bed.misses().len(), asked);

    let other = Ipv4Addr::new(192, 0, 2, 78);
    bed.uplink_receives(&from_unknown(other, 5000)).assert_dropped(DropReason::UnknownPeer);
    let known = Packet::new(TcpAck, SERVER.instance_ip, CLIENT.ns_ip).tunnelled();
    for _ in 0..100 {
        delivered(bed.uplink_receives(&known).redirected(), &CLIENT);
    }
    // And whoever was a stranger is heard as soon as it is known.
    let joined = Backend {
        ns_ip: Ipv4Addr::new(10, 18, 77, 2),
        instance_ip: unknown(0),
        node: SocketAddr::new(IpAddr::V4(STRANGER), TUNNEL_PORT),
        ..SERVER
    };
    bed.within(|datapath| datapath.publish_service(unknown(0), Policy::Instance, &[joined]));
    delivered(bed.uplink_receives(&from_unknown(STRANGER, 0)).redirected(), &CLIENT);
}

#[test]
fn strangers_that_are_many_share_one_budget() {
    let mut bed = Bed::new();
    let begun = Instant::now();
    let outcomes: Vec<_> = (0..6000)
        .map(|number| {
            let outcome =
                bed.uplink_receives(&from_unknown(Ipv4Addr::from_bits(0xc633_6400 + number), number));
            (outcome.verdict, outcome.dropped[0])
        })
        .collect();
    let asked = count(&outcomes, DropReason::UnknownPeer);
    // An emulated machine may be so slow that most of it comes back meanwhile.
    let refilled = begun.elapsed().as_nanos() / u128::from(STRANGERS.refill_ns) + 1;
    let budget = u128::from(STRANGERS.burst) + refilled;
    assert!(asked >= usize::try_from(STRANGERS.burst).unwrap(), "{asked}");
    assert!(asked as u128 <= budget, "{asked} of {budget} were asked for");
    assert_eq!(count(&outcomes, DropReason::OverBudget), outcomes.len() - asked);
    let known = Packet::new(TcpAck, SERVER.instance_ip, CLIENT.ns_ip).tunnelled();
    delivered(bed.uplink_receives(&known).redirected(), &CLIENT);
}

#[test]
fn a_known_node_is_delivered_without_limit_but_makes_only_so_many_misses() {
    let mut bed = Bed::new();
    for number in 0..1000 {
        delivered(bed.uplink_receives(&from_unknown(PEER, number)).redirected(), &CLIENT);
    }
    let misses = bed.misses().len();
    assert!((usize::try_from(UNKNOWN_SOURCE.burst).unwrap()..900).contains(&misses), "{misses}");
}
