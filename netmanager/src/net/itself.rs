//! The way of the node's own processes to services: a pair of links of which both ends are in the node's namespace.
//!
//! ```text
//!  processes   hynode0  NsIP/32 ======= hynode1  [from_container]
//!              services (10.30.0.0/16, fdff::/16) via the next hop, which nobody is
//! ```
//!
//! As with containers, all hangs on the pair: it goes with one end. The routes have a metric, so that whoever has a
//! network of his own in these ranges keeps it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use protocol::address::{SERVICE6_NETWORK, SERVICE6_PREFIX};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::pair::{Connected, End, peer};
use super::{Links, NetError, OWN_LINK, OWN_LINK_PEER, OwnWiring};
use crate::ipam::next_hop;

/// Of the routes to services: behind those of everybody else.
const METRIC: u32 = 4096;

impl Links {
    /// Connects the node itself as `wiring` says, and gives the index of the end where the data plane belongs. Done twice it
    /// is done once; a pair of other addresses is replaced. After a failure nothing of it is left. A node without IPv6 is no
    /// failure.
    ///
    /// # Errors
    /// The step that the kernel refused.
    pub async fn connect_itself(&self, wiring: &OwnWiring) -> Result<Connected, NetError> {
        let pair = match self.own_pair(wiring).await? {
            Some(pair) => pair,
            None => {
                // Either may be left, if somebody has renamed the other.
                self.disconnect_itself().await?;
                self.create_own_pair(wiring).await?;
                Pair { near: self.require(OWN_LINK).await?, far: self.require(OWN_LINK_PEER).await? }
            }
        };
        let furnished = self.furnish_itself(wiring, &pair).await;
        if furnished.is_err()
            && let Err(error) = self.disconnect_itself().await
        {
            tracing::warn!(link = OWN_LINK, error = crate::error::chain(&error), "half-made link is left");
        }
        furnished.map(|ns_ip6| Connected { ifindex: pair.far, ns_ip6 })
    }

    /// Whether everything that [`Self::connect_itself`] makes is there: links, addresses and routes. Changes nothing.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn is_itself_connected(&self, wiring: &OwnWiring) -> Result<bool, NetError> {
        let Some(pair) = self.own_pair(wiring).await? else { return Ok(false) };
        for name in [OWN_LINK, OWN_LINK_PEER] {
            let is_as_made =
                |link: &LinkMessage| link.header.flags.contains(LinkFlags::Up) && has_mtu(link, wiring.mtu);
            if !self.find(name).await?.as_ref().is_some_and(is_as_made) {
                return Ok(false);
            }
        }
        let present = self.all_addresses(OWN_LINK, pair.near).await?;
        for own in wiring.addresses() {
            if !present.contains(&own) || !self.has_service_route(own, pair.near, wiring.services).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the pair away; none is no failure. Says whether there was one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn disconnect_itself(&self) -> Result<bool, NetError> {
        let near = self.remove(OWN_LINK).await?;
        Ok(self.remove(OWN_LINK_PEER).await? || near)
    }

    /// The pair, if both ends are there, belong together and were made for this NsIP.
    async fn own_pair(&self, wiring: &OwnWiring) -> Result<Option<Pair>, NetError> {
        let (Some(near), Some(far)) = (self.find(OWN_LINK).await?, self.find(OWN_LINK_PEER).await?) else {
            return Ok(None);
        };
        let (near_index, far_index) = (near.header.index, far.header.index);
        let is_pair = peer(&near) == Some(far_index) && peer(&far) == Some(near_index);
        let is_ours = has_mac(&near, wiring.mac) && has_mac(&far, wiring.gateway_mac);
        Ok((is_pair && is_ours).then_some(Pair { near: near_index, far: far_index }))
    }

    async fn create_own_pair(&self, wiring: &OwnWiring) -> Result<(), NetError> {
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(OWN_LINK_PEER.to_owned())
            .mtu(wiring.mtu.into())
            .address(wiring.gateway_mac.to_vec())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .name(OWN_LINK.to_owned())
            .mtu(wiring.mtu.into())
            .address(wiring.mac.to_vec())
            .build();
        let doing = || format!("make the link pair {OWN_LINK} - {OWN_LINK_PEER} of the node itself");
        let made = self.handle.link().add(pair).execute().await;
        made.map_err(|source| NetError::new(doing(), source.into()))
    }

    /// Gives the IPv6 address, if it got one.
    async fn furnish_itself(&self, wiring: &OwnWiring, pair: &Pair) -> Result<Option<Ipv6Addr>, NetError> {
        for (name, ifindex) in [(OWN_LINK, pair.near), (OWN_LINK_PEER, pair.far)] {
            self.alias(name, ifindex, "the node itself").await?;
            self.without_ipv6_address(name, ifindex).await?;
            self.mtu(name, ifindex, wiring.mtu).await?;
            self.up(name, ifindex).await?;
        }
        self.try_to_leave_to_nic(OWN_LINK, wiring.left_to_nic).await;
        let near = End {
            links: self,
            name: OWN_LINK,
            ifindex: pair.near,
            // Nothing but services is spoken to under it.
            scope: AddressScope::Link,
            other_mac: wiring.gateway_mac,
        };
        near.serve(wiring.ns_ip.into(), wiring.services).await?;
        let Some(ns_ip6) = wiring.ns_ip6 else { return Ok(None) };
        match near.serve(ns_ip6.into(), wiring.services).await {
            Err(error) if error.reason.is_without_ipv6() => Ok(None),
            result => result.map(|()| Some(ns_ip6)),
        }
    }

    async fn has_service_route(
        &self,
        own: IpAddr,
        ifindex: u32,
        services: (Ipv4Addr, u8),
    ) -> Result<bool, NetError> {
        let failed = |source: rtnetlink::Error| NetError::new("list the routes", source.into());
        let (wanted, like) = match own {
            IpAddr::V4(_) => (RouteAddress::Inet(services.0), RouteMessageBuilder::<Ipv4Addr>::new().build()),
            IpAddr::V6(_) => {
                (RouteAddress::Inet6(SERVICE6_NETWORK), RouteMessageBuilder::<Ipv6Addr>::new().build())
            }
        };
        let (destination, out) = (RouteAttribute::Destination(wanted), RouteAttribute::Oif(ifindex));
        let mut routes = self.handle.route().get(like).execute();
        while let Some(route) = routes.try_next().await.map_err(failed)? {
            if route.attributes.contains(&destination) && route.attributes.contains(&out) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The indices of both ends.
struct Pair {
    near: u32,
    far: u32,
}

impl OwnWiring {
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        std::iter::once(IpAddr::V4(self.ns_ip)).chain(self.ns_ip6.map(IpAddr::V6))
    }
}

impl End<'_> {
    /// Gives this end its address, and leads what goes to services of its family through it.
    async fn serve(&self, own: IpAddr, services: (Ipv4Addr, u8)) -> Result<(), NetError> {
        let hop = next_hop(own);
        self.address(own).await?;
        self.other(hop, own).await?;
        let what = match own {
            IpAddr::V4(_) => format!("{}/{}", services.0, services.1),
            IpAddr::V6(_) => format!("{SERVICE6_NETWORK}/{SERVICE6_PREFIX}"),
        };
        self.route(&format!("{what} via {hop}"), to_services(self.ifindex, hop, own, services)).await
    }
}

fn to_services(ifindex: u32, hop: IpAddr, own: IpAddr, services: (Ipv4Addr, u8)) -> RouteMessage {
    let mut route = match hop {
        IpAddr::V4(hop) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(services.0, services.1)
            .output_interface(ifindex)
            .priority(METRIC)
            .gateway(hop)
            .build(),
        IpAddr::V6(hop) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(SERVICE6_NETWORK, SERVICE6_PREFIX)
            .output_interface(ifindex)
            .priority(METRIC)
            .gateway(hop)
            .build(),
    };
    route.attributes.push(RouteAttribute::PrefSource(own.into()));
    route
}

fn has_mac(link: &LinkMessage, mac: [u8; 6]) -> bool {
    link.attributes.contains(&LinkAttribute::Address(mac.to_vec()))
}

fn has_mtu(link: &LinkMessage, mtu: u16) -> bool {
    link.attributes.contains(&LinkAttribute::Mtu(mtu.into()))
}
