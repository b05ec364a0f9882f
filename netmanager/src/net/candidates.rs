//! The interfaces through which other nodes may be reached, beside the uplink.
//!
//! Packets of another node arrive wherever that one's routes lead, before this node knows that it is there. So an interface
//! is taken for an uplink not for its traffic, but for what it is: Ethernet, with an address that others can count on, and
//! not made for guests of this machine (bridges and veth pairs of container runtimes), unless a route leads through it to
//! somewhere else.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::RouteMessageBuilder;

use super::egress::Egresses;
use super::uplink::mtu;
use super::{Link, Links, NetError, is_our_link};

/// An interface that could lead to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub ifindex: u32,
    pub mtu: u32,
    pub is_up: bool,
    /// Of the IP version that was asked for.
    addresses: Vec<IpAddr>,
    /// It is of a kind that leads to guests of this machine, and no route says that it leads further.
    pub(super) is_for_guests: bool,
}

impl Candidate {
    /// Its name, if it has the address.
    pub(super) fn has(self, address: IpAddr) -> Option<String> {
        self.addresses.contains(&address).then_some(self.name)
    }
}

impl Links {
    /// Where packets of other nodes may arrive beside the interface `uplink`, whose address is `own`.
    ///
    /// # Errors
    /// When the kernel does not list links, addresses or routes.
    pub async fn other_uplinks(&self, uplink: u32, own: IpAddr) -> Result<Vec<Candidate>, NetError> {
        let mut candidates = self.candidates(own.is_ipv4()).await?;
        candidates
            .retain(|candidate| candidate.ifindex != uplink && candidate.is_up && !candidate.is_for_guests);
        Ok(candidates)
    }

    /// The Ethernet interfaces that are not ours and have a lasting address of the IP version.
    pub(super) async fn candidates(&self, v4: bool) -> Result<Vec<Candidate>, NetError> {
        let failed = |source: rtnetlink::Error| NetError::new("list the links", source.into());
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await.map_err(failed)?;
        let routed = self.routed(v4).await?;
        let mut candidates = Vec::new();
        for link in links.iter().filter(|link| can_lead_to_nodes(link)) {
            let (name, ifindex) = (Link::from(link).name, link.header.index);
            let mut addresses = self.addresses(&name, ifindex).await?;
            addresses.retain(|address| address.is_ipv4() == v4);
            if !addresses.is_empty() {
                let is_for_guests = is_for_guests(link) && !routed.contains(&ifindex);
                let (mtu, is_up) = (mtu(link), link.header.flags.contains(LinkFlags::Up));
                candidates.push(Candidate { name, ifindex, mtu, is_up, addresses, is_for_guests });
            }
        }
        Ok(candidates)
    }

    /// The name of the interface through which the kernel sends there, if it leaves the machine.
    pub(super) async fn interface_towards(&self, address: IpAddr) -> Result<Option<String>, NetError> {
        let Some(ifindex) = Egresses::open()?.towards(address, None)? else { return Ok(None) };
        let is_candidate = |candidate: &Candidate| candidate.ifindex == ifindex;
        let candidates = self.candidates(address.is_ipv4()).await?;
        Ok(candidates.into_iter().find(is_candidate).map(|candidate| candidate.name))
    }

    /// The interfaces through which a route leads on, by a gateway.
    async fn routed(&self, v4: bool) -> Result<HashSet<u32>, NetError> {
        let failed = |source: rtnetlink::Error| NetError::new("list the routes", source.into());
        let like = match v4 {
            true => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            false => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let routes: Vec<_> = self.handle.route().get(like).execute().try_collect().await.map_err(failed)?;
        Ok(routes.iter().filter_map(leads_on).collect())
    }

    pub(super) async fn name_of(&self, ifindex: u32) -> Result<Option<String>, NetError> {
        let mut links = self.handle.link().get().match_index(ifindex).execute();
        let failed =
            |source: rtnetlink::Error| NetError::new(format!("look for link {ifindex}"), source.into());
        Ok(links.try_next().await.map_err(failed)?.map(|link| Link::from(&link).name))
    }
}

fn can_lead_to_nodes(link: &LinkMessage) -> bool {
    link.header.link_layer_type == LinkLayerType::Ether && !is_our_link(&Link::from(link).name)
}

fn is_for_guests(link: &LinkMessage) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos
        .flatten()
        .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge | InfoKind::Veth | InfoKind::Tun)))
}

/// The interface of a route by a gateway.
fn leads_on(route: &RouteMessage) -> Option<u32> {
    let by_gateway =
        |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    if !route.attributes.iter().any(by_gateway) {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}
