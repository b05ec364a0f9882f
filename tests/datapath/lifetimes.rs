//! How long flows live, and what they survive: floods, scans, a full table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use netmanager::datapath::{Backend, DropReason, Endpoint, FlowState, Policy};
use netmanager_common::budget::NEW_FLOWS;
use netmanager_common::flow::{self, KEEP_WARM, Ports};
use netmanager_common::life::{CLOSED_LIFETIME, DATAGRAM_LIFETIME};
use netmanager_common::map::{ASSURED, FLOWS, Flow, FlowKey, MAX_FLOWS};
use netmanager_common::wire::{self, Be16, Ip, Ip4};

use crate::bed::{Bed, CLIENT, NEIGHBOUR, PEER, REDIRECT, SERVER, SERVICE, TUNNEL_PORT};
use crate::packet::Transport::{EchoReply, EchoRequest, TcpAck, TcpFin, TcpReset, TcpSyn, TcpSynAck, Udp};
use crate::packet::{CLIENT_PORT, ETHERNET, Packet, SERVER_PORT, Transport, encapsulated, read};

const TWO: [Backend; 2] = [
    SERVER,
    Backend {
        ns_ip: Ipv4Addr::new(10, 18, 2, 3),
        instance_ip: Ipv4Addr::new(10, 30, 12, 11),
        node: SocketAddr::new(IpAddr::V4(PEER), TUNNEL_PORT),
        ..SERVER
    },
];

/// A node with a service of two instances.
fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &TWO));
    bed
}

fn sent(transport: Transport, client: &Endpoint, port: u16) -> Packet {
    let port = if transport == EchoRequest { CLIENT_PORT } else { port };
    Packet { ports: (port, SERVER_PORT), ..Packet::new(transport, client.ns_ip, SERVICE) }
}

fn answer(transport: Transport, server: &Backend, client: &Endpoint, port: u16) -> Packet {
    let packet = Packet::new(transport, server.instance_ip, client.ns_ip);
    let ports = if transport == EchoReply { (0, CLIENT_PORT) } else { (SERVER_PORT, port) };
    Packet { ports, ..packet }
}

/// Sends a packet of the client's and says to which instance it goes.
#[track_caller]
fn send(bed: &mut Bed, transport: Transport) -> Backend {
    let outcome = bed.container_sends(&sent(transport, &CLIENT, CLIENT_PORT).sent_by(&CLIENT));
    let destination = read(encapsulated(outcome.redirected()).inner).destination;
    TWO.into_iter().find(|backend| backend.ns_ip == destination).expect("one of the two")
}

/// An instance answers the client, who sees whom it had dialled.
#[track_caller]
fn reply(bed: &mut Bed, transport: Transport, server: &Backend) {
    let outcome = bed.uplink_receives(&answer(transport, server, &CLIENT, CLIENT_PORT).tunnelled());
    assert_eq!(read(&outcome.redirected()[ETHERNET..]).source, SERVICE, "{transport:?}");
}

/// The client's connection is established.
#[track_caller]
fn establish(bed: &mut Bed) -> Backend {
    let server = send(bed, TcpSyn);
    reply(bed, TcpSynAck, &server);
    assert_eq!(send(bed, TcpAck), server);
    server
}

#[track_caller]
fn state(bed: &Bed) -> FlowState {
    let flows = bed.datapath.flows().unwrap();
    let [flow] = flows[..] else { panic!("one flow: {flows:?}") };
    flow.state
}

fn ip(address: Ipv4Addr) -> Ip {
    Ip::from_v4(Ip4(address.octets()))
}

/// The keys of both directions of the client's flow to `server`.
fn keys(server: &Backend, protocol: u8) -> [FlowKey; 2] {
    let ports = Ports { source: Be16::new(CLIENT_PORT), destination: Be16::new(SERVER_PORT) };
    let forward = flow::forward_key(CLIENT.ifindex, ip(CLIENT.ns_ip), ip(SERVICE), ports, protocol);
    [forward, flow::reply_key(&forward, ip(server.instance_ip))]
}

/// Both entries look as if their last packets had been seen this many seconds earlier.
fn age(bed: &Bed, keys: &[FlowKey], seconds: u32) {
    let mut flows = bed.table::<FlowKey, Flow>(FLOWS);
    for key in keys {
        let flow = flows.get(key, 0).unwrap();
        let last_seen = flow.last_seen.wrapping_sub(seconds);
        flows.insert(key, Flow { last_seen, ..flow }, 0).unwrap();
    }
}

/// Both entries are lost, as the least recently used ones of a full table.
fn evict(bed: &Bed, keys: &[FlowKey]) {
    let mut flows = bed.table::<FlowKey, Flow>(FLOWS);
    for key in keys {
        flows.remove(key).unwrap();
    }
}

fn is_assured(bed: &Bed, keys: &[FlowKey]) -> bool {
    let assured = bed.table::<FlowKey, Flow>(ASSURED);
    keys.iter().all(|key| assured.get(key, 0).is_ok())
}

#[test]
fn a_connection_is_open_from_its_answer_to_its_second_fin() {
    let mut bed = bed();
    let server = send(&mut bed, TcpSyn);
    assert_eq!(state(&bed), FlowState::New);
    reply(&mut bed, TcpSynAck, &server);
    assert_eq!(state(&bed), FlowState::Assured);
    send(&mut bed, TcpFin);
    assert_eq!(state(&bed), FlowState::Closing);
    // Half of it is still open.
    reply(&mut bed, TcpAck, &server);
    assert_eq!(send(&mut bed, TcpAck), server);
    assert!(is_assured(&bed, &keys(&server, wire::TCP)));
    reply(&mut bed, TcpFin, &server);
    assert_eq!(state(&bed), FlowState::Closed);
    assert!(!is_assured(&bed, &keys(&server, wire::TCP)));
    assert_eq!(send(&mut bed, TcpAck), server, "the last ACK goes where the FIN went");
    assert_ne!(send(&mut bed, TcpSyn), server, "a new connection on the same port has its own turn");
}

#[test]
fn the_instance_may_be_the_first_to_say_that_it_sends_no_more() {
    let mut bed = bed();
    let server = establish(&mut bed);
    reply(&mut bed, TcpFin, &server);
    assert_eq!(state(&bed), FlowState::Assured, "the client may still send");
    send(&mut bed, TcpFin);
    assert_eq!(state(&bed), FlowState::Closed);
    reply(&mut bed, TcpAck, &server);
}

#[test]
fn a_reset_of_either_end_closes_a_connection() {
    for by_client in [true, false] {
        let mut bed = bed();
        let server = establish(&mut bed);
        if by_client {
            send(&mut bed, TcpReset);
        } else {
            reply(&mut bed, TcpReset, &server);
        }
        assert_eq!(state(&bed), FlowState::Closed);
        assert!(!is_assured(&bed, &keys(&server, wire::TCP)));
    }
}

#[test]
fn a_closed_connection_is_gone_after_seconds_and_an_established_one_stays_for_hours() {
    let mut bed = bed();
    let server = establish(&mut bed);
    age(&bed, &keys(&server, wire::TCP), 12 * 3600);
    assert_eq!(state(&bed), FlowState::Assured);
    assert_eq!(send(&mut bed, TcpAck), server);
    reply(&mut bed, TcpAck, &server);
    send(&mut bed, TcpReset);
    age(&bed, &keys(&server, wire::TCP), CLOSED_LIFETIME + 2);
    assert_eq!(bed.datapath.flows().unwrap(), []);
}

#[test]
fn what_is_assured_survives_its_loss_from_the_full_table() {
    let mut bed = bed();
    let server = establish(&mut bed);
    let both = keys(&server, wire::TCP);
    for _ in 0..2 {
        evict(&bed, &both);
        assert_eq!(send(&mut bed, TcpAck), server);
        reply(&mut bed, TcpAck, &server);
        // Also if the instance is the one that goes on.
        evict(&bed, &both);
        reply(&mut bed, TcpAck, &server);
        assert_eq!(send(&mut bed, TcpAck), server);
    }
}

#[test]
fn a_lost_connection_whose_instance_has_gone_is_reset_all_the_same() {
    let mut bed = bed();
    let server = establish(&mut bed);
    let [other] = TWO.into_iter().filter(|backend| *backend != server).collect::<Vec<_>>()[..] else {
        panic!()
    };
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[other]));
    evict(&bed, &keys(&server, wire::TCP));
    bed.container_sends(&sent(TcpAck, &CLIENT, CLIENT_PORT).sent_by(&CLIENT))
        .assert_dropped(DropReason::BackendGone);
}

#[test]
fn datagrams_are_assured_by_answers_in_two_seconds() {
    let mut bed = bed();
    let server = send(&mut bed, Udp);
    let both = keys(&server, wire::UDP);
    reply(&mut bed, Udp, &server);
    reply(&mut bed, Udp, &server);
    assert_eq!((state(&bed), is_assured(&bed, &both)), (FlowState::Answered, false));
    age(&bed, &both, 2);
    reply(&mut bed, Udp, &server);
    assert_eq!((state(&bed), is_assured(&bed, &both)), (FlowState::Assured, true));
    evict(&bed, &both);
    reply(&mut bed, Udp, &server);
    assert_eq!(send(&mut bed, Udp), server);
}

#[test]
fn datagrams_that_are_remembered_for_an_instance_that_is_gone_go_on_to_another() {
    let mut bed = bed();
    let server = send(&mut bed, Udp);
    reply(&mut bed, Udp, &server);
    let both = keys(&server, wire::UDP);
    age(&bed, &both, 1);
    reply(&mut bed, Udp, &server);
    assert!(is_assured(&bed, &both));
    let left = TWO.into_iter().find(|other| *other != server).unwrap();
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[left]));
    evict(&bed, &both);
    for _ in 0..2 {
        assert_eq!(send(&mut bed, Udp), left);
    }
}

#[test]
fn datagrams_that_go_one_way_keep_the_entry_of_the_other() {
    let mut bed = bed();
    let server = send(&mut bed, Udp);
    let [forward, arrival] = keys(&server, wire::UDP);
    evict(&bed, &[arrival]);
    age(&bed, &[forward], KEEP_WARM);
    assert_eq!(send(&mut bed, Udp), server);
    reply(&mut bed, Udp, &server);
    // Answers alone keep the flow as well.
    age(&bed, &[forward], DATAGRAM_LIFETIME + 2);
    age(&bed, &[arrival], KEEP_WARM);
    reply(&mut bed, Udp, &server);
    assert_eq!(send(&mut bed, Udp), server);
}

#[test]
fn quiet_datagrams_begin_anew_after_their_lifetime() {
    let mut bed = bed();
    let server = send(&mut bed, Udp);
    age(&bed, &keys(&server, wire::UDP), DATAGRAM_LIFETIME + 2);
    assert_ne!(send(&mut bed, Udp), server);
}

#[test]
fn ports_are_kept_by_datagrams_that_go_one_way() {
    let mut bed = bed();
    bed.within(|datapath| datapath.publish_service(SERVER.instance_ip, Policy::Instance, &[SERVER]));
    while send(&mut bed, Udp) != SERVER {
        evict(&bed, &keys(&TWO[1], wire::UDP));
    }
    let [_, arrival] = keys(&SERVER, wire::UDP);
    age(&bed, &[arrival], DATAGRAM_LIFETIME);
    let clash = Packet::new(Udp, CLIENT.ns_ip, SERVER.instance_ip);
    bed.container_sends(&clash.sent_by(&CLIENT)).assert_dropped(DropReason::PortClash);
}

/// SYNs from many ports to many ports.
fn scan(from: &Endpoint, count: u32) -> impl Iterator<Item = (u16, Packet)> {
    (0..count).map(move |n| {
        let port = u16::try_from(1024 + n % 60_000).unwrap();
        let to = u16::try_from(1 + n / 60_000).unwrap();
        (port, Packet { ports: (port, to), ..Packet::new(TcpSyn, from.ns_ip, SERVICE) })
    })
}

fn entries(bed: &Bed) -> usize {
    bed.table::<FlowKey, Flow>(FLOWS).keys().count()
}

#[test]
fn a_flood_of_syns_is_bounded_and_harms_no_other_container() {
    let mut bed = bed();
    let server = establish(&mut bed);
    let begun = std::time::Instant::now();
    let flood = scan(&NEIGHBOUR, 200_000).map(|(_, packet)| packet.sent_by(&NEIGHBOUR));
    let verdicts = bed.container_sends_all(flood);
    let seconds = begun.elapsed().as_secs() + 1;
    let let_through = verdicts.iter().filter(|verdict| **verdict == REDIRECT).count();
    let allowed = u64::from(NEW_FLOWS.burst) + seconds * (1_000_000_000 / NEW_FLOWS.refill_ns);
    assert!(
        let_through >= NEW_FLOWS.burst as usize && let_through as u64 <= allowed,
        "{let_through} of {allowed}"
    );
    assert!(entries(&bed) <= 2 * let_through + 2, "{} entries", entries(&bed));
    let dropped = u64::try_from(verdicts.len() - let_through).unwrap();
    assert_eq!(bed.datapath.counters().unwrap().drops, [(DropReason::TooManyFlows, dropped)]);
    assert_eq!(send(&mut bed, TcpAck), server);
    reply(&mut bed, TcpAck, &server);
    let new = Packet { ports: (50000, SERVER_PORT), ..Packet::new(TcpSyn, CLIENT.ns_ip, SERVICE) };
    bed.container_sends(&new.sent_by(&CLIENT)).redirected();
}

#[test]
fn a_table_turned_over_by_refused_connections_keeps_the_established_ones() {
    let mut bed = bed();
    let server = establish(&mut bed);
    let flows = bed.table::<FlowKey, Flow>(FLOWS);
    let lost = || keys(&server, wire::TCP).iter().filter(|key| flows.get(key, 0).is_err()).count();
    // Kernels differ in how many others it takes until all that is not used is gone.
    let most = 2 * MAX_FLOWS;
    for part in scan(&NEIGHBOUR, most).collect::<Vec<_>>().chunks(2048) {
        if lost() == 2 {
            break;
        }
        let verdicts = bed.container_sends_all(part.iter().map(|(_, packet)| packet.sent_by(&NEIGHBOUR)));
        assert!(verdicts.iter().all(|verdict| *verdict == REDIRECT), "what is answered is not bounded");
        // Of whom the instance refused, each one is for either.
        for server in &TWO {
            let refused = part.iter().map(|(port, packet)| {
                let ports = (packet.ports.1, *port);
                Packet { ports, ..answer(TcpReset, server, &NEIGHBOUR, *port) }.tunnelled()
            });
            bed.uplink_receives_all(refused);
        }
    }
    assert_eq!(lost(), 2, "the table was turned over");
    reply(&mut bed, TcpAck, &server);
    assert_eq!(send(&mut bed, TcpAck), server);
}

#[test]
fn who_is_asked_may_answer_without_limit() {
    let mut bed = bed();
    let asker =
        Backend { ns_ip: Ipv4Addr::new(10, 18, 2, 9), instance_ip: Ipv4Addr::new(10, 30, 12, 99), ..SERVER };
    bed.within(|datapath| datapath.publish_service(asker.instance_ip, Policy::Instance, &[asker]));
    // Each question from another port, as those of a resolver.
    for first in (0..4 * NEW_FLOWS.burst).step_by(1024) {
        let ports = || (first..first + 1024).map(|n| u16::try_from(1024 + n).unwrap());
        let questions = ports().map(|port| {
            let question = Packet::new(Udp, asker.instance_ip, CLIENT.ns_ip);
            Packet { ports: (port, 53), ..question }.tunnelled()
        });
        assert!(bed.uplink_receives_all(questions).iter().all(|verdict| *verdict == REDIRECT));
        let answers = ports().map(|port| {
            let answer = Packet::new(Udp, CLIENT.ns_ip, asker.instance_ip);
            Packet { ports: (53, port), ..answer }.sent_by(&CLIENT)
        });
        assert!(bed.container_sends_all(answers).iter().all(|verdict| *verdict == REDIRECT), "from {first}");
    }
}
