//! The two ways on for a translated packet: into a container of this node, or into the tunnel.

use netmanager_common::event::DropReason;
use netmanager_common::flow;
use netmanager_common::map::{Backend, Node, Veth};
use netmanager_common::tunnel::{self, Outer};
use netmanager_common::wire::{ETHERNET_LEN, ETHERTYPE_IPV4, Ethernet, IPV4_LEN, Ipv4};

use crate::count;
use crate::maps::FLOWS;
use crate::parse::Packet;
use crate::select;
use crate::skb::{self, Skb, Wire};

/// What stands behind the Ethernet header of a packet in the tunnel.
#[derive(Clone, Copy)]
#[repr(C)]
struct Encapsulated {
    outer: Outer,
    inner: Ipv4,
}

const _: () = assert!(size_of::<Encapsulated>() == (tunnel::OVERHEAD + IPV4_LEN) as usize);
// SAFETY: integers and byte arrays without padding, by the assertion.
unsafe impl Wire for Encapsulated {}

/// Shows an arriving packet as coming from the service address that its receiver dialled, if it is an answer.
#[inline(always)]
pub(crate) fn show_as_dialled(packet: &mut Packet) {
    let key = flow::arrival_key(packet.source(), packet.destination(), packet.ports, packet.ip.protocol);
    let Some(entry) = FLOWS.get_ptr_mut(key) else { return };
    // SAFETY: the entry's memory stays a value of this map until the program ends. If it becomes another flow's
    // meanwhile, the packet gets a source that its receiver does not know, and is refused there; for what is noted in
    // it see `select::lookup`.
    let entry = unsafe { &mut *entry };
    select::touch(entry, packet, select::now());
    packet.set_source(entry.source.v4());
}

/// Puts the packet into the container's end of its veth. The frame must hold the packet right behind its Ethernet
/// header.
#[inline(always)]
pub(crate) fn to_container(skb: &Skb, packet: &Packet, veth: &Veth) -> Result<i32, DropReason> {
    let transport = ETHERNET_LEN + IPV4_LEN;
    if packet.changed != Default::default() {
        skb.update_checksum(packet.ip.protocol, transport, packet.changed)?;
    }
    let ethernet = Ethernet { destination: veth.mac, source: veth.gateway_mac, ethertype: ETHERTYPE_IPV4 };
    skb.store(0, &ethernet)?;
    skb.store(ETHERNET_LEN, &packet.ip)?;
    count::received(veth.slot, packet.ip.total_length.get());
    Ok(skb::redirect_peer(veth.ifindex))
}

/// Wraps the packet and sends it to the backend's node.
#[inline(always)]
pub(crate) fn to_node(skb: &Skb, packet: &Packet, node: &Node, backend: &Backend) -> Result<i32, DropReason> {
    if !packet.fits(skb, node.inner_mtu) {
        return Err(DropReason::TooBig);
    }
    let path = tunnel::Path {
        source: node.address,
        destination: backend.node.v4(),
        source_port: flow::tunnel_source_port(
            packet.source(),
            packet.destination(),
            packet.ports,
            packet.ip.protocol,
        ),
        destination_port: backend.port,
    };
    let outer = tunnel::outer(&path, packet.ip.total_length.get()).ok_or(DropReason::TooBig)?;
    if packet.changed != Default::default() {
        skb.update_checksum(packet.ip.protocol, ETHERNET_LEN + IPV4_LEN, packet.changed)?;
    }
    skb.open_tunnel_room()?;
    skb.store(ETHERNET_LEN, &Encapsulated { outer, inner: packet.ip })?;
    Ok(skb::redirect_neigh(node.uplink_ifindex))
}
