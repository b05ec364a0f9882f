//! What a packet finds in the tables at an unlucky moment: memory that the kernel has just given to another entry, or
//! what a CPU that was interrupted has left behind. The moments cannot be met at will; what is found then can be put
//! there.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use netmanager::datapath::{Backend, DropReason, Policy};
use netmanager_common::map::{self, Endpoint, Flow, FlowKey};
use netmanager_common::wire::{Ip, Ip4};

use crate::bed::{Bed, CLIENT, NEIGHBOUR, SERVER, SERVICE};
use crate::packet::Packet;
use crate::packet::Transport::{TcpSyn, Udp};

fn ip(address: Ipv4Addr) -> Ip {
    Ip::from_v4(Ip4(address.octets()))
}

#[test]
fn an_entry_that_has_become_another_containers_is_not_believed() {
    let mut bed = Bed::new();
    let mut endpoints = bed.table::<Ip, Endpoint>(map::ENDPOINTS);
    let (client, neighbour) = (ip(CLIENT.ns_ip), ip(NEIGHBOUR.ns_ip));
    let other = Endpoint { ns_ip: neighbour, ..endpoints.get(&client, 0).unwrap() };
    endpoints.insert(client, other, 0).unwrap();
    bed.container_sends(&Packet::new(Udp, CLIENT.ns_ip, SERVICE).sent_by(&CLIENT))
        .assert_dropped(DropReason::SpoofedSource);
    bed.uplink_receives(&Packet::new(Udp, SERVER.instance_ip, CLIENT.ns_ip).tunnelled())
        .assert_dropped(DropReason::NoEndpoint);
}

#[test]
fn a_number_that_has_become_another_address_is_not_believed() {
    let mut bed = Bed::new();
    let mut hosts = bed.table::<Ip, u32>(map::HOSTS);
    let number = hosts.get(&ip(SERVER.ns_ip), 0).unwrap();
    let other = Ipv4Addr::new(10, 18, 9, 9);
    hosts.insert(ip(other), number, 0).unwrap();
    bed.uplink_receives(&Packet::new(Udp, other, CLIENT.ns_ip).tunnelled())
        .assert_dropped(DropReason::ForeignSource);
}

#[test]
fn a_lock_that_was_left_behind_is_removed() {
    let mut bed = Bed::new();
    let second = Backend { ns_ip: Ipv4Addr::new(10, 18, 2, 3), ..SERVER };
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[SERVER, second]));
    let frame = |port| {
        let packet = Packet { ports: (port, 80), ..Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE) };
        packet.sent_by(&CLIENT)
    };
    bed.container_sends(&frame(41000)).redirected();
    // The kernel side's own clock.
    let (_, flow) = bed.table::<FlowKey, Flow>(map::FLOWS).iter().next().unwrap().unwrap();
    let mut locks = bed.table::<Ip, u32>(map::TURN_LOCKS);
    let key = ip(SERVICE);
    locks.insert(key, flow.last_seen, 0).unwrap();
    bed.container_sends(&frame(41001)).redirected();
    assert!(locks.get(&key, 0).is_ok(), "whoever has it may be at work");
    let deadline = Instant::now() + Duration::from_secs(4);
    for port in 41002.. {
        bed.container_sends(&frame(port)).redirected();
        if locks.get(&key, 0).is_err() {
            break;
        }
        assert!(Instant::now() < deadline, "the lock is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
}
