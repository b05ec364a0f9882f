//! The path of a packet that a container sends.

use aya_ebpf::bindings::TC_ACT_OK;
use netmanager_common::event::DropReason;
use netmanager_common::flow;
use netmanager_common::header::Header;
use netmanager_common::map::{Backend, Node, Veth};
use netmanager_common::packet::Packet;
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ip, Ipv4, Ipv6,
};

use crate::host::{self, ToHost};
use crate::maps::{self, BACKENDS, HOSTS, NODE};
use crate::select::{self, Choice, Lookup};
use crate::skb::Skb;
use crate::{count, deliver};

/// The end of a frame that has come out of a container: see [`count::end`].
#[inline(always)]
pub(crate) fn handle(skb: &Skb) -> i32 {
    match ethertype(skb) {
        Ok(ETHERTYPE_IPV4) => ipv4(skb),
        Ok(ETHERTYPE_IPV6) => ipv6(skb),
        // Answered by the host; it can only speak for this one veth.
        Ok(ETHERTYPE_ARP) => TC_ACT_OK,
        Ok(_) => count::end(Err(DropReason::NotIp)),
        Err(reason) => count::end(Err(reason)),
    }
}

/// A function to the kernel too: both families together would not fit on the stack of one.
#[inline(never)]
fn ipv4(skb: &Skb) -> i32 {
    count::end(ip::<Ipv4>(skb))
}

/// As [`ipv4`].
#[inline(never)]
fn ipv6(skb: &Skb) -> i32 {
    count::end(ip::<Ipv6>(skb))
}

#[inline(always)]
fn ethertype(skb: &Skb) -> Result<Be16, DropReason> {
    if skb.is_tagged() {
        // Whoever may write raw frames could else send into any VLAN of the uplink.
        return Err(DropReason::VlanTag);
    }
    const OFFSET: u16 = ETHERNET_LEN - 2;
    skb.load(OFFSET).map(Be16).ok_or(DropReason::Malformed)
}

#[inline(always)]
fn ip<H: ToHost>(skb: &Skb) -> Result<i32, DropReason> {
    let ip: H = skb.load(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
    if !ip.is_of_its_family() {
        return Err(DropReason::Malformed);
    }
    if maps::plan()?.is_service(ip.destination()) {
        return to_service(skb, ip);
    }
    if ip.source().is_of_link() {
        return host::to_host(skb, &ip, true);
    }
    let sender = check_source(skb, &ip)?;
    // The gateway is the host itself.
    if maps::plan()?.is_container(ip.destination()) && ip.destination() != ip.source().gateway() {
        to_ns_ip(skb, ip, &sender)
    } else {
        host::to_host(skb, &ip, false)
    }
}

/// To a service address: both addresses are translated. A warm packet needs three hash lookups (its flow; whether the
/// receiver is on this node; and if so the receiver's own flow), beside arrays, which the kernel indexes in place.
#[inline(always)]
fn to_service<H: Header>(skb: &Skb, ip: H) -> Result<i32, DropReason> {
    let mut packet = parse(skb, ip)?;
    let scratch = maps::scratch()?;
    scratch.forward = flow::forward_key(
        skb.ifindex(),
        packet.ip.source(),
        packet.ip.destination(),
        packet.ports,
        packet.protocol(),
    );
    let Choice { source, backend, slot } = match select::lookup(scratch, &packet)? {
        Lookup::Warm(choice) => choice,
        Lookup::New { replaces } => {
            let slot = check_source(skb, &packet.ip)?.slot;
            select::begin(scratch, slot, replaces, packet.tcp_flags)?
        }
    };
    packet.ip.hop()?;
    let ns_ip = backend.ns_ip_like(source);
    packet.set_source(source);
    packet.set_destination(ns_ip);
    let verdict = if let Some(receiver) = maps::veth(&ns_ip) {
        deliver::show_as_dialled(&mut packet, &receiver)?;
        deliver::to_container(skb, &packet, &receiver)
    } else {
        to_node(skb, &packet, backend)
    }?;
    count::sent(slot, packet.ip.length());
    Ok(verdict)
}

/// To another container by its NsIP: nothing is translated, so that any protocol may pass. To the node itself go only
/// answers to what its processes have asked a service. If nobody with that address is known here, the packet
/// must not leave: bare and masqueraded, it would go to whoever has the address out there.
#[inline(always)]
fn to_ns_ip<H: Header>(skb: &Skb, ip: H, sender: &Veth) -> Result<i32, DropReason> {
    let destination = ip.destination();
    let mut packet = match parse(skb, ip) {
        Err(reason) if Packet::<H>::may_be_opaque(reason) => Packet::opaque(ip),
        parsed => parsed?,
    };
    if let Some(receiver) = maps::veth(&destination) {
        if receiver.is_node_itself()
            && (packet.is_opaque() || !deliver::show_as_dialled(&mut packet, &receiver)?)
        {
            return Err(DropReason::NoEndpoint);
        }
        packet.ip.hop()?;
        let verdict = deliver::to_container(skb, &packet, &receiver)?;
        count::sent(sender.slot, packet.ip.length());
        return Ok(verdict);
    }
    let backend = host_of(&destination)?;
    packet.ip.hop()?;
    let verdict = to_node(skb, &packet, backend)?;
    count::sent(sender.slot, packet.ip.length());
    Ok(verdict)
}

/// The instance on another node that has this NsIP.
#[inline(always)]
pub(crate) fn host_of(ns_ip: &Ip) -> Result<&'static Backend, DropReason> {
    // SAFETY: one aligned word. If it is another address's by now, the backend that it leads to says so.
    let Some(&number) = (unsafe { HOSTS.get(ns_ip) }) else { return Err(DropReason::NoEndpoint) };
    match BACKENDS.get(number) {
        Some(backend) if backend.ns_ip_like(*ns_ip) == *ns_ip && backend.in_use() => Ok(backend),
        _ => Err(DropReason::TableChanged),
    }
}

#[inline(always)]
fn parse<H: Header>(skb: &Skb, ip: H) -> Result<Packet<H>, DropReason> {
    Packet::parse(skb, ip, ETHERNET_LEN, skb.len().wrapping_sub(u32::from(ETHERNET_LEN)))
}

/// The container that the frame came from, if it says so truly.
#[inline(always)]
pub(crate) fn check_source<H: Header>(skb: &Skb, ip: &H) -> Result<Veth, DropReason> {
    let ethernet: Ethernet = skb.load(0).ok_or(DropReason::Malformed)?;
    match maps::veth(&ip.source()) {
        Some(sender) if sender.ifindex == skb.ifindex() && sender.mac == ethernet.source => Ok(sender),
        _ => Err(DropReason::SpoofedSource),
    }
}

#[inline(always)]
pub(crate) fn to_node<H: Header>(
    skb: &Skb,
    packet: &Packet<H>,
    backend: &Backend,
) -> Result<i32, DropReason> {
    let node: &Node = NODE.get(0).ok_or(DropReason::NotReady)?;
    deliver::to_node(skb, packet, node, backend)
}
