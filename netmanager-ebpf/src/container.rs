//! The path of a packet that a container sends.

use aya_ebpf::bindings::TC_ACT_OK;
use netmanager_common::event::DropReason;
use netmanager_common::flow;
use netmanager_common::map::{Backend, Node, Peer, Veth};
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, Ethernet, FRAGMENT_OFFSET, Ip, Ip4, Ipv4, UDP,
};

use crate::maps::{self, BACKENDS, HOSTS, NODE, PEERS};
use crate::parse::Packet;
use crate::select::{self, Choice, Lookup};
use crate::skb::Skb;
use crate::{count, deliver};

/// The verdict on a frame that has come out of a container.
#[inline(always)]
pub(crate) fn handle(skb: &Skb) -> Result<i32, DropReason> {
    if skb.is_tagged() {
        // Whoever may write raw frames could else send into any VLAN of the uplink.
        return Err(DropReason::VlanTag);
    }
    let ethernet: Ethernet = skb.load(0).ok_or(DropReason::Malformed)?;
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => {}
        // Answered by the host; it can only speak for this one veth.
        ETHERTYPE_ARP => return Ok(TC_ACT_OK),
        _ => return Err(DropReason::NotIpv4),
    }
    let ip: Ipv4 = skb.load(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
    if ip.destination.is_service() {
        to_service(skb, &ethernet, ip)
    } else {
        let sender = check_source(skb, &ethernet, &ip)?;
        // The gateway is the host itself.
        if ip.destination.is_container() && ip.destination != ip.source.gateway() {
            to_ns_ip(skb, ip, &sender)
        } else {
            to_host(skb, &ip)
        }
    }
}

/// To a service address: both addresses are translated. A warm packet needs three hash lookups (its flow; whether the
/// receiver is on this node; and if so the receiver's own flow), beside arrays, which the kernel indexes in place.
#[inline(always)]
fn to_service(skb: &Skb, ethernet: &Ethernet, ip: Ipv4) -> Result<i32, DropReason> {
    let mut packet = parse(skb, ip)?;
    let key =
        flow::forward_key(skb.ifindex(), packet.source(), packet.destination(), packet.ports, ip.protocol);
    let Choice { source, backend, slot } = match select::lookup(&key, &packet)? {
        Lookup::Warm(choice) => choice,
        Lookup::New { replaces } => select::begin(&key, check_source(skb, ethernet, &ip)?.slot, replaces)?,
    };
    packet.hop()?;
    packet.set_source(source.v4());
    packet.set_destination(backend.ns_ip);
    let verdict = if let Some(receiver) = maps::veth(&Ip::from_v4(backend.ns_ip)) {
        deliver::show_as_dialled(&mut packet);
        deliver::to_container(skb, &packet, &receiver)
    } else {
        to_node(skb, &packet, backend)
    }?;
    count::sent(slot, packet.ip.total_length.get());
    Ok(verdict)
}

/// To another container by its NsIP: nothing is translated. If nobody with that address is known here, the packet
/// must not leave: bare and masqueraded, it would go to whoever has the address out there.
#[inline(always)]
fn to_ns_ip(skb: &Skb, ip: Ipv4, sender: &Veth) -> Result<i32, DropReason> {
    if let Some(receiver) = maps::veth(&Ip::from_v4(ip.destination)) {
        let mut packet = parse(skb, ip)?;
        packet.hop()?;
        let verdict = deliver::to_container(skb, &packet, &receiver)?;
        count::sent(sender.slot, packet.ip.total_length.get());
        return Ok(verdict);
    }
    // SAFETY: one aligned word. If it is another address's by now, the backend that it leads to says so.
    let Some(&number) = (unsafe { HOSTS.get(Ip::from_v4(ip.destination)) }) else {
        return Err(DropReason::NoEndpoint);
    };
    let backend = match BACKENDS.get(number) {
        Some(backend) if backend.ns_ip == ip.destination && backend.in_use() => backend,
        _ => return Err(DropReason::TableChanged),
    };
    let mut packet = parse(skb, ip)?;
    packet.hop()?;
    let verdict = to_node(skb, &packet, backend)?;
    count::sent(sender.slot, packet.ip.total_length.get());
    Ok(verdict)
}

/// To anywhere else: the host routes and masquerades it. Not to a node's tunnel port: whoever can write there could
/// speak for any container.
#[inline(always)]
fn to_host(skb: &Skb, ip: &Ipv4) -> Result<i32, DropReason> {
    if ip.protocol == UDP && ip.fragment.get() & FRAGMENT_OFFSET == 0 {
        let header_length = u16::from(ip.version_and_length & 0x0f) * 4;
        let ports: [u8; 4] = skb.load(ETHERNET_LEN + header_length).ok_or(DropReason::Malformed)?;
        let [_, _, a, b] = ports;
        if is_tunnel_port(ip.destination, Be16([a, b])) {
            return Err(DropReason::TunnelFromContainer);
        }
    }
    Ok(TC_ACT_OK)
}

#[inline(always)]
fn is_tunnel_port(address: Ip4, port: Be16) -> bool {
    let ours = NODE.get(0).is_some_and(|node| node.tunnel_port == port);
    // SAFETY: only whether there is an entry matters.
    ours || unsafe { PEERS.get(Peer::listening(Ip::from_v4(address), port)) }.is_some()
}

#[inline(always)]
fn parse(skb: &Skb, ip: Ipv4) -> Result<Packet, DropReason> {
    Packet::parse(skb, ip, ETHERNET_LEN, skb.len().wrapping_sub(u32::from(ETHERNET_LEN)))
}

/// The container that the frame came from, if it says so truly.
#[inline(always)]
fn check_source(skb: &Skb, ethernet: &Ethernet, ip: &Ipv4) -> Result<Veth, DropReason> {
    match maps::veth(&Ip::from_v4(ip.source)) {
        Some(sender) if sender.ifindex == skb.ifindex() && sender.mac == ethernet.source => Ok(sender),
        _ => Err(DropReason::SpoofedSource),
    }
}

#[inline(always)]
fn to_node(skb: &Skb, packet: &Packet, backend: &Backend) -> Result<i32, DropReason> {
    let node: Node = match NODE.get(0) {
        Some(node) if !node.address.is_none() => *node,
        _ => return Err(DropReason::NotReady),
    };
    if backend.node == Ip::from_v4(node.address) {
        // It should be here and is not: the tunnel would only bring it back.
        return Err(DropReason::NoEndpoint);
    }
    deliver::to_node(skb, packet, &node, backend)
}
