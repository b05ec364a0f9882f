//! What holds of flows whatever containers send and however services change: checked after each step of a random walk.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use integration::fuzz::{Chance, campaign};
use netmanager::datapath::{Backend, Flow, Policy, Transport};
use netmanager_common::map::{self, FLOWS, FlowKey};
use netmanager_common::wire::{Be16, Ip, Ip4};

use crate::bed::{DROP, REDIRECT, SERVICE};
use crate::fuzz::frame;
use crate::fuzz::world::{CONTAINERS, INSTANCES, SERVICE6, World};

const ROUNDS: u64 = 60;
const STEPS: usize = 60;

#[test]
fn fuzzed_connections_keep_their_backend_and_are_understood_on_the_way_back() {
    let mut world = World::new();
    let mut kept = 0_u64;
    campaign(ROUNDS, |chance| {
        world.forget_packets();
        world.publish(&INSTANCES);
        let mut before = BTreeMap::new();
        for _ in 0..STEPS {
            if chance.one_in(8) {
                let instances: Vec<_> = INSTANCES.into_iter().filter(|_| !chance.one_in(3)).collect();
                world.publish(&instances);
            } else {
                let verdict = world.bed.container_sends(&segment(chance)).verdict;
                assert!([DROP, REDIRECT].contains(&verdict), "verdict {verdict}");
            }
            let after = flows(&world);
            kept += assert_kept(&before, &after);
            assert_answers_are_understood(&world, &after);
            before = after;
        }
    });
    assert!(kept > 0, "no flow lived on for a step");
}

/// Of a connection that a container makes, or goes on with, or ends.
fn segment(chance: &mut Chance) -> Vec<u8> {
    let sender = *chance.of(&CONTAINERS);
    let port = *chance.of(&[40000, 40001, 40002]);
    let instance = *chance.of(&INSTANCES);
    let services = [IpAddr::V4(SERVICE), SERVICE6.into(), instance.instance_ip.into()];
    let (frame, ip) = match *chance.of(&services) {
        IpAddr::V4(service) => (
            frame::ethernet(sender.gateway_mac, sender.mac, frame::Family::V4),
            PacketBuilder::ipv4(sender.ns_ip.octets(), service.octets(), 64),
        ),
        IpAddr::V6(service) => (
            frame::ethernet(sender.gateway_mac, sender.mac, frame::Family::V6),
            PacketBuilder::ipv6(sender.ns_ip6.unwrap().octets(), service.octets(), 64),
        ),
    };
    let mut bytes = frame;
    match chance.below(6) {
        0 | 1 => ip.tcp(port, 80, 1, 500).syn().write(&mut bytes, b""),
        2 => ip.tcp(port, 80, 2, 500).ack(1).write(&mut bytes, b"data"),
        3 => ip.tcp(port, 80, 3, 500).ack(1).fin().write(&mut bytes, b""),
        _ => ip.udp(port, 80).write(&mut bytes, b"data"),
    }
    .unwrap();
    bytes
}

type Flows = BTreeMap<(Transport, SocketAddr, SocketAddr), Flow>;

fn flows(world: &World) -> Flows {
    let flows = world.bed.datapath.flows().unwrap();
    flows.into_iter().map(|flow| ((flow.transport, flow.client, flow.service), flow)).collect()
}

/// A flow that has not ended and whose instance is there keeps that instance. Gives how many there were.
fn assert_kept(before: &Flows, after: &Flows) -> u64 {
    let mut kept = 0;
    for (key, flow) in before {
        let now = after.get(key).unwrap_or_else(|| panic!("forgotten: {flow:?}"));
        if let (Some(old), Some(new), false) = (flow.backend, now.backend, flow.state.is_ending()) {
            assert_eq!(old, new, "{key:?}");
            kept += 1;
        }
    }
    kept
}

/// Of each flow that has not ended there is the entry by which an answer is shown as coming from whom was dialled.
fn assert_answers_are_understood(world: &World, flows: &Flows) {
    let table = world.bed.table::<FlowKey, map::Flow>(FLOWS);
    for flow in flows.values().filter(|flow| !flow.state.is_ending()) {
        let Some(Backend { instance_ip, instance_ip6, .. }) = flow.backend else { continue };
        let source = if flow.service.is_ipv4() { instance_ip.into() } else { instance_ip6.unwrap().into() };
        let arrival = FlowKey {
            ifindex: 0,
            source: ip(source),
            destination: ip(flow.client.ip()),
            source_port: Be16::new(flow.service.port()),
            destination_port: Be16::new(flow.client.port()),
            protocol: if flow.transport == Transport::Tcp { 6 } else { 17 },
        };
        let entry = table.get(&arrival, 0).unwrap_or_else(|error| panic!("{error}: {flow:?}"));
        assert_eq!(entry.source, ip(flow.service.ip()), "{flow:?}");
    }
}

fn ip(address: IpAddr) -> Ip {
    match address {
        IpAddr::V4(address) => Ip::from_v4(Ip4(address.octets())),
        IpAddr::V6(address) => Ip::from_octets(address.octets()),
    }
}

impl World {
    /// Both services have these instances now.
    fn publish(&mut self, instances: &[Backend]) {
        self.bed.within(|datapath| {
            datapath.publish_service(SERVICE, Policy::RoundRobin, instances)?;
            datapath.publish_service(SERVICE6, Policy::RoundRobin, instances)
        });
    }
}
