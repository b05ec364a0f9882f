//! What becomes of the packets that containers send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use netmanager::datapath::{Backend, DropReason, Endpoint, Miss, Policy};

use crate::bed::{Bed, CLIENT, NEIGHBOUR, NODE, PASS, PEER, SERVER, SERVICE, TUNNEL_PORT};
use crate::packet::Transport::{
    DestinationUnreachable, EchoReply, EchoRequest, TcpAck, TcpFin, TcpSyn, Udp, UdpUnchecked,
};
use crate::packet::{
    CLIENT_PORT, ETHERNET, PAYLOAD, Packet, SERVER_PORT, Seen, Transport, delivered, encapsulated, read,
};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const UNKNOWN_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 30, 99, 99);

pub(crate) fn to_service(transport: Transport) -> Packet {
    Packet::new(transport, CLIENT.ns_ip, SERVICE)
}

fn ports(transport: Transport) -> (u16, u16) {
    match transport {
        EchoRequest => (CLIENT_PORT, 0),
        EchoReply => (0, CLIENT_PORT),
        _ => (CLIENT_PORT, SERVER_PORT),
    }
}

/// Further instances of the service on the other node.
pub(crate) fn servers(count: u8) -> Vec<Backend> {
    (0..count)
        .map(|n| Backend {
            ns_ip: Ipv4Addr::new(10, 18, 2, 2 + n),
            instance_ip: Ipv4Addr::new(10, 30, 12, 10 + n),
            node: SocketAddr::new(IpAddr::V4(PEER), TUNNEL_PORT),
            ..SERVER
        })
        .collect()
}

/// Sends a packet and says which instance it goes to.
#[track_caller]
pub(crate) fn instance_chosen(bed: &mut Bed, packet: &Packet) -> Ipv4Addr {
    let outcome = bed.container_sends(&packet.sent_by(&CLIENT));
    read(encapsulated(outcome.redirected()).inner).destination
}

#[test]
fn to_a_service_address_both_addresses_are_translated_and_the_packet_tunnelled() {
    let mut bed = Bed::new();
    for transport in [TcpSyn, TcpAck, Udp, UdpUnchecked, EchoRequest] {
        let sent = to_service(transport);
        for warm in [false, true] {
            let outcome = bed.container_sends(&sent.sent_by(&CLIENT));
            let encapsulated = encapsulated(outcome.redirected());
            assert_eq!(encapsulated.destination, (PEER, TUNNEL_PORT));
            let expected = Seen {
                source: CLIENT.instance_ip.unwrap(),
                destination: SERVER.ns_ip,
                ports: ports(transport),
                ttl: 63,
                payload: PAYLOAD.to_vec(),
            };
            assert_eq!(read(encapsulated.inner), expected, "{transport:?}, warm: {warm}");
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    let mut bed = Bed::new();
    let outcome = bed.container_sends(&to_service(UdpUnchecked).sent_by(&CLIENT));
    assert_eq!(encapsulated(outcome.redirected()).inner[26..28], [0, 0]);
}

#[test]
fn a_flow_keeps_its_outer_source_port_and_flows_differ() {
    let mut bed = Bed::new();
    let mut port = |client_port| {
        let packet = Packet { ports: (client_port, SERVER_PORT), ..to_service(TcpSyn) };
        encapsulated(bed.container_sends(&packet.sent_by(&CLIENT)).redirected()).source_port
    };
    let first: Vec<_> = (40000..40008).map(&mut port).collect();
    let again: Vec<_> = (40000..40008).map(&mut port).collect();
    assert_eq!(first, again);
    assert!(first.iter().any(|port| *port != first[0]), "{first:?}");
}

#[test]
fn an_update_of_the_service_does_not_disturb_the_turns_nor_the_flows() {
    let mut bed = Bed::new();
    let servers = servers(3);
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &servers));
    let first = instance_chosen(&mut bed, &to_service(TcpSyn));
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &servers));
    assert_eq!(instance_chosen(&mut bed, &to_service(TcpAck)), first);
    let next = Packet { ports: (41000, SERVER_PORT), ..to_service(TcpSyn) };
    assert_ne!(instance_chosen(&mut bed, &next), first);
}

#[test]
fn a_retransmitted_syn_keeps_its_instance_and_a_new_connection_on_the_port_does_not() {
    let mut bed = Bed::new();
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &servers(2)));
    let first = instance_chosen(&mut bed, &to_service(TcpSyn));
    for transport in [TcpSyn, TcpAck, TcpFin, TcpAck] {
        assert_eq!(instance_chosen(&mut bed, &to_service(transport)), first, "{transport:?}");
    }
    assert_ne!(instance_chosen(&mut bed, &to_service(TcpSyn)), first);
}

#[test]
fn a_flow_whose_instance_has_gone_is_given_another_or_refused() {
    let mut bed = Bed::new();
    let [old, new] = servers(2).try_into().unwrap();
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[old]));
    for transport in [TcpSyn, Udp, EchoRequest] {
        assert_eq!(instance_chosen(&mut bed, &to_service(transport)), old.ns_ip);
    }
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[new]));
    bed.container_sends(&to_service(TcpAck).sent_by(&CLIENT)).assert_dropped(DropReason::BackendGone);
    for transport in [TcpSyn, Udp, EchoRequest] {
        assert_eq!(instance_chosen(&mut bed, &to_service(transport)), new.ns_ip, "{transport:?}");
    }
}

#[test]
fn an_instance_on_another_port_is_reached_there() {
    let mut bed = Bed::new();
    let elsewhere = Backend { node: SocketAddr::new(IpAddr::V4(PEER), 40404), ..SERVER };
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[elsewhere]));
    let outcome = bed.container_sends(&to_service(Udp).sent_by(&CLIENT));
    assert_eq!(encapsulated(outcome.redirected()).destination, (PEER, 40404));
}

#[test]
fn an_instance_on_this_node_gets_the_packet_directly_and_its_answer_comes_from_the_service() {
    let mut bed = Bed::new();
    let instance = |endpoint: &Endpoint| Backend {
        ns_ip: endpoint.ns_ip,
        instance_ip: endpoint.instance_ip.unwrap(),
        node: SocketAddr::new(IpAddr::V4(NODE), TUNNEL_PORT),
        ..SERVER
    };
    let (client, server) = (instance(&CLIENT), instance(&NEIGHBOUR));
    bed.within(|datapath| {
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[server])?;
        datapath.publish_service(client.instance_ip, Policy::Instance, &[client])
    });
    for (there, back) in [(TcpSyn, TcpAck), (Udp, Udp), (EchoRequest, EchoReply)] {
        let outcome = bed.container_sends(&to_service(there).sent_by(&CLIENT));
        let seen = delivered(outcome.redirected(), &NEIGHBOUR);
        assert_eq!((seen.source, seen.destination), (client.instance_ip, server.ns_ip));
        assert_eq!((seen.ttl, seen.payload.as_slice()), (63, PAYLOAD));
        let ports = if back == EchoReply { (0, CLIENT_PORT) } else { (SERVER_PORT, CLIENT_PORT) };
        let mut answer = Packet::new(back, server.ns_ip, client.instance_ip);
        answer.ports = if back == EchoReply { (0, CLIENT_PORT) } else { ports };
        let outcome = bed.container_sends(&answer.sent_by(&NEIGHBOUR));
        let seen = delivered(outcome.redirected(), &CLIENT);
        assert_eq!((seen.source, seen.destination), (SERVICE, client.ns_ip), "{there:?}");
        assert_eq!(seen.ports, ports);
    }
}

#[test]
fn an_instance_that_should_be_here_and_is_not_is_not_sent_for() {
    let mut bed = Bed::new();
    let missing = Backend { node: SocketAddr::new(IpAddr::V4(NODE), TUNNEL_PORT), ..SERVER };
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[missing]));
    bed.container_sends(&to_service(Udp).sent_by(&CLIENT)).assert_dropped(DropReason::NoEndpoint);
}

#[test]
fn an_unknown_service_is_reported_once_in_200_ms() {
    let mut bed = Bed::new();
    let frame = Packet::new(TcpSyn, CLIENT.ns_ip, UNKNOWN_SERVICE).sent_by(&CLIENT);
    let miss = Miss { service_ip: UNKNOWN_SERVICE.into(), ns_ip: CLIENT.ns_ip.into() };
    for _ in 0..3 {
        bed.container_sends(&frame).assert_dropped(DropReason::ServiceUnknown);
    }
    assert_eq!(bed.misses(), [miss]);
    sleep(Duration::from_millis(250));
    bed.container_sends(&frame).assert_dropped(DropReason::ServiceUnknown);
    assert_eq!(bed.misses(), [miss]);
}

#[test]
fn a_withdrawn_service_is_unknown_again_and_one_without_instances_is_not() {
    let mut bed = Bed::new();
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[]));
    bed.container_sends(&to_service(TcpSyn).sent_by(&CLIENT)).assert_dropped(DropReason::NoBackend);
    assert_eq!(bed.misses(), []);
    bed.within(|datapath| datapath.withdraw_service(SERVICE));
    bed.container_sends(&to_service(TcpSyn).sent_by(&CLIENT)).assert_dropped(DropReason::ServiceUnknown);
    assert_eq!(bed.misses().len(), 1);
}

#[test]
fn a_container_cannot_speak_for_another() {
    let mut bed = Bed::new();
    let impostor = Endpoint { mac: NEIGHBOUR.mac, ..CLIENT };
    for destination in [SERVICE, NEIGHBOUR.ns_ip, SERVER.ns_ip, OUTSIDE] {
        for source in [OUTSIDE, Ipv4Addr::UNSPECIFIED, SERVICE, SERVER.ns_ip] {
            bed.container_sends(&Packet::new(Udp, source, destination).sent_by(&CLIENT))
                .assert_dropped(DropReason::SpoofedSource);
        }
        bed.container_sends(&Packet::new(Udp, CLIENT.ns_ip, destination).sent_by(&impostor))
            .assert_dropped(DropReason::SpoofedSource);
    }
}

#[test]
fn what_is_not_the_overlays_is_left_to_the_host() {
    let mut bed = Bed::new();
    for (transport, destination) in [
        (TcpSyn, OUTSIDE),
        (Udp, OUTSIDE),
        (DestinationUnreachable, OUTSIDE),
        (EchoRequest, Ipv4Addr::new(10, 18, 1, 1)),
    ] {
        let frame = Packet::new(transport, CLIENT.ns_ip, destination).sent_by(&CLIENT);
        bed.container_sends(&frame).assert_untouched(PASS, &frame);
    }
    let mut arp = Packet::new(Udp, CLIENT.ns_ip, OUTSIDE).sent_by(&CLIENT);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    bed.container_sends(&arp).assert_untouched(PASS, &arp);
    arp[12..14].copy_from_slice(&[0x88, 0xcc]);
    bed.container_sends(&arp).assert_dropped(DropReason::NotIp);
}

#[test]
fn no_container_reaches_a_tunnel_port() {
    let mut bed = Bed::new();
    let elsewhere = Backend { node: SocketAddr::new(IpAddr::V4(PEER), 40404), ..SERVER };
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &[elsewhere]));
    for (destination, port) in
        [(NODE, TUNNEL_PORT), (PEER, TUNNEL_PORT), (OUTSIDE, TUNNEL_PORT), (PEER, 40404)]
    {
        let packet = Packet { ports: (9, port), ..Packet::new(Udp, CLIENT.ns_ip, destination) };
        bed.container_sends(&packet.sent_by(&CLIENT)).assert_dropped(DropReason::TunnelFromContainer);
        // Behind IP options, too.
        let mut frame = packet.sent_by(&CLIENT);
        frame[ETHERNET] = 0x46;
        let transport = ETHERNET + 20;
        frame.splice(transport..transport, [1, 1, 1, 1]);
        bed.container_sends(&frame).assert_dropped(DropReason::TunnelFromContainer);
    }
    let frame = Packet { ports: (9, 40404), ..Packet::new(Udp, CLIENT.ns_ip, NODE) }.sent_by(&CLIENT);
    bed.container_sends(&frame).assert_untouched(PASS, &frame);
}

#[test]
fn what_cannot_be_translated_is_dropped_with_its_reason() {
    let mut bed = Bed::new();
    let mut check = |change: &dyn Fn(&mut Vec<u8>), reason| {
        for destination in [SERVICE, NEIGHBOUR.ns_ip, SERVER.ns_ip] {
            let mut frame = Packet::new(TcpAck, CLIENT.ns_ip, destination).sent_by(&CLIENT);
            change(&mut frame);
            bed.container_sends(&frame).assert_dropped(reason);
        }
    };
    let ip = ETHERNET;
    check(&|frame| frame[ip] = 0x46, DropReason::IpOptions);
    check(&|frame| frame[ip] = 0x44, DropReason::Malformed);
    check(&|frame| frame[ip] = 0x65, DropReason::Malformed);
    check(&|frame| frame[ip + 3] += 1, DropReason::Malformed);
    check(&|frame| frame[ip + 3] -= 1, DropReason::Malformed);
    check(&|frame| frame.push(0), DropReason::Malformed);
    check(&|frame| frame[ip + 8] = 1, DropReason::TtlExpired);
    check(&|frame| frame[ip + 8] = 0, DropReason::TtlExpired);
    check(&|frame| frame[ip + 20 + 12] = 0x40, DropReason::Malformed);
    check(&|frame| frame[ip + 20 + 12] = 0xf0, DropReason::Malformed);
    let mut sctp = to_service(TcpAck).sent_by(&CLIENT);
    sctp[ip + 9] = 132;
    for frame in [sctp, to_service(DestinationUnreachable).sent_by(&CLIENT)] {
        bed.container_sends(&frame).assert_dropped(DropReason::UnsupportedProtocol);
    }
}

/// A datagram in two parts, as its sender numbers it.
fn in_two_parts(packet: &Packet, number: u8) -> [Vec<u8>; 2] {
    let whole = packet.sent_by(&CLIENT);
    let (headers, payload) = whole.split_at(ETHERNET + 20);
    let part = |payload: &[u8], fragment: u16| {
        let mut frame = [headers, payload].concat();
        frame[ETHERNET + 5] = number;
        frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&fragment.to_be_bytes());
        let length = u16::try_from(frame.len() - ETHERNET).unwrap();
        frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&length.to_be_bytes());
        frame[ETHERNET + 10..ETHERNET + 12].fill(0);
        let sum = etherparse::Ipv4Header::from_slice(&frame[ETHERNET..]).unwrap().0.calc_header_checksum();
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    [part(&payload[..16], 0x2000), part(&payload[16..], 2)]
}

#[test]
fn a_later_fragment_goes_where_the_first_one_went() {
    let mut bed = Bed::new();
    bed.within(|datapath| datapath.publish_service(SERVICE, Policy::RoundRobin, &servers(3)));
    for number in 1..9 {
        let packet =
            Packet { payload: vec![number; 64], ports: (1000 + u16::from(number), 80), ..to_service(Udp) };
        let [first, later] = in_two_parts(&packet, number);
        let destinations = [first, later].map(|frame| {
            let outcome = bed.container_sends(&frame);
            let inner = encapsulated(outcome.redirected()).inner.to_vec();
            assert_eq!(inner[20..][8..], frame[ETHERNET + 20..][8..], "payload");
            let header = etherparse::Ipv4Header::from_slice(&inner).unwrap().0;
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(Ipv4Addr::from(header.source), CLIENT.instance_ip.unwrap());
            header.destination
        });
        assert_eq!(destinations[0], destinations[1]);
    }
}

#[test]
fn a_later_fragment_whose_first_one_was_not_seen_is_dropped_to_a_service_and_carried_to_an_ns_ip() {
    let mut bed = Bed::new();
    let [first, later] = in_two_parts(&Packet { payload: vec![0; 64], ..to_service(Udp) }, 1);
    bed.container_sends(&later).assert_dropped(DropReason::Fragment);
    bed.container_sends(&first).redirected();
    bed.container_sends(&later).redirected();
    let [_, another] = in_two_parts(&Packet { payload: vec![0; 64], ..to_service(Udp) }, 2);
    bed.container_sends(&another).assert_dropped(DropReason::Fragment);
    let direct = Packet { payload: vec![0; 64], ..Packet::new(Udp, CLIENT.ns_ip, SERVER.ns_ip) };
    let [_, later] = in_two_parts(&direct, 3);
    let outcome = bed.container_sends(&later);
    let inner = encapsulated(outcome.redirected()).inner;
    assert_eq!(inner[20..], later[ETHERNET + 20..]);
}

#[test]
fn a_frame_that_is_cut_anywhere_is_dropped() {
    let mut bed = Bed::new();
    for transport in [TcpAck, Udp, EchoRequest] {
        let whole = Packet { payload: Vec::new(), ..to_service(transport) }.sent_by(&CLIENT);
        // The kernel itself refuses to try a frame of IPv4 without a whole IPv4 header.
        for length in ETHERNET + 20..whole.len() {
            let mut cut = whole[..length].to_vec();
            bed.container_sends(&cut).assert_dropped(DropReason::Malformed);
            // The same with a length that agrees: the transport header is cut.
            let total_length = u16::try_from(length - ETHERNET).unwrap();
            cut[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total_length.to_be_bytes());
            bed.container_sends(&cut).assert_dropped(DropReason::Malformed);
        }
    }
}

#[test]
fn packets_larger_than_the_tunnel_carries_are_dropped() {
    let mut bed = Bed::new();
    let of_length = |length: usize| {
        let packet = Packet { payload: vec![7; length - 28], ..to_service(Udp) };
        assert_eq!(packet.bytes().len(), length);
        packet.sent_by(&CLIENT)
    };
    bed.container_sends(&of_length(1450)).redirected();
    bed.container_sends(&of_length(1451)).assert_dropped(DropReason::TooBig);
}

#[test]
fn a_container_without_an_instance_address_cannot_reach_services() {
    let mut bed = Bed::new();
    bed.within(|datapath| datapath.attach_endpoint(&Endpoint { instance_ip: None, ..CLIENT }));
    bed.container_sends(&to_service(TcpSyn).sent_by(&CLIENT)).assert_dropped(DropReason::NoInstanceAddress);
    bed.within(|datapath| datapath.attach_endpoint(&CLIENT));
    bed.container_sends(&to_service(TcpSyn).sent_by(&CLIENT)).redirected();
}

#[test]
fn before_the_node_is_set_up_nothing_leaves_it() {
    let mut bed = Bed::empty();
    bed.within(|datapath| {
        datapath.attach_endpoint(&CLIENT)?;
        datapath.publish_service(SERVICE, Policy::RoundRobin, &[SERVER])
    });
    bed.container_sends(&to_service(TcpSyn).sent_by(&CLIENT)).assert_dropped(DropReason::NotReady);
}

#[test]
fn two_connections_that_the_server_could_not_tell_apart_do_not_mix() {
    let mut bed = Bed::new();
    bed.within(|datapath| datapath.publish_service(SERVER.instance_ip, Policy::Instance, &[SERVER]));
    bed.container_sends(&to_service(TcpSyn).sent_by(&CLIENT)).redirected();
    // The same ports to the same instance by its other address.
    let other = Packet::new(TcpSyn, CLIENT.ns_ip, SERVER.instance_ip);
    bed.container_sends(&other.sent_by(&CLIENT)).assert_dropped(DropReason::PortClash);
    bed.container_sends(&to_service(TcpAck).sent_by(&CLIENT)).redirected();
}

#[test]
fn traffic_is_counted_for_each_container() {
    let mut bed = Bed::new();
    let sent = to_service(Udp);
    for _ in 0..3 {
        bed.container_sends(&sent.sent_by(&CLIENT)).redirected();
    }
    let counters = bed.datapath.counters().unwrap();
    let of = |endpoint: &Endpoint| *counters.endpoints.iter().find(|c| c.ns_ip == endpoint.ns_ip).unwrap();
    let bytes = 3 * u64::try_from(sent.bytes().len()).unwrap();
    assert_eq!((of(&CLIENT).sent_packets, of(&CLIENT).sent_bytes), (3, bytes));
    assert_eq!((of(&NEIGHBOUR).sent_packets, of(&NEIGHBOUR).received_packets), (0, 0));
}

#[test]
fn flows_are_listed_with_what_they_lead_to() {
    let mut bed = Bed::new();
    bed.container_sends(&to_service(TcpSyn).sent_by(&CLIENT)).redirected();
    let flows = bed.datapath.flows().unwrap();
    let [flow] = flows.as_slice() else { panic!("{flows:?}") };
    assert_eq!(flow.client, SocketAddr::new(IpAddr::V4(CLIENT.ns_ip), CLIENT_PORT));
    assert_eq!(flow.service, SocketAddr::new(IpAddr::V4(SERVICE), SERVER_PORT));
    assert_eq!(flow.backend, Some(SERVER));
    assert!(flow.idle < Duration::from_secs(60) && !flow.state.is_ending(), "{flow:?}");
}
