//! The two ways on for a translated packet: into a container of this node, or into the tunnel.

use netmanager_common::event::DropReason;
use netmanager_common::flow;
use netmanager_common::header::Header;
use netmanager_common::link::{Link, SHELL_LEN, Shell};
use netmanager_common::map::{Backend, Node, Veth};
use netmanager_common::packet::Packet;
use netmanager_common::tunnel;
use netmanager_common::wire::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet};

use crate::maps::{self, FLOWS};
use crate::segment;
use crate::select;
use crate::skb::{self, Skb};
use crate::{count, follow};

/// Shows a packet that arrives for `receiver` as coming from the service address that this container dialled, if it is an
/// answer. Says whether it is.
#[inline(always)]
pub(crate) fn show_as_dialled<H: Header>(
    packet: &mut Packet<H>,
    receiver: &Veth,
) -> Result<bool, DropReason> {
    let scratch = maps::scratch()?;
    scratch.arrival = packet.arrival_key();
    let Some(entry) = FLOWS.get_ptr_mut(&scratch.arrival) else {
        // What is from an NsIP answers to nothing that a container has dialled by another address.
        let is_answer = (maps::plan()?.is_service(packet.ip.source()) || receiver.is_node_itself())
            && follow::recall_arrived(packet.tcp_flags, receiver.slot, receiver.ifindex);
        if is_answer {
            packet.set_source(scratch.flow.source);
        }
        return Ok(is_answer);
    };
    // SAFETY: the entry's memory stays a value of this map until the program ends. If it becomes another flow's
    // meanwhile, the packet gets a source that its receiver does not know, and is refused there; for what is noted in
    // it see `select::lookup`.
    let entry = unsafe { &mut *entry };
    follow::arrived(entry, packet, receiver.ifindex, select::now());
    packet.set_source(entry.source);
    Ok(true)
}

/// Puts the packet into the other end of the veth: a container's, or the node's own, which takes any length. The frame must
/// hold the packet right behind its Ethernet header.
#[inline(always)]
pub(crate) fn to_container<H: Header>(skb: &Skb, packet: &Packet<H>, veth: &Veth) -> Result<i32, DropReason> {
    skb.update_checksum(&packet.transport, packet.change_of_checksum())?;
    let ethernet = Ethernet { destination: veth.mac, source: veth.gateway_mac, ethertype: H::ETHERTYPE };
    skb.store(0, &ethernet)?;
    skb.store_header(ETHERNET_LEN, &packet.ip)?;
    count::received(veth.slot, packet.ip.length());
    // The kernel refuses the short way between two interfaces of one namespace.
    let is_near = veth.is_node_itself();
    Ok(if is_near { skb::redirect(veth.ifindex) } else { skb::redirect_peer(veth.ifindex) })
}

/// Wraps the packet and sends it to the backend's node.
#[inline(always)]
pub(crate) fn to_node<H: Header>(
    skb: &Skb,
    packet: &Packet<H>,
    node: &Node,
    backend: &Backend,
) -> Result<i32, DropReason> {
    let own = node.address_towards(backend.node);
    if own.is_none() {
        return Err(DropReason::NotReady);
    }
    if backend.node == own {
        // It should be here and is not: the tunnel would only bring it back.
        return Err(DropReason::NoEndpoint);
    }
    let egress = node.egress_to(backend);
    if egress == 0 {
        return Err(DropReason::NotReady);
    }
    if !packet.fits(skb, backend.mtu) {
        return Err(DropReason::TooBig);
    }
    segment::clamp(skb, packet, ETHERNET_LEN, backend.mtu)?;
    let Ok(length) = u16::try_from(packet.ip.length()) else { return Err(DropReason::TooBig) };
    let path = tunnel::Path {
        source: own,
        destination: backend.node,
        source_port: flow::tunnel_source_port(
            packet.ip.source(),
            packet.ip.destination(),
            packet.ports,
            packet.protocol(),
        ),
        destination_port: backend.port,
    };
    skb.update_checksum(&packet.transport, packet.change_of_checksum())?;
    skb.store_header(ETHERNET_LEN, &packet.ip)?;
    if backend.node.is_v4() {
        let is_vx = backend.link() == Link::Vx;
        let length = if is_vx { length.saturating_add(SHELL_LEN) } else { length };
        let outer = tunnel::outer(&path, length).ok_or(DropReason::TooBig)?;
        if is_vx {
            skb.open_vx_room()?;
        } else {
            skb.open_tunnel_room::<false>()?;
        }
        skb.store(ETHERNET_LEN, &outer)?;
        if is_vx {
            skb.store(ETHERNET_LEN + tunnel::OVERHEAD, shell::<H>())?;
        }
    } else {
        let outer = tunnel::outer6(&path, length).ok_or(DropReason::TooBig)?;
        skb.open_tunnel_room::<true>()?;
        skb.store(ETHERNET_LEN, &outer)?;
    }
    Ok(skb::redirect_neigh(egress))
}

/// Around packets of this family. Not on the stack, which has no room for it.
#[inline(always)]
fn shell<H: Header>() -> &'static Shell {
    static AROUND_IPV4: Shell = Shell::of(ETHERTYPE_IPV4);
    static AROUND_IPV6: Shell = Shell::of(ETHERTYPE_IPV6);
    if H::ETHERTYPE.0 == ETHERTYPE_IPV4.0 { &AROUND_IPV4 } else { &AROUND_IPV6 }
}
