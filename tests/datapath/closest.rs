//! The closest instance, by the time that its answers take.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netmanager::balance::Balance;
use netmanager::datapath::{Backend, Policy};
use netmanager::table::Entry;

use crate::bed::{Bed, CLIENT, SERVER, SERVICE, TUNNEL_PORT};
use crate::packet::Transport::{TcpSyn, TcpSynAck};
use crate::packet::{Packet, SERVER_PORT, encapsulated, read, tunnelled};

/// More than what decides, on a busy machine too.
const FAR: Duration = Duration::from_millis(100);

const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];

fn backend(n: u8) -> Backend {
    Backend {
        ns_ip: Ipv4Addr::new(10, 18, 2 + n, 2),
        instance_ip: Ipv4Addr::new(10, 30, 12, 10 + n),
        node: SocketAddr::new(IpAddr::V4(NODES[usize::from(n)]), TUNNEL_PORT),
        ..SERVER
    }
}

/// The client connects from `port`. Gives the NsIP of the instance that is chosen.
#[track_caller]
fn connect(bed: &mut Bed, to: Ipv4Addr, port: u16) -> Ipv4Addr {
    let packet = Packet { ports: (port, SERVER_PORT), ..Packet::new(TcpSyn, CLIENT.ns_ip, to) };
    let outcome = bed.container_sends(&packet.sent_by(&CLIENT));
    read(encapsulated(outcome.redirected()).inner).destination
}

#[track_caller]
fn accept(bed: &mut Bed, n: u8, port: u16) {
    let answer = Packet::new(TcpSynAck, backend(n).instance_ip, CLIENT.ns_ip);
    let answer = Packet { ports: (SERVER_PORT, port), ..answer };
    bed.uplink_receives(&tunnelled(NODES[usize::from(n)], &answer.bytes())).redirected();
}

/// A connection to an instance by its own address, which is answered after `delay`.
#[track_caller]
fn measure(bed: &mut Bed, n: u8, port: u16, delay: Duration) {
    assert_eq!(connect(bed, backend(n).instance_ip, port), backend(n).ns_ip);
    sleep(delay);
    accept(bed, n, port);
}

fn closest(backends: &[Backend], busy: Option<u8>) -> Entry {
    let busy = busy.map(|n| backend(n).ns_ip).into_iter().collect();
    Entry { backends: backends.to_vec(), busy, ..Entry::empty(Policy::Closest) }
}

#[test]
fn new_connections_go_past_the_closest_instance_while_it_is_busy_and_another_is_not() {
    let mut bed = Bed::new();
    let mut balance = Balance::default();
    let both = [backend(0), backend(1)];
    for own in &both {
        bed.within(|datapath| datapath.publish_service(own.instance_ip, Policy::Instance, &[*own]));
    }
    let mut publish = |bed: &mut Bed, backends: &[Backend], busy| {
        bed.within(|datapath| {
            balance.publish(datapath, SERVICE.into(), closest(backends, busy)).unwrap();
            Ok(())
        });
    };
    publish(&mut bed, &both, None);
    assert_eq!(connect(&mut bed, SERVICE, 41_000), backend(0).ns_ip);
    publish(&mut bed, &both, Some(0));
    assert_eq!(connect(&mut bed, SERVICE, 41_001), backend(1).ns_ip);
    assert_eq!(connect(&mut bed, SERVICE, 41_000), backend(0).ns_ip, "what it has it keeps");
    publish(&mut bed, &both[..1], Some(0));
    assert_eq!(connect(&mut bed, SERVICE, 41_002), backend(0).ns_ip, "there is no other");
    publish(&mut bed, &both, None);
    assert_eq!(connect(&mut bed, SERVICE, 41_003), backend(0).ns_ip);
}

#[test]
fn new_connections_go_to_the_instance_whose_node_answers_soonest() {
    let mut bed = Bed::new();
    let mut balance = Balance::default();
    let both = vec![backend(0), backend(1)];
    bed.within(|datapath| {
        for own in &both {
            datapath.publish_service(own.instance_ip, Policy::Instance, &[*own])?;
        }
        balance.publish(datapath, SERVICE.into(), closest(&both, None)).unwrap();
        Ok(())
    });
    let all_to = |bed: &mut Bed, first: u16, n: u8| {
        for port in first..first + 4 {
            assert_eq!(connect(bed, SERVICE, port), backend(n).ns_ip);
        }
    };
    all_to(&mut bed, 41_000, 0);
    measure(&mut bed, 0, 42_000, FAR);
    measure(&mut bed, 1, 42_001, Duration::ZERO);
    let round_trip = bed.within(|datapath| datapath.reading(&backend(0))).unwrap().round_trip;
    assert!(round_trip.is_some_and(|time| time >= FAR), "{round_trip:?}");
    bed.within(|datapath| {
        balance.tick(datapath, None, Instant::now());
        Ok(())
    });
    all_to(&mut bed, 43_000, 1);
}
