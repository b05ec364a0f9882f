//! Hearing that links, addresses or routes of this namespace change, so that nobody has to ask all the time.

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::sys::SocketAddr;
use tokio::task::JoinHandle;

use super::NetError;

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
];

/// The kernel's announcements in one network namespace.
#[derive(Debug)]
pub struct Watch {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
}

impl Watch {
    /// Listens in the namespace of the calling thread, which must be in a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> Result<Self, NetError> {
        let (connection, _handle, messages) = rtnetlink::new_multicast_connection(&GROUPS)
            .map_err(|source| NetError::new("listen for changes of links", source.into()))?;
        Ok(Self { messages, connection: tokio::spawn(connection) })
    }

    /// Returns when something has changed since the last call; what, is for the caller to look up. Cancel safe.
    pub async fn changed(&mut self) {
        if self.messages.next().await.is_none() {
            // The socket is gone: then there is only the regular look.
            std::future::pending::<()>().await;
        }
        // A link that comes or goes is a dozen messages.
        while self.messages.try_recv().is_ok() {}
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
