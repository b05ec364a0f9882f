//! What a container sends that is not the overlay's: the host answers, routes and masquerades it, if it may pass.

use aya_ebpf::bindings::TC_ACT_OK;
use netmanager_common::event::DropReason;
use netmanager_common::header::Header;
use netmanager_common::map::Peer;
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, ICMPV6, Ip, Ipv4, Ipv6, LISTENER_REPORT, NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION, REDIRECT, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION, UDP,
};

use crate::maps::{NODE, PEERS};
use crate::skb::Skb;

/// What of an IP version matters to the host.
pub(crate) trait ToHost: Header {
    /// A DHCP server's port and its clients'.
    const DHCP: (Be16, Be16);
}

impl ToHost for Ipv4 {
    const DHCP: (Be16, Be16) = (Be16::new(67), Be16::new(68));
}

impl ToHost for Ipv6 {
    const DHCP: (Be16, Be16) = (Be16::new(547), Be16::new(546));
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
    let Some(transport) = ip.carried(skb, ETHERNET_LEN)? else { return otherwise };
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
