//! What the XDP program at the uplink does to single packets.

use std::net::Ipv4Addr;

use netmanager::datapath::{DropReason, UPLINK_XDP, UPLINK_XDP_LONG};
use netmanager_common::budget::UNKNOWN_SOURCE;
use netmanager_common::map::{SENDERS, Unwrapped};
use netmanager_common::wire::Ip;

use crate::bed::{Bed, CLIENT, NEIGHBOUR, NODE, PEER, SERVER, SERVICE};
use crate::packet::Transport::{EchoRequest, TcpAck, TcpFin, TcpSyn, Udp, UdpUnchecked};
use crate::packet::{ETHERNET, OUTER, Packet, Transport, frame, tunnelled};

/// Of XDP.
const DROPPED: i32 = 1;
const PASSED: i32 = 2;

const PROGRAMS: [&str; 2] = [UPLINK_XDP, UPLINK_XDP_LONG];
const MARK: usize = size_of::<Unwrapped>();
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

fn request(transport: Transport) -> Packet {
    Packet::new(transport, SERVER.instance_ip, CLIENT.ns_ip)
}

#[track_caller]
fn assert_left(bed: &mut Bed, frame: &[u8]) {
    for name in PROGRAMS {
        bed.driver_receives(name, frame).assert_untouched(PASSED, frame);
    }
}

#[track_caller]
fn assert_dropped(bed: &mut Bed, frame: &[u8], reason: DropReason) {
    for name in PROGRAMS {
        let outcome = bed.driver_receives(name, frame);
        assert_eq!((outcome.verdict, outcome.dropped.as_slice()), (DROPPED, [reason].as_slice()), "{name}");
    }
}

#[test]
fn a_packet_that_will_be_delivered_loses_its_outer_headers_and_is_marked_with_its_receiver() {
    let mut bed = Bed::new();
    for (transport, source) in [TcpAck, TcpFin, Udp, UdpUnchecked]
        .map(|transport| (transport, SERVER.instance_ip))
        .into_iter()
        .chain([(Udp, SERVER.ns_ip)])
    {
        let sent = Packet { source, ..request(transport) };
        let arrived = sent.tunnelled();
        for name in PROGRAMS {
            let outcome = bed.driver_receives(name, &arrived);
            assert_eq!((outcome.verdict, outcome.dropped.as_slice()), (PASSED, [].as_slice()), "{name}");
            let (mark, unwrapped) = outcome.frame.split_at(MARK);
            assert_eq!(mark[..4], Unwrapped::MARK.to_ne_bytes());
            assert_eq!(mark[4..8], CLIENT.ifindex.to_ne_bytes());
            assert_eq!(mark[12..24], [CLIENT.mac, CLIENT.gateway_mac].concat());
            assert_eq!(unwrapped[..ETHERNET], arrived[..ETHERNET], "the Ethernet header stays");
            assert_eq!(unwrapped[ETHERNET..], sent.bytes(), "{transport:?}");
        }
    }
    assert_eq!(bed.datapath.tables().early().unwrap().unwrapped, 10);
}

#[test]
fn what_is_not_certain_goes_on_as_it_came() {
    let mut bed = Bed::new();
    let good = request(TcpAck).tunnelled();
    let inner = ETHERNET + OUTER;
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let changes: [(&str, Change<'_>); 9] = [
        ("another port", &|frame| frame[ETHERNET + 23] ^= 1),
        ("another destination", &|frame| frame[ETHERNET + 19] = 9),
        ("IP options", &|frame| frame[ETHERNET] = 0x46),
        ("ARP", &|frame| frame[13] = 6),
        ("cut in its headers", &|frame| frame.truncate(ETHERNET + OUTER - 1)),
        ("inner IP options", &|frame| frame[inner] = 0x46),
        ("an inner fragment", &|frame| frame[inner + 6] = 0x20),
        ("for nobody here", &|frame| frame[inner + 19] = 250),
        ("padding of the Ethernet frame", &|frame| frame.push(0)),
    ];
    for (what, change) in changes {
        let mut frame = good.clone();
        change(&mut frame);
        println!("{what}");
        assert_left(&mut bed, &frame);
    }
    // The second is for the other program to lower its segment size in.
    for transport in [EchoRequest, TcpSyn] {
        assert_left(&mut bed, &request(transport).tunnelled());
    }
    for source in [Ipv4Addr::new(10, 30, 99, 99), Ipv4Addr::new(10, 18, 2, 60)] {
        assert_left(&mut bed, &Packet { source, ..request(TcpAck) }.tunnelled());
    }
    assert_left(
        &mut bed,
        &tunnelled(STRANGER, &Packet::new(TcpSyn, Ipv4Addr::new(10, 30, 99, 99), CLIENT.ns_ip).bytes()),
    );
    assert_eq!(bed.misses(), [], "asking is left to the other program");
}

#[test]
fn a_node_without_an_address_leaves_all_to_others() {
    assert_left(&mut Bed::empty(), &request(Udp).tunnelled());
}

#[test]
fn what_must_not_come_in_ends_in_the_driver() {
    let mut bed = Bed::new();
    for inner in [&b""[..], b"E", &[0x45; 19]] {
        assert_dropped(&mut bed, &tunnelled(PEER, inner), DropReason::Malformed);
    }
    assert_dropped(&mut bed, &tunnelled(PEER, &[0; 40]), DropReason::ForeignTunnel);
    let good = request(TcpAck).tunnelled();
    for offset in [ETHERNET + 3, ETHERNET + 20 + 5, ETHERNET + OUTER + 3] {
        let mut frame = good.clone();
        frame[offset] ^= 1;
        assert_dropped(&mut bed, &frame, DropReason::Malformed);
    }
    let mut fragment = good.clone();
    fragment[ETHERNET + 6] = 0x20;
    assert_dropped(&mut bed, &fragment, DropReason::OuterFragment);
    for source in [Ipv4Addr::new(203, 0, 113, 1), NODE] {
        assert_dropped(&mut bed, &Packet { source, ..request(Udp) }.tunnelled(), DropReason::ForeignSource);
    }
    assert_dropped(&mut bed, &tunnelled(STRANGER, &request(Udp).bytes()), DropReason::ForeignSource);
    let bare = |source, destination| frame([2; 6], [4; 6], &Packet::new(Udp, source, destination).bytes());
    assert_dropped(&mut bed, &bare(SERVER.ns_ip, CLIENT.ns_ip), DropReason::BareInner);
    assert_dropped(&mut bed, &bare(NEIGHBOUR.ns_ip, NODE), DropReason::BareInner);
    assert_left(&mut bed, &bare(SERVER.ns_ip, SERVICE));
}

#[test]
fn a_stranger_that_has_used_up_its_budget_ends_in_the_driver() {
    let mut bed = Bed::new();
    let frame =
        tunnelled(STRANGER, &Packet::new(TcpSyn, Ipv4Addr::new(10, 30, 99, 99), CLIENT.ns_ip).bytes());
    assert_left(&mut bed, &frame);
    // As if in the far future: the budget does not refill while the test looks.
    let spent = netmanager_common::budget::Budget { since: u64::MAX, left: 0, _pad: 0 };
    bed.table(SENDERS).insert(Ip::from_octets(STRANGER.to_ipv6_mapped().octets()), spent, 0).unwrap();
    assert!(spent.is_used_up(UNKNOWN_SOURCE, 0));
    assert_dropped(&mut bed, &frame, DropReason::OverBudget);
}
