//! The link between two of our own nodes whose packets the kernel merges before we have them: see
//! `netmanager_common::link`.

use netmanager::datapath::{DropReason, Link};
use netmanager::net::Links;
use netmanager_common::link::{SHELL_LEN, Shell};
use netmanager_common::punt::{Origin, TAG_LEN, Tag};
use netmanager_common::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

use crate::bed::{Bed, CLIENT, NODE, PEER, SERVER, SERVICE};
use crate::fragments::split;
use crate::nodes::{Node, Underlay, publish_instances};
use crate::packet::Transport::{EchoRequest, TcpAck, TcpSyn, Udp};
use crate::packet::{ETHERNET, OUTER, Packet, delivered, encapsulated, tunnelled};
use crate::six;
use crate::talk::{connect, echo, exchange, ping};

const SHELL: usize = SHELL_LEN as usize;

fn shell(ethertype: netmanager_common::wire::Be16) -> [u8; SHELL] {
    let Shell { vxlan, ethernet } = Shell::of(ethertype);
    let parts = [vxlan.as_slice(), &ethernet.destination, &ethernet.source, &ethernet.ethertype.0].concat();
    parts.try_into().unwrap()
}

fn wrapped(inner: &[u8]) -> Vec<u8> {
    wrapped_as(ETHERTYPE_IPV4, inner)
}

/// As our programs send it: without a checksum of the outer UDP.
fn wrapped_as(ethertype: netmanager_common::wire::Be16, inner: &[u8]) -> Vec<u8> {
    let mut frame = tunnelled(PEER, &[&shell(ethertype), inner].concat());
    frame[ETHERNET + OUTER - 2..][..2].fill(0);
    frame
}

#[test]
fn the_shell_stands_around_the_same_inner_packet() {
    let mut bed = Bed::new();
    for destination in [SERVICE, SERVER.ns_ip] {
        for transport in [TcpSyn, TcpAck, Udp, EchoRequest] {
            let sent = Packet::new(transport, CLIENT.ns_ip, destination).sent_by(&CLIENT);
            bed.within(|datapath| datapath.set_link(PEER.into(), Link::Bare));
            let bare = bed.container_sends(&sent);
            let bare = encapsulated(bare.redirected());
            bed.within(|datapath| datapath.set_link(PEER.into(), Link::Vx));
            let outcome = bed.container_sends(&sent);
            let vx = encapsulated(outcome.redirected());
            assert_eq!((vx.destination, vx.source_port), (bare.destination, bare.source_port));
            assert_eq!(vx.inner[..SHELL], shell(ETHERTYPE_IPV4));
            assert_eq!(vx.inner[SHELL..], *bare.inner, "{transport:?} to {destination}");
        }
    }
}

#[test]
fn what_arrives_in_a_shell_is_delivered_as_what_arrives_bare() {
    let mut bed = Bed::new();
    for transport in [TcpSyn, TcpAck, Udp, EchoRequest] {
        let sent = Packet::new(transport, SERVER.instance_ip, CLIENT.ns_ip);
        let outcome = bed.uplink_receives(&wrapped(&sent.bytes()));
        delivered(outcome.redirected(), &CLIENT);
        assert_eq!(outcome.frame[ETHERNET..], sent.bytes(), "{transport:?}");
    }
}

#[test]
fn a_fragment_that_comes_first_in_a_shell_is_held_for_its_receiver_too() {
    let mut bed = six::bed(PEER.into());
    bed.within(|datapath| datapath.set_slow_path(Some(CLIENT.ifindex)));
    let whole = six::udp(six::SERVER_INSTANCE6, six::CLIENT6, (80, 40_000));
    let later = &split(&whole, 16, 1)[1];
    for frame in [tunnelled(PEER, later), wrapped_as(ETHERTYPE_IPV6, later)] {
        let outcome = bed.uplink_receives(&frame);
        let held = outcome.redirected();
        let tag = Tag::read(*held.first_chunk().unwrap()).unwrap();
        assert_eq!((tag.origin, tag.reason), (Origin::Uplink, DropReason::Fragment as u8));
        assert_eq!(held[TAG_LEN..], frame[TAG_LEN..], "but for the tag it is as it was");
    }
}

#[test]
fn what_claims_to_be_in_a_shell_and_is_not_is_dropped_with_its_reason() {
    let mut bed = Bed::new();
    let inner = Packet::new(Udp, SERVER.instance_ip, CLIENT.ns_ip).bytes();
    // Another network of VXLAN; a flag; another family than it says.
    for (place, value) in [(4, b'X'), (0, 0)] {
        let mut frame = wrapped(&inner);
        frame[ETHERNET + OUTER + place] = value;
        bed.uplink_receives(&frame).assert_dropped(DropReason::ForeignTunnel);
    }
    bed.uplink_receives(&wrapped_as(ETHERTYPE_IPV6, &inner)).assert_dropped(DropReason::ForeignTunnel);
    // Shorter than a shell, and without a shell.
    bed.uplink_receives(&tunnelled(PEER, &inner[..SHELL - 1])).assert_dropped(DropReason::Malformed);
    bed.uplink_receives(&wrapped(&inner[..19])).assert_dropped(DropReason::Malformed);
    // The same is asked of the sender as everywhere.
    let foreign = Packet::new(Udp, NODE, CLIENT.ns_ip).bytes();
    bed.uplink_receives(&wrapped(&foreign)).assert_dropped(DropReason::ForeignSource);
}

#[test]
fn connections_go_by_this_link_and_change_to_it_and_back_under_way() {
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    publish_instances(&mut underlay.nodes, &[&client, &server]);
    echo(&server);
    let nodes: Vec<_> = [&server, &client].map(|container| container.backend.node.ip()).into();
    let address = server.backend.instance_ip;
    let mut stream = connect(&client, address);
    for link in [Link::Vx, Link::Bare, Link::Vx] {
        for (node, other) in underlay.nodes.iter_mut().zip(&nodes) {
            let other = *other;
            node.within(move |datapath| datapath.set_link(other, link)).unwrap();
        }
        exchange(&mut stream, 16);
        exchange(&mut connect(&client, address), 4);
        ping(&client, address);
    }
    // As NICs without tunnel offload, then without checksum offload; the receiver's kernel merges if it can.
    let merge = |node: &Node| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let merge = async { Links::open()?.merge_on(protocol::port::TUNNEL).await };
        node.netns.run(|| runtime.block_on(merge)).unwrap().unwrap();
    };
    // Done twice it is done once.
    underlay.nodes.iter().chain(&underlay.nodes).for_each(merge);
    for features in [&["gro", "on", "tso", "off", "gso", "off"][..], &["tx", "off"]] {
        for node in &underlay.nodes {
            node.netns.output("ethtool", &[&["-K", "up0"], features].concat()).unwrap();
        }
        exchange(&mut stream, 16);
        exchange(&mut connect(&client, address), 4);
    }
    for node in &underlay.nodes {
        assert_eq!(node.datapath.counters().unwrap().drops, []);
    }
}
