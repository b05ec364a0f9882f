//! The routes of this namespace that are not ours.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use futures::TryStreamExt;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteType};
use protocol::plan::Range;
use rtnetlink::RouteMessageBuilder;

use super::{Link, Links, NetError, is_our_link};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub to: Range,
    pub interface: String,
}

impl Links {
    /// The IPv4 routes by which packets leave through an interface that is not ours, of all tables.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn routes(&self) -> Result<Vec<Route>, NetError> {
        let failed = |source: rtnetlink::Error| NetError::new("list the routes", source.into());
        let mut names = HashMap::new();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.map_err(failed)? {
            names.insert(message.header.index, Link::from(&message).name);
        }
        let mut routes = Vec::new();
        let mut messages = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        while let Some(message) = messages.try_next().await.map_err(failed)? {
            if message.header.kind != RouteType::Unicast {
                continue;
            }
            let mut first = Ipv4Addr::UNSPECIFIED;
            let mut interface = None;
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => first = *address,
                    RouteAttribute::Oif(ifindex) => interface = names.get(ifindex),
                    _ => {}
                }
            }
            let to = Range::network(first, message.header.destination_prefix_length);
            let interface = interface.filter(|name| !is_our_link(name));
            routes.extend(to.zip(interface).map(|(to, name)| Route { to, interface: name.clone() }));
        }
        Ok(routes)
    }
}
