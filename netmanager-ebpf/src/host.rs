//! What a container sends that is not the overlay's: the host answers, routes and masquerades it, if it may pass.

use aya_ebpf::bindings::TC_ACT_OK;
use netmanager_common::event::DropReason;
use netmanager_common::header::{Header, Transport};
use netmanager_common::map::Peer;
use netmanager_common::wire::{
    Be16, DESTINATION_OPTIONS, ETHERNET_LEN, FRAGMENT, FRAGMENT_OFFSET, HOP_BY_HOP, ICMPV6, IPV6_LEN, Ip,
    Ipv4, Ipv6, LISTENER_REPORT, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT,
    ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, ROUTING, UDP,
};

use crate::maps::{NODE, PEERS};
use crate::skb::Skb;

/// Looking into a packet for the host, which may be anything.
pub(crate) trait ToHost: Header {
    /// A DHCP server's port and its clients'.
    const DHCP: (Be16, Be16);

    /// What the packet carries, if it is its first or only fragment.
    fn carried(&self, skb: &Skb) -> Result<Option<Transport>, DropReason>;
}

impl ToHost for Ipv4 {
    const DHCP: (Be16, Be16) = (Be16::new(67), Be16::new(68));

    #[inline(always)]
    fn carried(&self, _skb: &Skb) -> Result<Option<Transport>, DropReason> {
        let offset = u16::from(self.version_and_length & 0x0f) * 4;
        let is_first = self.fragment.get() & FRAGMENT_OFFSET == 0;
        Ok(is_first.then_some(Transport { offset, protocol: self.protocol }))
    }
}

/// Extension headers that are looked behind.
const MAX_EXTENSIONS: u32 = 4;

impl ToHost for Ipv6 {
    const DHCP: (Be16, Be16) = (Be16::new(547), Be16::new(546));

    #[inline(always)]
    fn carried(&self, skb: &Skb) -> Result<Option<Transport>, DropReason> {
        let mut found = Transport { offset: IPV6_LEN, protocol: self.next_header };
        for _ in 0..=MAX_EXTENSIONS {
            if !matches!(found.protocol, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT) {
                return Ok(Some(found));
            }
            let [next, length, a, b]: [u8; 4] =
                skb.load(ETHERNET_LEN.wrapping_add(found.offset)).ok_or(DropReason::Malformed)?;
            let length = if found.protocol == FRAGMENT { 0 } else { length };
            if found.protocol == FRAGMENT && Be16([a, b]).get() >> 3 != 0 {
                return Ok(None);
            }
            found.offset += (u16::from(length) + 1) * 8;
            found.protocol = next;
        }
        // What stands behind could be anything, also what must not pass.
        Err(DropReason::ExtensionHeaders)
    }
}

/// To the host, or by it to anywhere else. Not to a node's tunnel port: whoever can write there could speak for any
/// container. And a container is neither a router nor a DHCP server.
///
/// From an address that says nothing about the sender (`of_link`) only neighbour discovery passes, since the host needs
/// it and what it learns holds for this one veth, and reports of multicast listeners, which every Linux sends. All else
/// is dropped: a container has no use for it, and nobody shall reach the host's services without saying who it is.
#[inline(always)]
pub(crate) fn to_host<H: ToHost>(skb: &Skb, ip: &H, of_link: bool) -> Result<i32, DropReason> {
    if ip.destination().is_loopback() {
        // With a host port on this container the host's kernel would take it from this link.
        return Err(DropReason::LoopbackDestination);
    }
    let otherwise = if of_link { Err(DropReason::LinkLocal) } else { Ok(TC_ACT_OK) };
    let Some(transport) = ip.carried(skb)? else { return otherwise };
    let at = ETHERNET_LEN.wrapping_add(transport.offset);
    match transport.protocol {
        UDP => {
            let [a, b, c, d]: [u8; 4] = skb.load(at).ok_or(DropReason::Malformed)?;
            let (source, destination) = (Be16([a, b]), Be16([c, d]));
            if is_tunnel_port(ip.destination(), destination) {
                return Err(DropReason::TunnelFromContainer);
            }
            if (source, destination) == H::DHCP {
                return Err(DropReason::DhcpServer);
            }
            otherwise
        }
        ICMPV6 if H::ICMP == ICMPV6 => {
            let [kind]: [u8; 1] = skb.load(at).ok_or(DropReason::Malformed)?;
            match kind {
                ROUTER_ADVERTISEMENT | REDIRECT => Err(DropReason::RouterAdvertisement),
                ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT | LISTENER_REPORT => {
                    Ok(TC_ACT_OK)
                }
                _ => otherwise,
            }
        }
        _ => otherwise,
    }
}

#[inline(always)]
fn is_tunnel_port(address: Ip, port: Be16) -> bool {
    let ours = NODE.get(0).is_some_and(|node| node.tunnel_port == port);
    // SAFETY: only whether there is an entry matters.
    ours || unsafe { PEERS.get(&Peer::listening(address, port)) }.is_some()
}
