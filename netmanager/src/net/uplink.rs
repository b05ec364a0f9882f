//! The interface through which this node reaches the others.

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::RouteMessageBuilder;
use serde::{Deserialize, Serialize};

use super::{Link, Links, NetError, Reason};

/// The uplink and the address under which this node sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    pub name: String,
    pub ifindex: u32,
    pub address: Ipv4Addr,
    /// The largest packet that it carries.
    #[serde(default)]
    pub mtu: u32,
}

impl Links {
    /// Finds the uplink: the interface `named`, else that of the default route. If it has several addresses,
    /// `preferred` is taken when it is one of them, else the first.
    ///
    /// # Errors
    /// When it cannot be told which interface is meant, or it cannot carry the tunnel.
    pub async fn uplink(&self, named: Option<&str>, preferred: Option<Ipv4Addr>) -> Result<Uplink, NetError> {
        let name = match named {
            Some(name) => name.to_owned(),
            None => self.default_interface().await?,
        };
        let link = self.ethernet(&name).await?;
        let ifindex = link.header.index;
        let addresses = self.addresses(&name, ifindex).await?;
        let chosen = preferred.filter(|address| addresses.contains(address)).or(addresses.first().copied());
        let address = chosen.ok_or_else(|| NetError::new(use_as_uplink(&name), Reason::NoAddress))?;
        Ok(Uplink { name, ifindex, address, mtu: mtu(&link) })
    }

    async fn ethernet(&self, name: &str) -> Result<LinkMessage, NetError> {
        let fail = |reason| NetError::new(use_as_uplink(name), reason);
        let link = self.find(name).await?.ok_or_else(|| fail(Reason::NoInterface))?;
        if link.header.link_layer_type != LinkLayerType::Ether {
            return Err(fail(Reason::NotEthernet));
        }
        Ok(link)
    }

    async fn default_interface(&self) -> Result<String, NetError> {
        let fail = |reason| NetError::new("find the uplink", reason);
        let mut routes = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let mut defaults: Vec<(u32, u32)> = Vec::new();
        while let Some(route) = routes.try_next().await.map_err(|source| fail(source.into()))? {
            defaults.extend(default_route(&route));
        }
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
            let mut links = self.handle.link().get().match_index(ifindex).execute();
            let link = links.try_next().await.map_err(|source| fail(source.into()))?;
            names.extend(link.map(|link| Link::from(&link).name));
        }
        match names.as_slice() {
            [] => Err(fail(Reason::NoDefaultRoute)),
            [name] => Ok(name.clone()),
            several => Err(fail(Reason::SeveralDefaultRoutes(several.join(" and ")))),
        }
    }

    /// The interface's addresses of global scope, in the kernel's order: primary ones first.
    async fn addresses(&self, name: &str, ifindex: u32) -> Result<Vec<Ipv4Addr>, NetError> {
        let fail =
            |source: rtnetlink::Error| NetError::new(format!("list the addresses of {name}"), source.into());
        let mut found = Vec::new();
        let mut messages = self.handle.address().get().set_link_index_filter(ifindex).execute();
        while let Some(message) = messages.try_next().await.map_err(fail)? {
            if message.header.scope != AddressScope::Universe {
                continue;
            }
            found.extend(message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                _ => None,
            }));
        }
        Ok(found)
    }
}

fn mtu(link: &LinkMessage) -> u32 {
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
