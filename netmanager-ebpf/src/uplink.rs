//! The path of a packet that arrives from another node.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use netmanager_common::event::DropReason;
use netmanager_common::header::Header;
use netmanager_common::link::{self, SHELL_LEN, Shell};
use netmanager_common::map::{Backend, Node};
use netmanager_common::outside::Outside;
use netmanager_common::packet::Packet;
use netmanager_common::tunnel::{OVERHEAD, Outer, Outer6};
use netmanager_common::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, Ip, Ipv4, Ipv6,
};

use crate::guard::Sender;
use crate::maps::{self, NODE};
use crate::skb::{Family, Skb};
use crate::{count, deliver, guard, miss, segment};

/// A packet of the tunnel.
struct Arrived {
    /// The address on the underlay that it came from; means nothing if `outer` is [`Family::None`].
    peer: Ip,
    /// Its outer headers. None, if [`crate::early`] has checked it and taken them off.
    outer: Family,
    /// Bytes of the inner packet, on which all lengths agree.
    available: u32,
}

/// The end of a frame that has arrived at the uplink: see [`count::end`]. What is not the tunnel's is left to other programs
/// and the host. A warm packet needs three hash lookups: its source, its receiver, its flow; of those that were unwrapped in
/// the driver, where the first two were made, only the last.
///
/// A function to the kernel too, for the sake of the stack.
#[inline(never)]
pub(crate) fn handle(skb: &Skb) -> i32 {
    count::end(path(skb))
}

#[inline(always)]
fn path(skb: &Skb) -> Result<i32, DropReason> {
    let Some(mut arrived) = tunnel_packet(skb)? else { return Ok(TC_ACT_UNSPEC) };
    let mut ip = first(skb, &arrived)?;
    if ip.version_and_length == link::FIRST && arrived.outer == Family::V4 {
        let length = arrived.available.checked_sub(u32::from(SHELL_LEN)).ok_or(DropReason::Malformed)?;
        arrived = Arrived { outer: Family::V4Vx, available: length, ..arrived };
        ip = first(skb, &arrived)?;
    }
    let inner = ETHERNET_LEN + arrived.outer.overhead();
    match ip.version_and_length >> 4 {
        4 => deliver(skb, &arrived, ip),
        6 => deliver::<Ipv6>(skb, &arrived, skb.load(inner).ok_or(DropReason::Malformed)?),
        _ => Err(DropReason::ForeignTunnel),
    }
}

/// What the inner packet begins with: an IPv4 header, if it is one of IPv4.
#[inline(always)]
fn first(skb: &Skb, arrived: &Arrived) -> Result<Ipv4, DropReason> {
    if arrived.available < u32::from(IPV4_LEN) {
        // Behind a short datagram lies only what fills the Ethernet frame.
        return Err(DropReason::Malformed);
    }
    skb.load(ETHERNET_LEN + arrived.outer.overhead()).ok_or(DropReason::Malformed)
}

/// Checks the inner packet whose header is `ip`, and puts it into the container that it is for.
#[inline(always)]
fn deliver<H: Header>(skb: &Skb, arrived: &Arrived, ip: H) -> Result<i32, DropReason> {
    if !ip.is_of_its_family() || ip.length() != arrived.available {
        return Err(DropReason::Malformed);
    }
    if arrived.outer == Family::V4Vx {
        let shell: Shell = skb.load(ETHERNET_LEN + OVERHEAD).ok_or(DropReason::Malformed)?;
        if !shell.is_of(H::ETHERTYPE) {
            return Err(DropReason::ForeignTunnel);
        }
    }
    let unwrapped = if arrived.outer == Family::None { skb.unwrapped() } else { None };
    let (receiver, sender) = match unwrapped {
        Some(receiver) => (receiver, None),
        None => {
            let receiver = maps::veth(&ip.destination()).ok_or(DropReason::NoEndpoint)?;
            (receiver, check_source(arrived.peer, &ip)?)
        }
    };
    let parsed = Packet::parse(skb, ip, ETHERNET_LEN + arrived.outer.overhead(), ip.length());
    let mut packet = match parsed {
        // By NsIP, so that nothing is to be translated.
        Err(reason) if Packet::<H>::may_be_opaque(reason) && maps::plan()?.is_container(ip.source()) => {
            Packet::opaque(ip)
        }
        parsed => parsed?,
    };
    let is_answer = !packet.is_opaque() && deliver::show_as_dialled(&mut packet, &receiver)?;
    if receiver.is_node_itself() && !is_answer {
        return Err(DropReason::NoEndpoint);
    }
    if arrived.outer != Family::None {
        let is_v4 = H::ETHERTYPE == ETHERTYPE_IPV4;
        count::result(unwrap(skb.context(), arrived.outer as u32, is_v4.into()))?;
    }
    if let Some(sender) = sender {
        segment::clamp(skb, &packet, ETHERNET_LEN, sender.mtu)?;
    }
    deliver::to_container(skb, &packet, &receiver)
}

/// Takes the outer headers off, of an inner packet of IPv4 or of IPv6. Exported. What it gives is an end of [`count`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unwrap(skb: *mut __sk_buff, outer: u32, is_v4: u32) -> i32 {
    let (skb, Some(outer)) = (Skb::of(skb), Family::at(outer)) else { return 0 };
    let closed = if is_v4 != 0 { close::<Ipv4>(&skb, outer) } else { close::<Ipv6>(&skb, outer) };
    count::end(closed.map(|()| 0))
}

#[inline(always)]
fn close<H: Header>(skb: &Skb, outer: Family) -> Result<(), DropReason> {
    let is_left_open = !skb.is_unsummed(outer)
        && match outer {
            Family::V6 => skb.load::<Outer6>(ETHERNET_LEN).is_some_and(|outer| outer.is_left_open()),
            _ => skb.load::<Outer>(ETHERNET_LEN).is_some_and(|outer| outer.is_left_open()),
        };
    skb.close_tunnel_room::<H>(outer)?;
    if is_left_open { skb.close_checksum::<H>() } else { Ok(()) }
}

/// What came to this node's tunnel port, and of no VLAN: those are other networks, whoever sends there is not our peer.
#[inline(always)]
fn tunnel_packet(skb: &Skb) -> Result<Option<Arrived>, DropReason> {
    let is_unwrapped = skb.unwrapped().is_some();
    if skb.is_of_vlan() {
        // The program in the driver may not have seen the tag.
        return if is_unwrapped { Err(DropReason::ForeignTunnel) } else { Ok(None) };
    }
    if is_unwrapped {
        let available = skb.len().wrapping_sub(u32::from(ETHERNET_LEN));
        return Ok(Some(Arrived { peer: Ip::NONE, outer: Family::None, available }));
    }
    let (Some(ethernet), Some(node)) = (skb.load::<Ethernet>(0), NODE.get(0)) else { return Ok(None) };
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => over::<Outer>(skb, node, Family::V4),
        ETHERTYPE_IPV6 => over::<Outer6>(skb, node, Family::V6),
        _ => Ok(None),
    }
}

#[inline(always)]
fn over<O: Outside>(skb: &Skb, node: &Node, family: Family) -> Result<Option<Arrived>, DropReason> {
    let Some(outer) = skb.load::<O>(ETHERNET_LEN) else { return bare(&skb.load::<O::Ip>(ETHERNET_LEN)) };
    if !outer.is_to(node) {
        return bare(&Some(*outer.ip()));
    }
    if outer.is_fragment() {
        return Err(DropReason::OuterFragment);
    }
    let frame = skb.len().wrapping_sub(u32::from(ETHERNET_LEN));
    let available = outer.inner_length(frame).ok_or(DropReason::Malformed)?;
    Ok(Some(Arrived { peer: outer.ip().source(), outer: family, available }))
}

/// A packet outside of the tunnel is left to others, but for one that claims to be of a container, or wants into one.
#[inline(always)]
fn bare<H: Header>(ip: &Option<H>) -> Result<Option<Arrived>, DropReason> {
    match ip {
        Some(ip) if guard::is_inner(ip.source(), ip.destination()) => Err(DropReason::BareInner),
        _ => Ok(None),
    }
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
    let (is_node, is_service) = match guard::sender(peer, source) {
        Sender::Owner(backend) => return Ok(Some(backend)),
        Sender::Impostor => return Err(DropReason::ForeignSource),
        Sender::New { is_node, is_service } => (is_node, is_service),
    };
    if is_node && !is_service {
        return Ok(None);
    }
    if guard::may_be_new(&peer, is_node) {
        if is_service {
            miss::report(&source, &ip.destination());
        }
    } else if !is_node {
        return Err(DropReason::OverBudget);
    }
    if is_node { Ok(None) } else { Err(DropReason::UnknownPeer) }
}
