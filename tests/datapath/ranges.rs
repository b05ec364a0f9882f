//! An overlay with other addresses than Oakestra's: what packets are, in the kernel and in user space.

use std::net::Ipv4Addr;

use netmanager::datapath::{Backend, DropReason, Endpoint, Policy, Service};
use netmanager::userspace::{Control, Judgement};
use protocol::plan::Plan;

use crate::bed::{self, Bed, LOOPBACK, NEXT, NODE, PASS, TUNNEL_PORT};
use crate::packet::Transport::{TcpSyn, Udp};
use crate::packet::{Packet, encapsulated, frame, read};

const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 24, 2, 10);
const CLIENT: Endpoint = Endpoint {
    ns_ip: Ipv4Addr::new(172, 20, 1, 2),
    instance_ip: Some(Ipv4Addr::new(172, 24, 11, 10)),
    ..bed::CLIENT
};
const SERVER: Backend = Backend {
    ns_ip: Ipv4Addr::new(172, 20, 2, 2),
    instance_ip: Ipv4Addr::new(172, 24, 12, 10),
    ..bed::SERVER
};
/// A container, and a service that nobody knows.
const UNKNOWN: [(Ipv4Addr, DropReason); 2] = [
    (Ipv4Addr::new(172, 20, 77, 2), DropReason::NoEndpoint),
    (Ipv4Addr::new(172, 24, 77, 2), DropReason::ServiceUnknown),
];
/// Anybody's, with this plan.
const OUTSIDE: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 30, 2, 10), Ipv4Addr::new(10, 18, 2, 2), Ipv4Addr::new(172, 25, 0, 1)];

fn plan() -> Plan {
    Plan::new("172.20.0.0/14".parse().unwrap(), "172.24.0.0/16".parse().unwrap()).unwrap()
}

#[test]
fn programs_take_addresses_for_whose_the_plan_says_they_are() {
    let mut bed = Bed::empty();
    bed.within(|datapath| {
        datapath.set_plan(plan())?;
        datapath.set_node(NODE, LOOPBACK)?;
        datapath.attach_endpoint(&CLIENT)?;
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[SERVER])
    });
    let sent = Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE);
    let outcome = bed.container_sends(&sent.sent_by(&CLIENT));
    let seen = read(encapsulated(outcome.redirected()).inner);
    assert_eq!((seen.source, seen.destination), (CLIENT.instance_ip.unwrap(), SERVER.ns_ip));
    for (unknown, reason) in UNKNOWN {
        bed.container_sends(&Packet::new(Udp, CLIENT.ns_ip, unknown).sent_by(&CLIENT)).assert_dropped(reason);
    }
    for outside in OUTSIDE {
        let outcome = bed.container_sends(&Packet::new(Udp, CLIENT.ns_ip, outside).sent_by(&CLIENT));
        assert_eq!(outcome.verdict, PASS, "{outside} is not left to the host: {outcome:02x?}");
    }
    // What arrives bare is the LAN's, unless it has a container's address; what is in the tunnel must be the overlay's.
    let bare = |source, destination| frame([2; 6], [4; 6], &Packet::new(Udp, source, destination).bytes());
    bed.uplink_receives(&bare(OUTSIDE[1], CLIENT.ns_ip)).assert_dropped(DropReason::BareInner);
    let lan = bare(OUTSIDE[1], OUTSIDE[0]);
    bed.uplink_receives(&lan).assert_untouched(NEXT, &lan);
    let foreign = Packet::new(Udp, OUTSIDE[1], CLIENT.ns_ip).tunnelled();
    bed.uplink_receives(&foreign).assert_dropped(DropReason::ForeignSource);
}

#[test]
fn user_space_takes_addresses_for_whose_the_plan_says_they_are() {
    let (mut control, _events) = Control::new(TUNNEL_PORT, plan());
    control.set_node(NODE, LOOPBACK).unwrap();
    control.attach_endpoint(&CLIENT).unwrap();
    let (policy, backends, resting) = (Policy::RoundRobin, vec![SERVER], Vec::new());
    control.publish(&Service { service_ip: SERVICE.into(), policy, backends, resting }).unwrap();
    let judge = |to| control.judge_sent(&mut Packet::new(Udp, CLIENT.ns_ip, to).sent_by(&CLIENT), LOOPBACK);
    assert_eq!(judge(SERVICE), Judgement::Send(SERVER.node));
    for (unknown, reason) in UNKNOWN {
        assert_eq!(judge(unknown), Judgement::Drop(reason));
    }
    for outside in OUTSIDE {
        assert_eq!(judge(outside), Judgement::Host, "{outside}");
    }
    let mut foreign = Packet::new(Udp, OUTSIDE[1], CLIENT.ns_ip).sent_by(&CLIENT);
    assert_eq!(
        control.judge_arrived(&mut foreign, SERVER.node.ip()),
        Judgement::Drop(DropReason::ForeignSource)
    );
}
