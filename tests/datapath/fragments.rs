//! Datagrams in fragments, of either IP version: single packets, and whole datagrams between containers, in order and not.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use etherparse::{IpFragOffset, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, Ipv6HeaderSlice, PacketBuilder};
use integration::{Netns, eventually};
use netmanager::datapath::{DropReason, FROM_CONTAINER, FROM_SLOW_PATH, FROM_UPLINK, Policy};
use netmanager_common::punt::{Origin, Tag};

use crate::bed::{CLIENT, PASS, PEER};
use crate::container::to_service;
use crate::nodes::{
    Container, Family, Node, TUNNEL_PORT, Underlay, any, kernel_has_ipv6, publish_instances, service,
};
use crate::packet::ETHERNET;
use crate::packet::Transport::Udp;
use crate::running::run;
use crate::six::{
    CLIENT_INSTANCE6, CLIENT6, FRAGMENT, PEER6, SERVER_INSTANCE6, SERVER6, SERVICE6, bed, extended, sent,
    tcp, udp, unwrap, wrap,
};
use crate::talk::PORT;
use crate::vlan::send;

fn families() -> &'static [Family] {
    if kernel_has_ipv6() {
        return &[Family::V4, Family::V6];
    }
    println!("this kernel has no IPv6: only IPv4");
    &[Family::V4]
}

/// The fragments of an IP packet without extension headers, of `size` payload bytes each (a multiple of eight).
pub(crate) fn split(packet: &[u8], size: usize, number: u16) -> Vec<Vec<u8>> {
    let is_v4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if is_v4 { 20 } else { 40 });
    let parts: Vec<_> = payload.chunks(size).collect();
    let fragment = |(place, part): (usize, &&[u8])| {
        let more = place + 1 < parts.len();
        let offset = IpFragOffset::try_new(u16::try_from(place * size / 8).unwrap()).unwrap();
        let length = u16::try_from(part.len()).unwrap();
        let headers = if is_v4 {
            let mut ip = Ipv4Header::from_slice(header).unwrap().0;
            (ip.identification, ip.dont_fragment, ip.more_fragments) = (number, false, more);
            (ip.fragment_offset, ip.total_len) = (offset, length + 20);
            ip.header_checksum = ip.calc_header_checksum();
            ip.to_bytes().to_vec()
        } else {
            let mut ip = Ipv6Header::from_slice(header).unwrap().0;
            let next = Ipv6FragmentHeader::new(ip.next_header, offset, more, number.into());
            (ip.next_header, ip.payload_length) = (44.into(), length + 8);
            [&ip.to_bytes()[..], &next.to_bytes()].concat()
        };
        [&headers, *part].concat()
    };
    parts.iter().enumerate().map(fragment).collect()
}

/// A datagram between these ends, as one IP packet.
fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one family"),
    };
    let mut bytes = Vec::new();
    builder.udp(from.port(), to.port()).write(&mut bytes, payload).unwrap();
    bytes
}

#[track_caller]
fn addresses(packet: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
    let ip = Ipv6HeaderSlice::from_slice(packet).expect("an IPv6 header");
    (ip.source_addr(), ip.destination_addr())
}

#[test]
fn of_ipv6_too_a_later_fragment_goes_where_the_first_one_went_there_and_back() {
    let peer = IpAddr::V6(PEER6);
    let mut bed = bed(peer);
    for number in 1..5 {
        for (place, part) in
            split(&udp(CLIENT6, SERVICE6, (40000 + number, 80)), 16, number).iter().enumerate()
        {
            let outcome = bed.container_sends(&sent(part));
            let inner = unwrap(outcome.redirected(), peer);
            assert_eq!(addresses(inner), (CLIENT_INSTANCE6, SERVER6));
            // The first one has the checksum in front of its last eight bytes.
            let same = if place == 0 { 40..54 } else { 40..part.len() };
            assert_eq!(inner[same.clone()], part[same]);
        }
        for part in split(&udp(SERVER_INSTANCE6, CLIENT6, (80, 40000 + number)), 16, number) {
            let outcome = bed.uplink_receives(&wrap(peer, &part));
            assert_eq!(addresses(&outcome.redirected()[ETHERNET..]), (SERVICE6, CLIENT6));
        }
    }
}

#[test]
fn a_datagram_of_ipv6_in_one_fragment_is_whole() {
    let mut bed = bed(PEER6.into());
    let atomic = extended(tcp(CLIENT6, SERVICE6, (40000, 80), true), FRAGMENT, [0, 0, 0, 0, 0, 0, 9]);
    let outcome = bed.container_sends(&sent(&atomic));
    assert_eq!(addresses(unwrap(outcome.redirected(), PEER6.into())), (CLIENT_INSTANCE6, SERVER6));
}

#[test]
fn a_later_fragment_of_ipv6_alone_is_dropped_to_a_service_and_carried_to_an_ns_ip() {
    let peer = IpAddr::V4(PEER);
    let mut bed = bed(peer);
    let later = |source, destination, ports| split(&udp(source, destination, ports), 16, 7).remove(1);
    bed.container_sends(&sent(&later(CLIENT6, SERVICE6, (9, 80)))).assert_dropped(DropReason::Fragment);
    let direct = later(CLIENT6, SERVER6, (9, 80));
    let outcome = bed.container_sends(&sent(&direct));
    assert_eq!(unwrap(outcome.redirected(), peer)[40..], direct[40..]);
    let answer = later(SERVER_INSTANCE6, CLIENT6, (80, 9));
    bed.uplink_receives(&wrap(peer, &answer)).assert_dropped(DropReason::Fragment);
    let direct = later(SERVER6, CLIENT6, (80, 9));
    let outcome = bed.uplink_receives(&wrap(peer, &direct));
    assert_eq!(outcome.redirected()[ETHERNET..], direct);
    // To the outside the host looks after them.
    let outside = sent(&later(CLIENT6, Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1), (9, 80)));
    bed.container_sends(&outside).assert_untouched(PASS, &outside);
}

#[test]
fn a_fragment_that_is_cut_anywhere_is_dropped() {
    let mut bed = bed(PEER6.into());
    let first = split(&udp(CLIENT6, SERVICE6, (40000, 80)), 16, 1).remove(0);
    for length in 40..first.len() {
        let cut = sent(&first[..length]);
        bed.container_sends(&cut).assert_dropped(DropReason::Malformed);
    }
}

/// The tag of a frame that goes to netmanager.
#[track_caller]
fn tag(frame: &[u8]) -> (Origin, DropReason) {
    let tag = Tag::read(*frame.first_chunk().unwrap()).expect("a tag");
    (tag.origin, DropReason::try_from(u32::from(tag.reason)).unwrap())
}

#[test]
fn a_fragment_that_comes_before_the_first_one_waits_at_netmanager_from_either_side() {
    let peer = IpAddr::V6(PEER6);
    let mut bed = bed(peer);
    bed.within(|datapath| datapath.set_slow_path(Some(CLIENT.ifindex)));
    bed.load(&[FROM_CONTAINER, FROM_UPLINK, FROM_SLOW_PATH]);
    let parts = split(&udp(CLIENT6, SERVICE6, (40000, 80)), 16, 1);
    let outcome = bed.container_sends(&sent(&parts[1]));
    let held = outcome.redirected().to_vec();
    assert_eq!(tag(&held), (Origin::Container, DropReason::Fragment));
    bed.container_sends(&sent(&parts[0])).redirected();
    // It begins anew when the first one has come.
    let outcome = bed.run(FROM_SLOW_PATH, &held);
    assert_eq!(addresses(unwrap(outcome.redirected(), peer)), (CLIENT_INSTANCE6, SERVER6));

    let parts = split(&udp(SERVER_INSTANCE6, CLIENT6, (80, 40000)), 16, 1);
    let outcome = bed.uplink_receives(&wrap(peer, &parts[1]));
    let held = outcome.redirected().to_vec();
    assert_eq!(tag(&held), (Origin::Uplink, DropReason::Fragment));
    bed.uplink_receives(&wrap(peer, &parts[0])).redirected();
    let outcome = bed.run(FROM_SLOW_PATH, &held);
    assert_eq!(addresses(&outcome.redirected()[ETHERNET..]), (SERVICE6, CLIENT6));

    // A part of an outer packet would be a part of we know not what.
    let mut outer = to_service(Udp).tunnelled();
    outer[ETHERNET + 6] = 0x20;
    bed.uplink_receives(&outer).assert_dropped(DropReason::OuterFragment);
    // Nobody speaks for another one.
    let spoofed = split(&udp(SERVER6, SERVICE6, (40000, 80)), 16, 2).remove(1);
    assert_eq!(bed.container_sends(&sent(&spoofed)).dropped, [DropReason::Fragment]);
}

/// A client on the first node and a server on the second, which know each other.
fn client_and_server(underlay: &mut Underlay) -> (Container, Container) {
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    for family in families() {
        let (address, backend) = (service(*family), server.backend);
        underlay.nodes[0]
            .within(|datapath| datapath.publish_service(address, Policy::RoundRobin, &[backend]))
            .unwrap();
    }
    (client, server)
}

fn bind(netns: &Netns, family: Family, port: u16) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind((any(family), port)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 253).unwrap()).collect()
}

#[track_caller]
fn assert_nothing_dropped(nodes: &[Node]) {
    for node in nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, []);
    }
}

#[test]
fn datagrams_in_fragments_arrive_whole_by_every_address() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    let neighbour = underlay.nodes[0].container(3);
    publish_instances(&mut underlay.nodes, &[&neighbour]);
    let mut buffer = vec![0; 65_536];
    for &family in families() {
        let [receiver, near] = [&server, &neighbour].map(|container| bind(&container.netns, family, PORT));
        for (receiver, address) in [
            (&receiver, service(family)),
            (&receiver, server.instance_ip(family)),
            (&receiver, server.ns_ip(family)),
            (&near, neighbour.instance_ip(family)),
            (&near, neighbour.ns_ip(family)),
        ] {
            let sender = bind(&client.netns, family, 0);
            for length in [1423, 2000, 2900, 9000, 60_000] {
                let sent = payload(length);
                sender.send_to(&sent, (address, PORT)).unwrap();
                let (received, from) = receiver
                    .recv_from(&mut buffer)
                    .unwrap_or_else(|error| panic!("{length} to {address}: {error}"));
                assert!(buffer[..received] == sent, "{length} bytes to {address} arrived changed");
                // And back, in fragments again.
                receiver.send_to(&sent, from).unwrap();
                let (received, from) = sender
                    .recv_from(&mut buffer)
                    .unwrap_or_else(|error| panic!("{length} from {address}: {error}"));
                assert!(buffer[..received] == sent, "{length} bytes from {address} arrived changed");
                assert_eq!(from.ip(), address);
            }
        }
        let address = service(family).to_string();
        let ping = ["-n", "-c", "2", "-i", "0.1", "-W", "2", "-s", "4000", &address];
        client.netns.output("ping", &ping).unwrap();
    }
    assert_nothing_dropped(&underlay.nodes);
}

/// A frame as the container puts it on its wire.
fn framed(container: &Container, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    let endpoint = &container.endpoint;
    [&endpoint.gateway_mac[..], &endpoint.mac, &ethertype, packet].concat()
}

#[test]
fn fragments_that_come_in_the_wrong_order_arrive_whole() {
    let mut underlay = Underlay::new(2);
    let (client, server) = client_and_server(&mut underlay);
    let [from, to] = [0, 1].map(|node: usize| underlay.nodes[node].addresses().v4.unwrap());
    let peer = underlay.nodes[0].netns.run(|| UdpSocket::bind((from, 0)).unwrap()).unwrap();
    let mut buffer = vec![0; 65_536];
    run(
        &mut underlay.nodes,
        |_| None,
        |nodes| {
            let wait = |node: usize, held: u64| {
                let what = format!("{held} fragments to wait at node {node}");
                eventually(Duration::from_secs(5), &what, || match nodes.counts(node) {
                    counts if counts.held == held => Ok(()),
                    other => Err(other),
                })
                .unwrap();
            };
            for (round, &family) in (1..).zip(families()) {
                let receiver = bind(&server.netns, family, PORT);
                let sent = payload(4000);
                let mut receive = |what: &str| {
                    let (received, from) =
                        receiver.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert!(buffer[..received] == sent, "{what}: changed");
                    assert_eq!(from.ip(), client.instance_ip(family), "{what}");
                };
                // Out of the container.
                let (source, destination) =
                    (SocketAddr::new(client.ns_ip(family), 777), SocketAddr::new(service(family), PORT));
                let parts = split(&datagram(source, destination, &sent), 1400, 1);
                let [first, second, third] = parts.as_slice() else { panic!("three parts") };
                for part in [third, second] {
                    send(&client.netns, "eth0", &framed(&client, part));
                }
                wait(0, 2 * round);
                send(&client.netns, "eth0", &framed(&client, first));
                receive("from a container");
                // Out of the tunnel, by a node that does not put them in order.
                let (source, destination) = (
                    SocketAddr::new(client.instance_ip(family), 778),
                    SocketAddr::new(server.ns_ip(family), PORT),
                );
                let parts = split(&datagram(source, destination, &sent), 1400, 2);
                let [first, second, third] = parts.as_slice() else { panic!("three parts") };
                for part in [third, second] {
                    peer.send_to(part, (to, TUNNEL_PORT)).unwrap();
                }
                wait(1, 2 * round);
                peer.send_to(first, (to, TUNNEL_PORT)).unwrap();
                receive("from the tunnel");
                assert_eq!([0, 1].map(|node| nodes.counts(node).released), [2 * round; 2], "{family:?}");
            }
            // Whose first one never comes waits in vain.
            let (source, destination) =
                (SocketAddr::new(client.ns_ip(Family::V4), 779), SocketAddr::new(service(Family::V4), PORT));
            for part in &split(&datagram(source, destination, &payload(4000)), 1400, 3)[1..] {
                send(&client.netns, "eth0", &framed(&client, part));
            }
            eventually(Duration::from_secs(5), "two fragments to be given up", || {
                match nodes.counts(0).expired {
                    2 => Ok(()),
                    other => Err(other),
                }
            })
            .unwrap();
        },
    );
    assert_nothing_dropped(&underlay.nodes);
}
