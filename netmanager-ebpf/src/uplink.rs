//! The path of a packet that arrives from another node.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use netmanager_common::event::DropReason;
use netmanager_common::map::{Node, Peer, Veth};
use netmanager_common::tunnel::{OVERHEAD, Outer};
use netmanager_common::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, Ethernet, FRAGMENT_OFFSET, IPV4_LEN, IPV4_WITHOUT_OPTIONS, Ip, Ipv4, UDP,
    UDP_LEN,
};

use crate::maps::{self, BACKENDS, HOSTS, NODE, PEERS};
use crate::parse::Packet;
use crate::skb::Skb;
use crate::{deliver, miss};

/// The verdict on a frame that has arrived at the uplink. What is not the tunnel's is left to other programs and the
/// host. A warm packet needs three hash lookups: its source, its flow, its receiver.
#[inline(always)]
pub(crate) fn handle(skb: &Skb) -> Result<i32, DropReason> {
    let Some(outer) = tunnel_packet(skb) else { return Ok(TC_ACT_UNSPEC) };
    if outer.ip.is_fragment() {
        return Err(DropReason::Fragment);
    }
    let available = inner_length(skb, &outer)?;
    let inner = ETHERNET_LEN + OVERHEAD;
    let ip: Ipv4 = skb.load(inner).ok_or(DropReason::Malformed)?;
    if available < u32::from(IPV4_LEN) {
        // Behind a short datagram lies only what fills the Ethernet frame.
        return Err(DropReason::Malformed);
    }
    if ip.version_and_length >> 4 != 4 {
        return Err(DropReason::ForeignTunnel);
    }
    let mut packet = Packet::parse(skb, ip, inner, available)?;
    let receiver = maps::veth(&packet.destination()).ok_or(DropReason::NoEndpoint)?;
    check_source(Ip::from_v4(outer.ip.source), &packet)?;
    deliver::show_as_dialled(&mut packet);
    decapsulate(skb, &packet, &receiver)
}

/// The outer headers, if the frame is IPv4 UDP to this node's tunnel port, and of no VLAN: those are other networks,
/// whoever sends there is not our peer.
#[inline(always)]
fn tunnel_packet(skb: &Skb) -> Option<Outer> {
    if skb.is_of_vlan() {
        return None;
    }
    let ethernet: Ethernet = skb.load(0)?;
    if ethernet.ethertype != ETHERTYPE_IPV4 {
        return None;
    }
    let outer: Outer = skb.load(ETHERNET_LEN)?;
    let node: &Node = NODE.get(0)?;
    let is_ours = outer.ip.version_and_length == IPV4_WITHOUT_OPTIONS
        && outer.ip.protocol == UDP
        && outer.ip.fragment.get() & FRAGMENT_OFFSET == 0
        && outer.udp.destination == node.tunnel_port
        && outer.ip.destination == node.address
        && !node.address.is_none();
    is_ours.then_some(outer)
}

/// Bytes of the inner packet, on which all lengths agree.
#[inline(always)]
fn inner_length(skb: &Skb, outer: &Outer) -> Result<u32, DropReason> {
    let total = u32::from(outer.ip.total_length.get());
    let udp = u32::from(outer.udp.length.get());
    if total != udp + u32::from(IPV4_LEN)
        || udp < u32::from(UDP_LEN)
        || skb.len() < total + u32::from(ETHERNET_LEN)
    {
        return Err(DropReason::Malformed);
    }
    Ok(udp - u32::from(UDP_LEN))
}

/// Checks that the node at `peer` may send a packet with this inner source.
///
/// An address that the table knows must come from the node where the table has it. Of an address that it does not
/// know (yet), a node that it knows is believed; if it is a service address, a miss is raised, so that the way back
/// is there when the container answers. A node that is not known either is not believed, but asked for in the same
/// way: the first packet of a new node's connection is lost, its retransmission is not.
#[inline(always)]
fn check_source(peer: Ip, packet: &Packet) -> Result<(), DropReason> {
    let source = packet.source();
    // SAFETY: one aligned word. If it is another address's by now, the backend that it leads to says so.
    if let Some(&number) = unsafe { HOSTS.get(&source) } {
        return match BACKENDS.get(number) {
            Some(backend) if backend.node == peer && backend.in_use() && backend.owns(source) => Ok(()),
            _ => Err(DropReason::ForeignSource),
        };
    }
    // SAFETY: only whether there is an entry matters.
    let known = unsafe { PEERS.get(Peer::node(peer)) }.is_some();
    if source.is_service() {
        miss::report(&source, &packet.destination());
    } else if !source.is_container() {
        return Err(DropReason::ForeignSource);
    }
    if known { Ok(()) } else { Err(DropReason::UnknownPeer) }
}

#[inline(always)]
fn decapsulate(skb: &Skb, packet: &Packet, receiver: &Veth) -> Result<i32, DropReason> {
    skb.close_tunnel_room()?;
    deliver::to_container(skb, packet, receiver)
}
