//! The links, addresses and routes of this node, by rtnetlink. Only verbs: what is to be where is decided elsewhere.
//!
//! ```text
//!  container's namespace        node's namespace
//!  +--------------------+      +------------------------------------------+
//!  | eth0  NsIP/32      |======| hy0123456789ab  gateway/32   uplink      |
//!  | default via gateway|      | NsIP/32 dev hy0123456789ab               |
//!  +--------------------+      +------------------------------------------+
//! ```
//!
//! And the same of IPv6 with /128, where the container's namespace has IPv6.
//!
//! The node itself has such a pair, too, of which both ends are in its namespace, with routes to the services through it
//! ([`itself`]).
//!
//! There is no bridge. Each side knows the other's MAC by a permanent neighbour entry, so nobody asks by ARP or neighbour
//! discovery.
//! Everything that belongs to a container hangs on its pair of links: when one end goes, also because the namespace
//! died with its last process, the kernel takes the other end, its addresses, routes and programs along. So taking
//! back a half-done set-up is the removal of one link, and a crash can leave nothing else behind.

mod candidates;
mod egress;
mod error;
mod finishing;
pub mod fou;
mod itself;
mod merging;
mod netns;
mod pair;
mod programs;
mod routes;
pub mod sysctl;
mod tap;
mod uplink;
mod watch;
mod wiring;

use std::os::fd::OwnedFd;

use futures::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::LinkUnspec;
use tokio::task::JoinHandle;

pub use self::candidates::Candidate;
pub use self::egress::Egresses;
pub use self::error::{NetError, Reason};
pub use self::finishing::LeftToNic;
pub use self::netns::Netns;
pub use self::pair::Connected;
pub use self::programs::Filters;
pub use self::routes::Route;
pub use self::uplink::{Uplink, Wish};
pub use self::watch::Watch;
use self::wiring::is_container_link;
pub(crate) use self::wiring::macs;
pub use self::wiring::{
    CONTAINER_LINK, LINK_PREFIX, MERGING_LINK, OWN_LINK, OWN_LINK_PEER, OwnWiring, Wiring, Wiring6,
    is_our_link,
};

/// Sockets in one network namespace. They stay there, whichever thread uses them.
#[derive(Debug)]
pub struct Links {
    handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
    /// For what netlink has no message for.
    control: OwnedFd,
}

/// One of our links, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub ifindex: u32,
    /// The instance's name.
    pub alias: Option<String>,
}

impl Links {
    /// Opens the sockets in the namespace of the calling thread, which must be in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> Result<Self, NetError> {
        let (connection, handle, _unsolicited) = rtnetlink::new_connection()
            .map_err(|source| NetError::new("open a netlink socket", source.into()))?;
        let control = finishing::control()
            .map_err(|source| NetError::new("open a socket that asks about links", source.into()))?;
        Ok(Self { handle, connection: tokio::spawn(connection), control })
    }

    /// The links of this namespace that netmanager has made for containers, now or in an earlier life.
    ///
    /// # Errors
    /// When the kernel refuses to list links.
    pub async fn of_containers(&self) -> Result<Vec<Link>, NetError> {
        let mut links = Vec::new();
        let mut messages = self.handle.link().get().execute();
        let failed = |source: rtnetlink::Error| NetError::new("list the links", source.into());
        while let Some(message) = messages.try_next().await.map_err(failed)? {
            let link = Link::from(&message);
            if is_container_link(&link.name) {
                links.push(link);
            }
        }
        Ok(links)
    }

    /// The link of this name, if there is one.
    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, NetError> {
        let mut messages = self.handle.link().get().match_name(name.to_owned()).execute();
        match messages.try_next().await.map_err(Reason::from) {
            Ok(message) => Ok(message),
            Err(reason) if reason.is_gone() => Ok(None),
            Err(reason) => Err(NetError::new(format!("look for link {name}"), reason)),
        }
    }

    /// Gives a link back the name that it was made with, for which it has to go down for a moment: it must be furnished
    /// again. One that is gone, or has that name, is no failure.
    ///
    /// # Errors
    /// When the kernel refuses, for one because another link has the name.
    pub async fn rename(&self, ifindex: u32, name: &str) -> Result<(), NetError> {
        let failed = |source: rtnetlink::Error| {
            NetError::new(format!("give link {ifindex} its name {name} back"), source.into())
        };
        let mut found = self.handle.link().get().match_index(ifindex).execute();
        match found.try_next().await.map_err(Reason::from) {
            Ok(Some(message)) if Link::from(&message).name != name => {}
            _ => return Ok(()),
        }
        let down = LinkUnspec::new_with_index(ifindex).down().build();
        self.handle.link().change(down).execute().await.map_err(failed)?;
        let renamed = LinkUnspec::new_with_index(ifindex).name(name).build();
        self.handle.link().change(renamed).execute().await.map_err(failed)
    }

    /// Removes a link; one that is gone is no failure. Says whether there was one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&self, name: &str) -> Result<bool, NetError> {
        let Some(link) = self.find(name).await? else { return Ok(false) };
        match self.handle.link().del(link.header.index).execute().await.map_err(Reason::from) {
            Ok(()) => Ok(true),
            Err(reason) if reason.is_gone() => Ok(false),
            Err(reason) => Err(NetError::new(format!("remove link {name}"), reason)),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self { name: String::new(), ifindex: message.header.index, alias: None };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                _ => {}
            }
        }
        link
    }
}
