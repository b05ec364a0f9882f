//! Connecting a container: the pair of links and what hangs on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{AddressHeaderFlags, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteScope};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{CONTAINER_LINK, Links, NetError, Netns, Reason, Wiring};

/// What has become of a [`Wiring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// The node's end.
    pub ifindex: u32,
    /// The container's IPv6 address; nothing where its namespace has no IPv6.
    pub ns_ip6: Option<Ipv6Addr>,
}

impl Links {
    /// Connects the namespace as `wiring` says. Done twice it is done once; a pair of that name that leads elsewhere is
    /// replaced. After a failure nothing of it is left. A kernel or a namespace without IPv6 is no failure.
    ///
    /// # Errors
    /// The step that the kernel refused.
    pub async fn connect(&self, wiring: &Wiring, netns: &Netns) -> Result<Connected, NetError> {
        let inside = netns.links().await?;
        if let Some(ifindex) = self.connected(wiring, &inside).await? {
            let ns_ip6 = self.furnish(wiring, &inside, ifindex).await?;
            return Ok(Connected { ifindex, ns_ip6 });
        }
        self.remove(&wiring.link).await?;
        self.create(wiring, netns).await?;
        let furnished = match self.require(&wiring.link).await {
            Ok(ifindex) => {
                let ns_ip6 = self.furnish(wiring, &inside, ifindex).await;
                ns_ip6.map(|ns_ip6| Connected { ifindex, ns_ip6 })
            }
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

    /// Gives the container's IPv6 address, if it got one.
    async fn furnish(
        &self,
        wiring: &Wiring,
        inside: &Self,
        ifindex: u32,
    ) -> Result<Option<Ipv6Addr>, NetError> {
        inside.up("lo", inside.require("lo").await?).await?;
        let eth0 = inside.require(CONTAINER_LINK).await?;
        let inner = End {
            links: inside,
            name: CONTAINER_LINK,
            ifindex: eth0,
            scope: AddressScope::Universe,
            other_mac: wiring.gateway_mac,
        };
        let outer = End {
            links: self,
            name: &wiring.link,
            ifindex,
            scope: AddressScope::Link,
            other_mac: wiring.mac,
        };
        self.alias(&wiring.link, ifindex, &wiring.alias).await?;
        for end in [&inner, &outer] {
            end.links.without_ipv6_address(end.name, end.ifindex).await?;
            end.links.mtu(end.name, end.ifindex, wiring.mtu).await?;
            end.links.up(end.name, end.ifindex).await?;
        }
        inside.try_to_leave_to_nic(CONTAINER_LINK, wiring.left_to_nic).await;
        let (ns_ip, gateway) = (wiring.ns_ip.into(), wiring.gateway.into());
        inner.address(ns_ip).await?;
        inner.other(gateway, ns_ip).await?;
        inner.default_route(gateway).await?;
        outer.address(gateway).await?;
        outer.other(ns_ip, gateway).await?;

        let Some(second) = wiring.v6 else { return Ok(None) };
        let (ns_ip, gateway) = (second.ns_ip.into(), second.gateway.into());
        match inner.address(ns_ip).await {
            Err(error) if error.reason.is_without_ipv6() => return Ok(None),
            result => result?,
        }
        inner.other(gateway, ns_ip).await?;
        inner.default_route(gateway).await?;
        match outer.address(gateway).await {
            // The data plane needs no IPv6 of the node's: only the node itself is not reached then.
            Err(error) if error.reason.is_without_ipv6() => {}
            result => {
                result?;
                outer.other(ns_ip, gateway).await?;
            }
        }
        Ok(Some(second.ns_ip))
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

    /// The link gets no IPv6 address but ours: with a link-local one the kernel would look for duplicates and routers,
    /// though there can be none on it, and the messages would be dropped one by one. Must come before the link is up.
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

    pub(super) async fn alias(&self, name: &str, ifindex: u32, alias: &str) -> Result<(), NetError> {
        let change = LinkUnspec::new_with_index(ifindex).alias(alias).build();
        let changed = self.handle.link().change(change).execute().await;
        changed.map_err(|source| NetError::new(format!("give link {name} the alias {alias}"), source.into()))
    }
}

/// One end of a pair, and what it is to know of the other.
pub(super) struct End<'a> {
    pub(super) links: &'a Links,
    pub(super) name: &'a str,
    pub(super) ifindex: u32,
    /// Of its IPv4 address.
    pub(super) scope: AddressScope,
    pub(super) other_mac: [u8; 6],
}

impl End<'_> {
    /// Adding the same address a second time is refused by the kernel unless the request says `replace`.
    pub(super) async fn address(&self, address: IpAddr) -> Result<(), NetError> {
        let Self { name, ifindex, .. } = *self;
        let length = host_prefix(address);
        let mut request = self.links.handle.address().add(ifindex, address, length).replace();
        match address {
            IpAddr::V4(_) => request.message_mut().header.scope = self.scope,
            // Nobody else can be on this link, and with the look for duplicates the address would be usable late.
            IpAddr::V6(_) => request.message_mut().header.flags |= AddressHeaderFlags::Nodad,
        }
        request.execute().await.map_err(|source| {
            NetError::new(format!("add address {address}/{length} to link {name}"), source.into())
        })
    }

    /// Makes the other end's address known: its MAC, and that it is on this link. `own` is the source towards it.
    pub(super) async fn other(&self, address: IpAddr, own: IpAddr) -> Result<(), NetError> {
        let Self { name, ifindex, .. } = *self;
        let neighbours = self.links.handle.neighbours();
        let request = neighbours.add(ifindex, address).link_layer_address(&self.other_mac);
        request.replace().execute().await.map_err(|source| {
            NetError::new(format!("add the permanent neighbour {address} to link {name}"), source.into())
        })?;
        let what = format!("{address}/{} dev {name}", host_prefix(address));
        self.route(&what, route_to(ifindex, address, own)).await
    }

    /// The gateway's address must be known already: it is outside of the container's own prefix.
    async fn default_route(&self, gateway: IpAddr) -> Result<(), NetError> {
        let route = match gateway {
            IpAddr::V4(gateway) => {
                RouteMessageBuilder::<Ipv4Addr>::new().output_interface(self.ifindex).gateway(gateway).build()
            }
            IpAddr::V6(gateway) => {
                RouteMessageBuilder::<Ipv6Addr>::new().output_interface(self.ifindex).gateway(gateway).build()
            }
        };
        self.route(&format!("default via {gateway}"), route).await
    }

    pub(super) async fn route(&self, what: &str, route: RouteMessage) -> Result<(), NetError> {
        let added = self.links.handle.route().add(route).replace().execute().await;
        added.map_err(|source| NetError::new(format!("add route {what}"), source.into()))
    }
}

/// The length of the prefix that holds this address alone.
fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn route_to(ifindex: u32, address: IpAddr, own: IpAddr) -> RouteMessage {
    let mut route = match address {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .scope(RouteScope::Link)
            .output_interface(ifindex)
            .build(),
        IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, 128)
            .output_interface(ifindex)
            .build(),
    };
    route.attributes.push(RouteAttribute::PrefSource(own.into()));
    route
}

/// The index that the other end of a pair has in its namespace.
pub(super) fn peer(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(ifindex) => Some(*ifindex),
        _ => None,
    })
}
