//! That new connections go to the instance with the fewest, in the kernel and in user space.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use netmanager::datapath::{Backend, Endpoint, Policy, Service};
use netmanager::userspace::{Control, Judgement};
use protocol::plan::Plan;

use crate::bed::{Bed, CLIENT, LOOPBACK, NODE, SERVER, SERVICE, TUNNEL_PORT};
use crate::container::servers;
use crate::packet::Transport::{TcpFin, TcpReset, TcpSyn, TcpSynAck};
use crate::packet::{ETHERNET, Packet, SERVER_PORT, Transport, encapsulated, frame, read};

const INSTANCES: u8 = 3;

fn instances() -> Vec<Backend> {
    servers(INSTANCES)
}

fn service() -> Service {
    let (policy, backends, resting) = (Policy::LeastConnections, instances(), Vec::new());
    Service { service_ip: SERVICE.into(), policy, backends, resting }
}

/// Both data planes, as a container and its instances use them.
trait Plane {
    /// To which instance a packet of the client's goes.
    fn sends(&mut self, frame: Vec<u8>) -> Ipv4Addr;
    fn arrives(&mut self, packet: &Packet);
    fn set_load(&mut self, instance: &Backend, flows: u32);

    fn send(&mut self, transport: Transport, port: u16) -> usize {
        let packet = Packet { ports: (port, SERVER_PORT), ..Packet::new(transport, CLIENT.ns_ip, SERVICE) };
        let to = self.sends(packet.sent_by(&CLIENT));
        instances().iter().position(|instance| instance.ns_ip == to).expect("an instance of the service")
    }

    fn answer(&mut self, transport: Transport, instance: usize, port: u16) {
        let packet = Packet::new(transport, instances()[instance].instance_ip, CLIENT.ns_ip);
        self.arrives(&Packet { ports: (SERVER_PORT, port), ..packet });
    }

    /// Opens a connection; gives with whom.
    fn open(&mut self, port: u16) -> usize {
        let instance = self.send(TcpSyn, port);
        self.answer(TcpSynAck, instance, port);
        instance
    }
}

impl Plane for Bed {
    fn sends(&mut self, frame: Vec<u8>) -> Ipv4Addr {
        let outcome = self.container_sends(&frame);
        read(encapsulated(outcome.redirected()).inner).destination
    }

    fn arrives(&mut self, packet: &Packet) {
        self.uplink_receives(&packet.tunnelled()).redirected();
    }

    fn set_load(&mut self, instance: &Backend, flows: u32) {
        self.within(|datapath| datapath.set_load(instance, flows));
    }
}

impl Plane for Control {
    fn sends(&mut self, mut frame: Vec<u8>) -> Ipv4Addr {
        assert_eq!(self.judge_sent(&mut frame, LOOPBACK), Judgement::Send(SERVER.node));
        read(&frame[ETHERNET..]).destination
    }

    fn arrives(&mut self, packet: &Packet) {
        let mut frame = frame([0; 6], [0; 6], &packet.bytes());
        let peer: IpAddr = SERVER.node.ip();
        assert_eq!(self.judge_arrived(&mut frame, peer), Judgement::Deliver(LOOPBACK));
    }

    fn set_load(&mut self, instance: &Backend, flows: u32) {
        Control::set_load(self, instance, flows);
    }
}

fn in_kernel() -> Bed {
    let mut bed = Bed::new();
    bed.within(|datapath| {
        datapath.publish(&own())?;
        datapath.publish(&service())
    });
    bed
}

fn in_process() -> Control {
    let (mut control, _events) = Control::new(TUNNEL_PORT, Plan::default());
    control.set_node(NODE, LOOPBACK).unwrap();
    let client: &Endpoint = &CLIENT;
    control.attach_endpoint(client).unwrap();
    control.publish(&own()).unwrap();
    control.publish(&service()).unwrap();
    control
}

/// The address of the first instance alone.
fn own() -> Service {
    let instance = instances()[0];
    let service_ip = instance.instance_ip.into();
    Service { service_ip, policy: Policy::Instance, backends: vec![instance], resting: Vec::new() }
}

fn all_get_as_many_and_who_has_lost_some_gets_the_next(plane: &mut impl Plane) {
    // To the address of one: as answers to a client that is an instance itself, they are no load.
    for port in 40_000..40_009 {
        let ports = (port, SERVER_PORT);
        let packet = Packet { ports, ..Packet::new(TcpSyn, CLIENT.ns_ip, instances()[0].instance_ip) };
        plane.sends(packet.sent_by(&CLIENT));
    }
    let mut with = BTreeMap::new();
    for port in 41_000..41_030 {
        with.insert(port, plane.open(port));
    }
    let of = |with: &BTreeMap<u16, usize>, instance| with.values().filter(|it| **it == instance).count();
    assert_eq!([0, 1, 2].map(|instance| of(&with, instance)), [10; 3], "{with:?}");
    // In one way or the other four connections of one instance end, each of them once only.
    let ending: Vec<_> = with.iter().filter(|(_, it)| **it == 1).map(|(port, _)| *port).take(4).collect();
    for (number, port) in ending.iter().enumerate() {
        if number % 2 == 0 {
            plane.send(TcpReset, *port);
            plane.send(TcpReset, *port);
        } else {
            plane.send(TcpFin, *port);
            plane.answer(TcpFin, 1, *port);
            plane.answer(TcpFin, 1, *port);
        }
    }
    let next: Vec<_> = (42_000..42_004).map(|port| plane.open(port)).collect();
    assert_eq!(next, [1; 4]);
    let mut others: Vec<_> = (43_000..43_003).map(|port| plane.open(port)).collect();
    others.sort_unstable();
    assert_eq!(others, [0, 1, 2], "then all have as many again");
    // netmanager has counted anew.
    plane.set_load(&instances()[2], 0);
    let next: Vec<_> = (44_000..44_005).map(|port| plane.open(port)).collect();
    assert_eq!(next, [2; 5]);
}

#[test]
fn in_the_kernel_all_get_as_many_and_who_has_lost_some_gets_the_next() {
    all_get_as_many_and_who_has_lost_some_gets_the_next(&mut in_kernel());
}

#[test]
fn in_user_space_all_get_as_many_and_who_has_lost_some_gets_the_next() {
    all_get_as_many_and_who_has_lost_some_gets_the_next(&mut in_process());
}

#[test]
fn a_number_that_is_used_again_begins_without_connections() {
    let mut bed = in_kernel();
    bed.within(|datapath| datapath.withdraw_service(own().service_ip));
    bed.set_load(&instances()[0], 100);
    bed.within(|datapath| datapath.publish(&Service { backends: instances()[1..].to_vec(), ..service() }));
    bed.within(|datapath| datapath.publish(&service()));
    let chosen: Vec<_> = (41_000..41_003).map(|port| bed.open(port)).collect();
    assert!(chosen.contains(&0), "{chosen:?}");
}
