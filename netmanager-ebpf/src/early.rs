//! What can be done at the uplink before the kernel has a packet: keeping out what must not come in, and taking the outer
//! headers off what will be delivered, so that the kernel merges the inner packets of a connection on their way to
//! [`crate::uplink`].
//!
//! Only of what is certain: TCP or UDP, whole, from an instance that the table has at the node that sent it, for a
//! container of this node; and not what begins a TCP connection, in which there may be something to change. All else goes on as it came, and to the same end as without this program.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use netmanager_common::event::DropReason;
use netmanager_common::header::Header;
use netmanager_common::link;
use netmanager_common::map::{Early, Node, Unwrapped};
use netmanager_common::outside::Outside;
use netmanager_common::tunnel::{Outer, Outer6};
use netmanager_common::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, IPV4_WITHOUT_OPTIONS, Ip, Ipv4, Ipv6,
    TCP, TCP_LENGTH_AND_FLAGS, TCP_SYN, UDP,
};

use crate::count;
use crate::guard::{self, Sender};
use crate::maps::{self, NODE};
use crate::raw::Raw;

/// The verdict on a frame.
#[inline(always)]
pub(crate) fn handle<const LONG: bool>(frame: &Raw<LONG>) -> u32 {
    match judge(frame) {
        Ok(()) => XDP_PASS,
        Err(reason) => {
            count::drop(reason as u32);
            XDP_DROP
        }
    }
}

#[inline(always)]
fn judge<const LONG: bool>(frame: &Raw<LONG>) -> Result<(), DropReason> {
    let (Some(ethernet), Some(node)) = (frame.load::<Ethernet>(0), NODE.get(0)) else { return Ok(()) };
    match ethernet.ethertype {
        ETHERTYPE_IPV4 => over::<LONG, Outer>(frame, node, ethernet),
        ETHERTYPE_IPV6 => over::<LONG, Outer6>(frame, node, ethernet),
        _ => Ok(()),
    }
}

#[inline(always)]
fn over<const LONG: bool, O: Outside>(
    frame: &Raw<LONG>,
    node: &Node,
    ethernet: Ethernet,
) -> Result<(), DropReason> {
    // What is shorter, `from_uplink` looks at.
    let Some(outer) = frame.load::<O>(ETHERNET_LEN) else { return Ok(()) };
    if !outer.is_to(node) {
        let bare = outer.ip();
        let is_inner = guard::is_inner(bare.source(), bare.destination());
        return if is_inner { Err(DropReason::BareInner) } else { Ok(()) };
    }
    if outer.is_fragment() {
        return Err(DropReason::OuterFragment);
    }
    let available = frame.len().wrapping_sub(u32::from(ETHERNET_LEN));
    let length = outer.inner_length(available).ok_or(DropReason::Malformed)?;
    if length < u32::from(IPV4_LEN) {
        return Err(DropReason::Malformed);
    }
    let peer = outer.ip().source();
    let is_padded = available != outer.ip().length();
    // A veth's frames have beside them that the kernel is to complete this one. `from_uplink` can put an end to that.
    let is_left_open = outer.is_left_open();
    let inner = ETHERNET_LEN + O::OVERHEAD;
    let Some([version]) = frame.load::<[u8; 1]>(inner) else { return Ok(()) };
    let found = match version >> 4 {
        4 => inside::<LONG, Ipv4>(frame, inner, peer, length)?,
        6 => inside::<LONG, Ipv6>(frame, inner, peer, length)?,
        // `from_uplink` looks at these: another node may still send them when this one has begun to unwrap here.
        _ if version == link::FIRST => return Ok(()),
        _ => return Err(DropReason::ForeignTunnel),
    };
    let Some(receiver) = found
        .filter(|_| !is_padded && !is_left_open)
        .and_then(|destination| maps::veth(&destination))
        .filter(|receiver| !receiver.is_node_itself())
    else {
        return Ok(());
    };
    if !frame.mark(&Unwrapped { mark: Unwrapped::MARK, receiver }) {
        count::early(Early::NoMetadata);
        return Ok(());
    }
    let ethertype = if version >> 4 == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    frame.unwrap(O::OVERHEAD, Ethernet { ethertype, ..ethernet })?;
    count::early(Early::Unwrapped);
    Ok(())
}

/// Checks the inner packet of `length` bytes; gives whom it is for if its outer headers may be taken off.
#[inline(always)]
fn inside<const LONG: bool, H: Header + Plain>(
    frame: &Raw<LONG>,
    offset: u16,
    peer: Ip,
    length: u32,
) -> Result<Option<Ip>, DropReason> {
    let Some(ip) = frame.load::<H>(offset) else { return Ok(None) };
    if !ip.is_of_its_family() || ip.length() != length {
        return Err(DropReason::Malformed);
    }
    match guard::sender(peer, ip.source()) {
        Sender::Owner(_) if ip.is_plain() && !begins_connection(frame, offset, &ip) => {
            Ok(Some(ip.destination()))
        }
        Sender::Impostor => Err(DropReason::ForeignSource),
        Sender::New { is_node: false, .. } if guard::is_over_budget(&peer) => Err(DropReason::OverBudget),
        Sender::Owner(_) | Sender::New { .. } => Ok(None),
    }
}

/// Of a plain packet.
#[inline(always)]
fn begins_connection<const LONG: bool, H: Header + Plain>(frame: &Raw<LONG>, offset: u16, ip: &H) -> bool {
    const FLAGS: u16 = TCP_LENGTH_AND_FLAGS + 1;
    // What cannot be seen may begin one.
    let flags = || frame.load::<[u8; 1]>(offset + H::LEN + FLAGS).map_or(TCP_SYN, |[flags]| flags);
    ip.is_tcp() && flags() & TCP_SYN != 0
}

/// Whether a packet is what nearly all are.
trait Plain {
    /// TCP or UDP right behind the header, and whole.
    fn is_plain(&self) -> bool;
    /// Of one that is plain.
    fn is_tcp(&self) -> bool;
}

impl Plain for Ipv4 {
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.version_and_length == IPV4_WITHOUT_OPTIONS
            && !self.is_fragment()
            && matches!(self.protocol, TCP | UDP)
    }

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        self.protocol == TCP
    }
}

impl Plain for Ipv6 {
    #[inline(always)]
    fn is_plain(&self) -> bool {
        matches!(self.next_header, TCP | UDP)
    }

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        self.next_header == TCP
    }
}
