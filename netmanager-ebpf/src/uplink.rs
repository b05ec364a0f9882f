//! The path of a packet that arrives from another node.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use netmanager_common::event::DropReason;
use netmanager_common::header::Header;
use netmanager_common::map::{Backend, Node, Peer};
use netmanager_common::packet::Packet;
use netmanager_common::tunnel::{Outer, Outer6};
use netmanager_common::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, FRAGMENT_OFFSET, IPV4_LEN, IPV4_WITHOUT_OPTIONS,
    Ip, Ipv4, Ipv6, UDP, UDP_LEN, Udp,
};

use crate::maps::{self, BACKENDS, HOSTS, NODE, PEERS};
use crate::skb::{Family, Skb};
use crate::{deliver, guard, miss, segment};

/// A packet on the tunnel port.
struct Arrived {
    peer: Ip,
    outer: Family,
    /// Bytes of the inner packet, on which all lengths agree.
    available: u32,
}

/// The verdict on a frame that has arrived at the uplink. What is not the tunnel's is left to other programs and the
/// host. A warm packet needs three hash lookups: its source, its flow, its receiver.
#[inline(always)]
pub(crate) fn handle(skb: &Skb) -> Result<i32, DropReason> {
    let Some(arrived) = tunnel_packet(skb)? else { return Ok(TC_ACT_UNSPEC) };
    let inner = ETHERNET_LEN + arrived.outer.overhead();
    let ip: Ipv4 = skb.load(inner).ok_or(DropReason::Malformed)?;
    if arrived.available < u32::from(IPV4_LEN) {
        // Behind a short datagram lies only what fills the Ethernet frame.
        return Err(DropReason::Malformed);
    }
    match ip.version_and_length >> 4 {
        4 => deliver(skb, &arrived, ip),
        6 => deliver::<Ipv6>(skb, &arrived, skb.load(inner).ok_or(DropReason::Malformed)?),
        _ => Err(DropReason::ForeignTunnel),
    }
}

/// Checks the inner packet whose header is `ip`, and puts it into the container that it is for.
#[inline(always)]
fn deliver<H: Header>(skb: &Skb, arrived: &Arrived, ip: H) -> Result<i32, DropReason> {
    if !ip.is_of_its_family() || ip.length() != arrived.available {
        return Err(DropReason::Malformed);
    }
    let receiver = maps::veth(&ip.destination()).ok_or(DropReason::NoEndpoint)?;
    let sender = check_source(arrived.peer, &ip)?;
    let parsed = Packet::parse(skb, ip, ETHERNET_LEN + arrived.outer.overhead(), arrived.available);
    let mut packet = match parsed {
        // By NsIP, so that nothing is to be translated.
        Err(reason) if Packet::<H>::may_be_opaque(reason) && ip.source().is_container() => Packet::opaque(ip),
        parsed => parsed?,
    };
    let is_answer = !packet.is_opaque() && deliver::show_as_dialled(&mut packet, &receiver)?;
    if receiver.is_node_itself() && !is_answer {
        return Err(DropReason::NoEndpoint);
    }
    skb.close_tunnel_room::<H>(arrived.outer)?;
    if let Some(sender) = sender {
        segment::clamp(skb, &packet, ETHERNET_LEN, sender.mtu)?;
    }
    deliver::to_container(skb, &packet, &receiver)
}

/// What came to this node's tunnel port, and of no VLAN: those are other networks, whoever sends there is not our peer.
#[inline(always)]
fn tunnel_packet(skb: &Skb) -> Result<Option<Arrived>, DropReason> {
    if skb.is_of_vlan() {
        return Ok(None);
    }
    let (Some(ethernet), Some(node)) = (skb.load::<Ethernet>(0), NODE.get(0)) else { return Ok(None) };
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => over_ipv4(skb, node),
        ETHERTYPE_IPV6 => over_ipv6(skb, node),
        _ => Ok(None),
    }
}

#[inline(always)]
fn over_ipv4(skb: &Skb, node: &Node) -> Result<Option<Arrived>, DropReason> {
    let Some(Outer { ip, udp }) = skb.load(ETHERNET_LEN) else {
        return bare(&skb.load::<Ipv4>(ETHERNET_LEN));
    };
    let is_ours = ip.version_and_length == IPV4_WITHOUT_OPTIONS
        && ip.protocol == UDP
        && ip.fragment.get() & FRAGMENT_OFFSET == 0
        && udp.destination == node.tunnel_port
        && ip.destination == node.address
        && !node.address.is_none();
    if !is_ours {
        return bare(&Some(ip));
    }
    if ip.is_fragment() {
        return Err(DropReason::Fragment);
    }
    let available = inner_length(skb, ip.length(), IPV4_LEN, &udp)?;
    Ok(Some(Arrived { peer: ip.source(), outer: Family::V4, available }))
}

/// A packet outside of the tunnel is left to others, but for one that claims to be of a container, or wants into one.
#[inline(always)]
fn bare<H: Header>(ip: &Option<H>) -> Result<Option<Arrived>, DropReason> {
    match ip {
        Some(ip) if guard::is_inner(ip.source(), ip.destination()) => Err(DropReason::BareInner),
        _ => Ok(None),
    }
}

/// Without extension headers: no node of the overlay sends any, and a fragment has one.
#[inline(always)]
fn over_ipv6(skb: &Skb, node: &Node) -> Result<Option<Arrived>, DropReason> {
    let Some(Outer6 { ip, udp }) = skb.load(ETHERNET_LEN) else {
        return bare(&skb.load::<Ipv6>(ETHERNET_LEN));
    };
    let is_ours = ip.version_class_flow[0] >> 4 == 6
        && ip.next_header == UDP
        && udp.destination == node.tunnel_port
        && ip.destination == node.address6
        && !node.address6.is_none();
    if !is_ours {
        return bare(&Some(ip));
    }
    let available = inner_length(skb, ip.length(), Ipv6::LEN, &udp)?;
    Ok(Some(Arrived { peer: ip.source(), outer: Family::V6, available }))
}

/// Bytes of the inner packet, on which all lengths agree: `total` of the outer one, `header` of its IP header.
#[inline(always)]
fn inner_length(skb: &Skb, total: u32, header: u16, udp: &Udp) -> Result<u32, DropReason> {
    let udp = u32::from(udp.length.get());
    if total != udp + u32::from(header)
        || udp < u32::from(UDP_LEN)
        || skb.len() < total + u32::from(ETHERNET_LEN)
    {
        return Err(DropReason::Malformed);
    }
    Ok(udp - u32::from(UDP_LEN))
}

/// Checks that the node at `peer` may send a packet with this inner source. Gives the instance that has the source, if
/// it is known.
///
/// An address that the table knows must come from the node where the table has it. Of an address that it does not
/// know (yet), a node that it knows is believed; if it is a service address, a miss is raised, so that the way back
/// is there when the container answers. A node that is not known either is not believed, but asked for in the same
/// way: the packet waits on the slow path. How much is asked for on behalf of one node, and of all that are not known,
/// has a limit.
#[inline(always)]
fn check_source<H: Header>(peer: Ip, ip: &H) -> Result<Option<&'static Backend>, DropReason> {
    let source = ip.source();
    // SAFETY: one aligned word. If it is another address's by now, the backend that it leads to says so.
    if let Some(&number) = unsafe { HOSTS.get(&source) } {
        return match BACKENDS.get(number) {
            Some(backend) if backend.node == peer && backend.in_use() && backend.owns(source) => {
                Ok(Some(backend))
            }
            _ => Err(DropReason::ForeignSource),
        };
    }
    // SAFETY: only whether there is an entry matters.
    let known = unsafe { PEERS.get(&Peer::node(peer)) }.is_some();
    let is_service = source.is_service();
    if !is_service && !source.is_container() {
        return Err(DropReason::ForeignSource);
    }
    if known && !is_service {
        return Ok(None);
    }
    if guard::may_be_new(&peer, known) {
        if is_service {
            miss::report(&source, &ip.destination());
        }
    } else if !known {
        return Err(DropReason::OverBudget);
    }
    if known { Ok(None) } else { Err(DropReason::UnknownPeer) }
}
