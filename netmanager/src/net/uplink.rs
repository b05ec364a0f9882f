//! The interface through which this node reaches the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::RouteMessageBuilder;
use serde::{Deserialize, Serialize};

use super::{Links, NetError, Reason};

/// The uplink and the address under which this node sends. Nodes reach each other by the IP version of the addresses that
/// they are told of each other, so one address is all that is needed, and all nodes of a system have one of the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    pub name: String,
    pub ifindex: u32,
    pub address: IpAddr,
    /// The largest packet that it carries.
    #[serde(default)]
    pub mtu: u32,
}

/// What says which interface is the uplink.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The interface's name, if somebody has named it.
    pub named: Option<&'a str>,
    /// The address under which other nodes are told to reach this one, if somebody has said it.
    pub public: Option<IpAddr>,
    /// The address in use: of several it stays in use, whatever their order.
    pub current: Option<IpAddr>,
    /// An address that must be reached, asked for where there is no default route: the cluster's.
    pub towards: Option<IpAddr>,
}

impl Wish<'_> {
    /// Tells the IP version that is wanted, if any is.
    fn preferred(&self) -> Option<IpAddr> {
        self.public.or(self.current)
    }
}

impl Links {
    /// Finds the uplink: the interface that is named; else the one that has the public address; else that of the default
    /// route; where there is none, the one towards the cluster, or the only one that could be meant. If it has several
    /// addresses, the public one is taken when it is one of them, else the one in use, else the first of its IP version;
    /// without a preference an IPv4 address, or where there is none an IPv6 one.
    ///
    /// # Errors
    /// When it cannot be told which interface is meant, or it cannot carry the tunnel.
    pub async fn uplink(&self, wish: Wish<'_>) -> Result<Uplink, NetError> {
        let name = match wish.named {
            Some(name) => name.to_owned(),
            None => self.find_uplink(wish).await?,
        };
        let link = self.ethernet(&name).await?;
        let ifindex = link.header.index;
        let addresses = self.addresses(&name, ifindex).await?;
        let address = choose(&addresses, wish.preferred())
            .ok_or_else(|| NetError::new(use_as_uplink(&name), Reason::NoAddress))?;
        Ok(Uplink { name, ifindex, address, mtu: mtu(&link) })
    }

    async fn find_uplink(&self, wish: Wish<'_>) -> Result<String, NetError> {
        if let Some(public) = wish.public
            && let Some(name) =
                self.candidates(public.is_ipv4()).await?.into_iter().find_map(|it| it.has(public))
        {
            return Ok(name);
        }
        let none = match self.default_interface(wish.preferred()).await {
            Err(none) if matches!(none.reason, Reason::NoDefaultRoute) => none,
            result => return result,
        };
        if let Some(towards) = wish.towards
            && let Some(name) = self.interface_towards(towards).await?
        {
            return Ok(name);
        }
        let mut candidates = match wish.preferred() {
            Some(address) => self.candidates(address.is_ipv4()).await?,
            None => match self.candidates(true).await? {
                none if none.is_empty() => self.candidates(false).await?,
                some => some,
            },
        };
        candidates.retain(|candidate| candidate.is_up && !candidate.is_for_guests);
        match &candidates[..] {
            [only] => Ok(only.name.clone()),
            _ => Err(none),
        }
    }

    async fn ethernet(&self, name: &str) -> Result<LinkMessage, NetError> {
        let fail = |reason| NetError::new(use_as_uplink(name), reason);
        let link = self.find(name).await?.ok_or_else(|| fail(Reason::NoInterface))?;
        if link.header.link_layer_type != LinkLayerType::Ether {
            return Err(fail(Reason::NotEthernet));
        }
        Ok(link)
    }

    async fn default_interface(&self, preferred: Option<IpAddr>) -> Result<String, NetError> {
        let fail = |reason| NetError::new("find the uplink", reason);
        let v4 = || self.default_routes(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let v6 = || self.default_routes(RouteMessageBuilder::<Ipv6Addr>::new().build());
        let defaults = match preferred {
            Some(IpAddr::V4(_)) => v4().await?,
            Some(IpAddr::V6(_)) => v6().await?,
            None => match v4().await? {
                none if none.is_empty() => v6().await?,
                some => some,
            },
        };
        let best = defaults.iter().map(|(metric, _)| *metric).min();
        let mut indices: Vec<_> = defaults
            .iter()
            .filter(|(metric, _)| Some(*metric) == best)
            .map(|(_, ifindex)| *ifindex)
            .collect();
        indices.sort_unstable();
        indices.dedup();
        let mut names = Vec::new();
        for ifindex in indices {
            names.extend(self.name_of(ifindex).await?);
        }
        match names.as_slice() {
            [] => Err(fail(Reason::NoDefaultRoute)),
            [name] => Ok(name.clone()),
            several => Err(fail(Reason::SeveralDefaultRoutes(several.join(" and ")))),
        }
    }

    /// Metrics and interfaces of the default routes of the version that `like` is of.
    async fn default_routes(&self, like: RouteMessage) -> Result<Vec<(u32, u32)>, NetError> {
        let fail = |reason| NetError::new("find the uplink", reason);
        let mut routes = self.handle.route().get(like).execute();
        let mut defaults = Vec::new();
        while let Some(route) = routes.try_next().await.map_err(|source| fail(source.into()))? {
            defaults.extend(default_route(&route));
        }
        Ok(defaults)
    }

    /// The interface's addresses of global scope, in the kernel's order: primary ones first.
    pub(super) async fn addresses(&self, name: &str, ifindex: u32) -> Result<Vec<IpAddr>, NetError> {
        Ok(self.address_messages(name, ifindex).await?.iter().filter_map(lasting).collect())
    }

    /// All addresses of the interface, of whatever scope.
    pub(super) async fn all_addresses(&self, name: &str, ifindex: u32) -> Result<Vec<IpAddr>, NetError> {
        Ok(self.address_messages(name, ifindex).await?.iter().filter_map(address).collect())
    }

    async fn address_messages(&self, name: &str, ifindex: u32) -> Result<Vec<AddressMessage>, NetError> {
        let messages = self.handle.address().get().set_link_index_filter(ifindex).execute();
        let listed = messages.try_collect().await;
        listed.map_err(|source| NetError::new(format!("list the addresses of {name}"), source.into()))
    }
}

/// The address that this is about, if others can count on it.
fn lasting(message: &AddressMessage) -> Option<IpAddr> {
    // Those of IPv6 privacy, and those that are not yet, or not much longer, to be used.
    let passing = AddressHeaderFlags::Deprecated | AddressHeaderFlags::Tentative;
    let address = address(message)?;
    // The same bit says of an IPv4 address that it is not the first of its prefix, which is no harm.
    let temporary = address.is_ipv6() && message.header.flags.contains(AddressHeaderFlags::Secondary);
    let usable = message.header.scope == AddressScope::Universe
        && !message.header.flags.intersects(passing)
        && !temporary;
    usable.then_some(address)
}

/// The address that this is about.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn choose(addresses: &[IpAddr], preferred: Option<IpAddr>) -> Option<IpAddr> {
    let first = |v4: bool| addresses.iter().find(|address| address.is_ipv4() == v4).copied();
    match preferred {
        Some(preferred) if addresses.contains(&preferred) => Some(preferred),
        Some(preferred) => first(preferred.is_ipv4()),
        None => first(true).or_else(|| first(false)),
    }
}

pub(super) fn mtu(link: &LinkMessage) -> u32 {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or_default()
}

fn use_as_uplink(name: &str) -> String {
    format!("use interface {name} as the uplink")
}

/// Metric and interface of a default route of the main table.
fn default_route(route: &RouteMessage) -> Option<(u32, u32)> {
    if route.header.destination_prefix_length != 0 || route.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    let interface = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    });
    Some((metric.unwrap_or(0), interface?))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::choose;

    #[test]
    fn an_uplink_s_address_is_the_preferred_one_or_of_its_version() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let both = ["2001:db8::1", "192.0.2.1", "192.0.2.2", "2001:db8::2"].map(address);
        for (preferred, expected) in [
            (None, "192.0.2.1"),
            (Some("192.0.2.2"), "192.0.2.2"),
            (Some("2001:db8::2"), "2001:db8::2"),
            (Some("198.51.100.7"), "192.0.2.1"),
            (Some("2001:db8::7"), "2001:db8::1"),
        ] {
            assert_eq!(choose(&both, preferred.map(address)), Some(address(expected)), "{preferred:?}");
        }
        let v6 = [address("2001:db8::1")];
        assert_eq!(choose(&v6, None), Some(v6[0]));
        assert_eq!(choose(&v6, Some(address("192.0.2.1"))), None, "the others could not reach it");
    }
}
