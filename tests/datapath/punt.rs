//! What the programs give to the slow path, and what they take from it.

use std::net::Ipv4Addr;
use std::time::Instant;

use netmanager::datapath::{DropReason, FROM_SLOW_PATH, Policy};
use netmanager_common::budget;
use netmanager_common::punt::{Origin, Tag};

use crate::bed::{Bed, CLIENT, DROP, NEIGHBOUR, REDIRECT, SERVER, SERVICE};
use crate::packet::Transport::{EchoReply, TcpAck, TcpSyn, Udp};
use crate::packet::{ETHERNET, Packet, delivered, encapsulated, read};

const UNKNOWN_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 99, 99);

/// With a device for the slow path, any will do.
fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.within(|datapath| datapath.set_slow_path(Some(CLIENT.ifindex)));
    bed
}

fn tagged(origin: Origin, frame: &[u8]) -> Vec<u8> {
    let tag = Tag { origin, reason: 0, ifindex: CLIENT.ifindex };
    [&tag.bytes(), &frame[6..]].concat()
}

#[test]
fn a_packet_to_an_unknown_service_goes_to_netmanager_whole() {
    let mut bed = bed();
    let frame = Packet::new(TcpSyn, CLIENT.ns_ip, UNKNOWN_SERVICE).sent_by(&CLIENT);
    let outcome = bed.container_sends(&frame);
    let punted = outcome.redirected();
    let tag = Tag::read(*punted.first_chunk().unwrap()).unwrap();
    assert_eq!((tag.origin, tag.ifindex), (Origin::Container, CLIENT.ifindex));
    assert_eq!(DropReason::try_from(u32::from(tag.reason)), Ok(DropReason::ServiceUnknown));
    assert_eq!(punted[6..], frame[6..], "but for the tag it is as it was");
    assert_eq!(bed.datapath.counters().unwrap().punts, [(DropReason::ServiceUnknown, 1)]);
}

#[test]
fn without_a_slow_path_the_same_packet_is_dropped() {
    let mut bed = bed();
    bed.within(|datapath| datapath.set_slow_path(None));
    let frame = Packet::new(TcpSyn, CLIENT.ns_ip, UNKNOWN_SERVICE).sent_by(&CLIENT);
    bed.container_sends(&frame).assert_dropped(DropReason::ServiceUnknown);
}

#[test]
fn a_flood_of_one_container_takes_nothing_from_another() {
    const BURST: u32 = budget::CONTAINER.burst;
    let mut bed = bed();
    let flood = Packet::new(Udp, CLIENT.ns_ip, UNKNOWN_SERVICE).sent_by(&CLIENT);
    let begun = Instant::now();
    let verdicts: Vec<_> = (0..4 * BURST).map(|_| bed.container_sends(&flood).verdict).collect();
    let taken = verdicts.iter().filter(|verdict| **verdict == REDIRECT).count();
    // An emulated machine may be so slow that no packet is too much.
    let refilled = begun.elapsed().as_nanos() / u128::from(budget::CONTAINER.refill_ns) + 1;
    assert!(
        taken >= BURST as usize && taken as u128 <= u128::from(BURST) + refilled,
        "{taken}, {refilled} refilled"
    );
    assert!(verdicts.iter().all(|verdict| [REDIRECT, DROP].contains(verdict)), "{verdicts:?}");
    let other = Packet::new(TcpSyn, NEIGHBOUR.ns_ip, UNKNOWN_SERVICE).sent_by(&NEIGHBOUR);
    bed.container_sends(&other).redirected();
}

#[test]
fn who_lies_about_its_source_gets_no_attention() {
    let mut bed = bed();
    let frame = Packet::new(TcpSyn, CLIENT.ns_ip, UNKNOWN_SERVICE).sent_by(&NEIGHBOUR);
    bed.container_sends(&frame).assert_dropped(DropReason::SpoofedSource);
    // Of an established connection, which is not asked for its source any more, and is not the container's.
    let gone = Packet::new(TcpAck, Ipv4Addr::new(10, 18, 1, 9), SERVICE).sent_by(&CLIENT);
    bed.container_sends(&gone).assert_dropped(DropReason::SpoofedSource);
}

#[test]
fn a_frame_that_comes_back_goes_on_as_if_the_container_sent_it_now() {
    let mut bed = bed();
    let sent = Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE).sent_by(&CLIENT);
    let outcome = bed.run(FROM_SLOW_PATH, &tagged(Origin::Container, &sent));
    let seen = read(encapsulated(outcome.redirected()).inner);
    assert_eq!((seen.source, seen.destination), (CLIENT.instance_ip.unwrap(), SERVER.ns_ip));
}

#[test]
fn a_frame_from_the_uplink_that_comes_back_is_delivered() {
    let mut bed = bed();
    let arrived = Packet::new(TcpSyn, SERVER.instance_ip, CLIENT.ns_ip).tunnelled();
    let outcome = bed.run(FROM_SLOW_PATH, &tagged(Origin::Uplink, &arrived));
    assert_eq!(delivered(outcome.redirected(), &CLIENT).source, SERVER.instance_ip);
}

#[test]
fn what_netmanager_says_is_delivered_here_and_elsewhere_as_it_is() {
    let mut bed = bed();
    for transport in [EchoReply, TcpAck] {
        let here = Packet::new(transport, SERVICE, CLIENT.ns_ip).sent_by(&CLIENT);
        let outcome = bed.run(FROM_SLOW_PATH, &tagged(Origin::Netmanager, &here));
        let seen = delivered(outcome.redirected(), &CLIENT);
        assert_eq!((seen.source, seen.destination), (SERVICE, CLIENT.ns_ip));
        let there = Packet::new(transport, SERVICE, SERVER.ns_ip).sent_by(&CLIENT);
        let outcome = bed.run(FROM_SLOW_PATH, &tagged(Origin::Netmanager, &there));
        assert_eq!(encapsulated(outcome.redirected()).inner, &there[ETHERNET..]);
    }
}

#[test]
fn what_comes_back_and_still_cannot_go_on_is_given_again_but_not_without_end() {
    let mut bed = bed();
    let sent = Packet::new(TcpSyn, CLIENT.ns_ip, UNKNOWN_SERVICE).sent_by(&CLIENT);
    let outcome = bed.run(FROM_SLOW_PATH, &tagged(Origin::Container, &sent));
    let tag = Tag::read(*outcome.redirected().first_chunk().unwrap()).unwrap();
    assert_eq!((tag.origin, tag.ifindex), (Origin::Container, CLIENT.ifindex));
    // What netmanager itself has said is never given back to it.
    let nowhere = Packet::new(TcpAck, SERVICE, Ipv4Addr::new(10, 18, 9, 9)).sent_by(&CLIENT);
    bed.run(FROM_SLOW_PATH, &tagged(Origin::Netmanager, &nowhere)).assert_dropped(DropReason::NoEndpoint);
}

#[test]
fn a_container_without_an_address_of_its_own_may_wait_for_it() {
    let mut bed = bed();
    let nameless = netmanager::datapath::Endpoint { instance_ip: None, ..CLIENT };
    bed.within(|datapath| {
        datapath.attach_endpoint(&nameless)?;
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[SERVER])
    });
    let outcome = bed.container_sends(&Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE).sent_by(&CLIENT));
    let tag = Tag::read(*outcome.redirected().first_chunk().unwrap()).unwrap();
    assert_eq!(DropReason::try_from(u32::from(tag.reason)), Ok(DropReason::NoInstanceAddress));
}

#[test]
fn frames_without_a_tag_are_dropped() {
    let mut bed = bed();
    let frame = Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE).sent_by(&CLIENT);
    let broadcast = [&[0xff; 6], &frame[6..]].concat();
    bed.run(FROM_SLOW_PATH, &broadcast).assert_dropped(DropReason::NotIp);
}
