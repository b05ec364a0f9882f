//! The data plane in user space and the programs in the kernel: the same tables, the same frames, and for each of them the
//! same verdict, the same reason, the same bytes.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use integration::fuzz::campaign;
use netmanager::datapath::{Addresses, Backend, DropReason, Policy, Service};
use netmanager::userspace::{Control, Judgement};
use nix::time::{ClockId, clock_gettime};
use protocol::plan::Plan;

use crate::bed::{DROP, NEXT, NODE, Outcome, PASS, REDIRECT, SERVICE, TUNNEL_PORT};
use crate::fuzz::frame;
use crate::fuzz::world::{CONTAINERS, EMPTY, INSTANCES, NODE6, SERVICE6, World};
use crate::packet::ETHERNET;

const ROUNDS: u64 = 300;
const FRAMES: usize = 40;
const LOOPBACK: u32 = 1;
/// Nanoseconds of a second after which no frame is begun.
const LAST_OF_SECOND: i64 = 980_000_000;

/// Both, with the same tables.
struct Both {
    kernel: World,
    process: Control,
    /// How often they said what, so that nothing that is compared here is rare.
    delivered: u64,
    sent: u64,
    dropped: u64,
}

impl Both {
    fn new() -> Self {
        let (mut process, _misses) = Control::new(TUNNEL_PORT, Plan::default());
        process.set_node(Addresses { v4: Some(NODE), v6: Some(NODE6) }, LOOPBACK).unwrap();
        for container in &CONTAINERS {
            process.attach_endpoint(container).unwrap();
        }
        for instance in &INSTANCES {
            let own = [Some(instance.instance_ip.into()), instance.instance_ip6.map(IpAddr::V6)];
            for address in own.into_iter().flatten() {
                process.publish(&service(address, Policy::Instance, &[*instance])).unwrap();
            }
        }
        for (address, instances) in
            [(IpAddr::V4(SERVICE), &INSTANCES[..]), (SERVICE6.into(), &INSTANCES), (EMPTY.into(), &[])]
        {
            process.publish(&service(address, Policy::RoundRobin, instances)).unwrap();
        }
        Self { kernel: World::new(), process, delivered: 0, sent: 0, dropped: 0 }
    }

    fn forget_packets(&self) {
        self.kernel.forget_packets();
        self.process.forget_packets();
    }

    fn container_sends(&mut self, sent: &[u8]) {
        wait_for_one_second();
        let outcome = self.kernel.bed.container_sends(sent);
        let mut ours = sent.to_vec();
        match self.process.judge_sent(&mut ours, LOOPBACK) {
            Judgement::Host => {
                let by_the_guard = outcome.dropped.first().is_some_and(|reason| is_the_guards(*reason));
                assert!(outcome.verdict == PASS || by_the_guard, "{outcome:02x?} of {sent:02x?}");
            }
            Judgement::Deliver(LOOPBACK) => self.same_frame(&ours, &outcome, sent),
            Judgement::Deliver(other) => panic!("into {other}: {sent:02x?}"),
            Judgement::Send(node) => {
                assert_eq!(outcome.verdict, REDIRECT, "{outcome:02x?} of {sent:02x?}");
                // The kernel writes the Ethernet header when it knows the neighbour.
                let theirs = SlicedPacket::from_ip(&outcome.frame[ETHERNET..]).unwrap();
                let Some(TransportSlice::Udp(udp)) = theirs.transport else { panic!("{outcome:02x?}") };
                let to = match theirs.net.unwrap() {
                    NetSlice::Ipv4(ip) => IpAddr::V4(ip.header().destination_addr()),
                    NetSlice::Ipv6(ip) => IpAddr::V6(ip.header().destination_addr()),
                    NetSlice::Arp(_) => panic!("{outcome:02x?}"),
                };
                assert_eq!((to, udp.destination_port()), (node.ip(), node.port()));
                assert!(ours[ETHERNET..] == *udp.payload(), "{ours:02x?} and {outcome:02x?} of {sent:02x?}");
                self.sent += 1;
            }
            Judgement::Drop(reason) => self.same_reason(reason, &outcome, sent),
        }
    }

    /// Of what is in the tunnel; the rest is the business of the kernel's UDP.
    fn uplink_receives(&mut self, arrived: &[u8]) {
        wait_for_one_second();
        let outcome = self.kernel.bed.uplink_receives(arrived);
        if outcome.verdict == NEXT {
            return;
        }
        let Some((peer, inner)) = tunnelled(arrived) else { return };
        let mut ours = vec![0; ETHERNET];
        ours.extend_from_slice(inner);
        match self.process.judge_arrived(&mut ours, peer) {
            Judgement::Deliver(LOOPBACK) => self.same_frame(&ours, &outcome, arrived),
            Judgement::Drop(reason) => self.same_reason(reason, &outcome, arrived),
            other => panic!("{other:?} of {arrived:02x?}"),
        }
    }

    fn same_frame(&mut self, ours: &[u8], outcome: &Outcome, frame: &[u8]) {
        assert_eq!(outcome.verdict, REDIRECT, "{outcome:02x?} of {frame:02x?}");
        // Behind the packet the kernel's frame still has what filled it.
        let theirs = outcome.frame.get(..ours.len());
        assert!(theirs == Some(ours), "{ours:02x?} and {outcome:02x?} of {frame:02x?}");
        self.delivered += 1;
    }

    fn same_reason(&mut self, reason: DropReason, outcome: &Outcome, frame: &[u8]) {
        let [theirs] = outcome.dropped[..] else { panic!("{reason}, and {outcome:02x?} of {frame:02x?}") };
        assert!(outcome.verdict == DROP && alike(reason, theirs), "{reason} and {theirs}: {frame:02x?}");
        self.dropped += 1;
    }
}

/// Both note when a flow was seen last to the second, one of them by a clock that is some milliseconds late, one after the
/// other. Of a frame at the turn of a second they would note different ones, and may then rightly disagree on the next.
fn wait_for_one_second() {
    loop {
        let [late, exact] = [ClockId::CLOCK_MONOTONIC_COARSE, ClockId::CLOCK_MONOTONIC]
            .map(|clock| clock_gettime(clock).expect("every kernel has this clock"));
        if late.tv_sec() == exact.tv_sec() && exact.tv_nsec() < LAST_OF_SECOND {
            return;
        }
        sleep(Duration::from_millis(1));
    }
}

fn service(service_ip: IpAddr, policy: Policy, backends: &[Backend]) -> Service {
    Service { service_ip, policy, backends: backends.to_vec(), resting: Vec::new() }
}

/// Whether one is as good as the other: budgets are refilled by the clock, which goes on between the two.
fn alike(ours: DropReason, theirs: DropReason) -> bool {
    let is_unknown = |reason| matches!(reason, DropReason::UnknownPeer | DropReason::OverBudget);
    ours == theirs || is_unknown(ours) && is_unknown(theirs)
}

/// What is not the overlay's is left to the host, and what of that containers must not send, to the guard's rules.
fn is_the_guards(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::TunnelFromContainer
            | DropReason::DhcpServer
            | DropReason::LinkLocal
            | DropReason::LoopbackDestination
            | DropReason::RouterAdvertisement
            | DropReason::ExtensionHeaders
            | DropReason::Malformed
    )
}

/// The sender and the payload of a datagram that is whole.
fn tunnelled(frame: &[u8]) -> Option<(IpAddr, &[u8])> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let (peer, payload) = match sliced.net? {
        NetSlice::Ipv4(ip) if !ip.is_payload_fragmented() => {
            (ip.header().source_addr().into(), ip.payload().payload)
        }
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.payload().payload),
        _ => return None,
    };
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
    (usize::from(udp.length()) == payload.len()).then_some((peer, udp.payload()))
}

#[test]
fn user_space_and_the_programs_agree_on_what_containers_send() {
    let mut both = Both::new();
    let rounds = campaign(ROUNDS, |chance| {
        both.forget_packets();
        for _ in 0..FRAMES {
            let sent = frame::of_container(chance);
            both.container_sends(&sent);
        }
    });
    println!("{} delivered, {} sent, {} dropped alike", both.delivered, both.sent, both.dropped);
    assert!(rounds < ROUNDS || [both.delivered, both.sent, both.dropped].iter().all(|count| *count > 500));
}

#[test]
fn user_space_and_the_programs_agree_on_what_arrives() {
    let mut both = Both::new();
    let rounds = campaign(ROUNDS, |chance| {
        both.forget_packets();
        for _ in 0..FRAMES {
            // Some of what arrives are answers.
            if chance.one_in(4) {
                let sent = frame::of_container(chance);
                both.container_sends(&sent);
            }
            let arrived = frame::at_uplink(chance);
            both.uplink_receives(&arrived);
        }
    });
    println!("{} delivered, {} sent, {} dropped alike", both.delivered, both.sent, both.dropped);
    assert!(rounds < ROUNDS || [both.delivered, both.dropped].iter().all(|count| *count > 500));
}
