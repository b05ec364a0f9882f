//! Connecting a container: the pair of links and what hangs on it.

use std::net::Ipv4Addr;

use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage,
};
use netlink_packet_route::route::RouteScope;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{CONTAINER_LINK, Links, NetError, Netns, Reason, Wiring};

impl Links {
    /// Connects the namespace as `wiring` says and gives the index of the node's end. Done twice it is done once; a
    /// pair of that name that leads elsewhere is replaced. After a failure nothing of it is left.
    ///
    /// # Errors
    /// The step that the kernel refused.
    pub async fn connect(&self, wiring: &Wiring, netns: &Netns) -> Result<u32, NetError> {
        let inside = netns.links().await?;
        if let Some(ifindex) = self.connected(wiring, &inside).await? {
            self.furnish(wiring, &inside, ifindex).await?;
            return Ok(ifindex);
        }
        self.remove(&wiring.link).await?;
        self.create(wiring, netns).await?;
        let furnished = match self.require(&wiring.link).await {
            Ok(ifindex) => self.furnish(wiring, &inside, ifindex).await.map(|()| ifindex),
            Err(error) => Err(error),
        };
        if furnished.is_err()
            && let Err(error) = self.remove(&wiring.link).await
        {
            tracing::warn!(link = wiring.link, error = crate::error::chain(&error), "half-made link is left");
        }
        furnished
    }

    /// The node's end, if the pair is there and its other end is `eth0` of that namespace.
    async fn connected(&self, wiring: &Wiring, inside: &Self) -> Result<Option<u32>, NetError> {
        let Some(outer) = self.find(&wiring.link).await? else { return Ok(None) };
        let Some(inner) = inside.find(CONTAINER_LINK).await? else { return Ok(None) };
        let same = peer(&inner) == Some(outer.header.index) && peer(&outer) == Some(inner.header.index);
        Ok(same.then_some(outer.header.index))
    }

    /// Both ends at once, each in its place and under its final name, so that no half-named link is ever seen.
    async fn create(&self, wiring: &Wiring, netns: &Netns) -> Result<(), NetError> {
        let inner = LinkMessageBuilder::<LinkUnspec>::new()
            .name(CONTAINER_LINK)
            .mtu(wiring.mtu.into())
            .address(wiring.mac.to_vec())
            .setns_by_fd(netns.raw())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner)))
            .name(wiring.link.clone())
            .mtu(wiring.mtu.into())
            .address(wiring.gateway_mac.to_vec())
            .build();
        self.handle.link().add(pair).execute().await.map_err(|source| {
            let doing = format!("make the link pair {} - {CONTAINER_LINK} of {}", wiring.link, wiring.alias);
            NetError::new(doing, source.into())
        })
    }

    async fn furnish(&self, wiring: &Wiring, inside: &Self, ifindex: u32) -> Result<(), NetError> {
        let Wiring { ns_ip, gateway, .. } = *wiring;

        inside.up("lo", inside.require("lo").await?).await?;
        let eth0 = inside.require(CONTAINER_LINK).await?;
        inside.address(CONTAINER_LINK, eth0, ns_ip, AddressScope::Universe).await?;
        inside.without_ipv6_address(CONTAINER_LINK, eth0).await?;
        inside.mtu(CONTAINER_LINK, eth0, wiring.mtu).await?;
        inside.up(CONTAINER_LINK, eth0).await?;
        inside.neighbour(CONTAINER_LINK, eth0, gateway, wiring.gateway_mac).await?;
        // The gateway is outside the container's /32, so it needs a route of its own before it can be one.
        let to_gateway = route_to(eth0, gateway, ns_ip);
        inside.route(&format!("{gateway}/32 dev {CONTAINER_LINK}"), to_gateway).await?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(eth0).gateway(gateway).build();
        inside.route(&format!("default via {gateway}"), default).await?;

        self.alias(&wiring.link, ifindex, &wiring.alias).await?;
        self.address(&wiring.link, ifindex, gateway, AddressScope::Link).await?;
        self.without_ipv6_address(&wiring.link, ifindex).await?;
        self.mtu(&wiring.link, ifindex, wiring.mtu).await?;
        self.up(&wiring.link, ifindex).await?;
        self.neighbour(&wiring.link, ifindex, ns_ip, wiring.mac).await?;
        let to_container = route_to(ifindex, ns_ip, gateway);
        self.route(&format!("{ns_ip}/32 dev {}", wiring.link), to_container).await
    }

    pub(super) async fn require(&self, name: &str) -> Result<u32, NetError> {
        let link = self.find(name).await?;
        let missing = || NetError::new(format!("look for link {name}"), Reason::NoInterface);
        Ok(link.ok_or_else(missing)?.header.index)
    }

    pub(super) async fn up(&self, name: &str, ifindex: u32) -> Result<(), NetError> {
        let up = LinkUnspec::new_with_index(ifindex).up().build();
        let changed = self.handle.link().change(up).execute().await;
        changed.map_err(|source| NetError::new(format!("set link {name} up"), source.into()))
    }

    /// A pair that was there before may be of a time when the uplink carried more, or less.
    pub(super) async fn mtu(&self, name: &str, ifindex: u32, mtu: u16) -> Result<(), NetError> {
        let change = LinkUnspec::new_with_index(ifindex).mtu(mtu.into()).build();
        let changed = self.handle.link().change(change).execute().await;
        changed.map_err(|source| NetError::new(format!("give link {name} the MTU {mtu}"), source.into()))
    }

    /// The overlay carries no IPv6 yet: a link-local address would promise something, and the link's duplicate
    /// detection, router and multicast messages would be dropped one by one. Must come before the link is up.
    pub(super) async fn without_ipv6_address(&self, name: &str, ifindex: u32) -> Result<(), NetError> {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let change = LinkUnspec::new_with_index(ifindex)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode]))
            .build();
        match self.handle.link().change(change).execute().await.map_err(Reason::from) {
            Err(reason) if !reason.is_without_ipv6() => {
                Err(NetError::new(format!("keep link {name} from giving itself an IPv6 address"), reason))
            }
            _ => Ok(()),
        }
    }

    async fn alias(&self, name: &str, ifindex: u32, alias: &str) -> Result<(), NetError> {
        let change = LinkUnspec::new_with_index(ifindex).alias(alias).build();
        let changed = self.handle.link().change(change).execute().await;
        changed.map_err(|source| NetError::new(format!("give link {name} the alias {alias}"), source.into()))
    }

    /// Adding the same address a second time is refused by the kernel unless the request says `replace`.
    async fn address(
        &self,
        name: &str,
        ifindex: u32,
        address: Ipv4Addr,
        scope: AddressScope,
    ) -> Result<(), NetError> {
        let mut request = self.handle.address().add(ifindex, address.into(), 32).replace();
        request.message_mut().header.scope = scope;
        request.execute().await.map_err(|source| {
            NetError::new(format!("add address {address}/32 to link {name}"), source.into())
        })
    }

    async fn neighbour(
        &self,
        name: &str,
        ifindex: u32,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<(), NetError> {
        let request = self.handle.neighbours().add(ifindex, address.into()).link_layer_address(&mac);
        request.replace().execute().await.map_err(|source| {
            NetError::new(format!("add the permanent neighbour {address} to link {name}"), source.into())
        })
    }

    async fn route(&self, what: &str, route: RouteMessage) -> Result<(), NetError> {
        let added = self.handle.route().add(route).replace().execute().await;
        added.map_err(|source| NetError::new(format!("add route {what}"), source.into()))
    }
}

fn route_to(ifindex: u32, address: Ipv4Addr, source: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(ifindex)
        .destination_prefix(address, 32)
        .pref_source(source)
        .scope(RouteScope::Link)
        .build()
}

/// The index that the other end of a pair has in its namespace.
fn peer(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(ifindex) => Some(*ifindex),
        _ => None,
    })
}
