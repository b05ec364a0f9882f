//! Through which interface the kernel sends to an address. Asked and answered at once, without waiting for anybody: the
//! kernel answers within the call.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::NetError;

/// The routes of one network namespace, to be asked.
#[derive(Debug)]
pub struct Egresses(Socket);

impl Egresses {
    /// Of the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> Result<Self, NetError> {
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(NETLINK_ROUTE)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let failed =
            |error: io::Error| NetError::new("open a netlink socket to ask for routes", error.into());
        open().map(Self).map_err(failed)
    }

    /// The interface through which a packet leaves for `destination`, from `source`, an address of this node, or whatever the
    /// kernel takes; nothing if there is no route.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn towards(&self, destination: IpAddr, source: Option<IpAddr>) -> Result<Option<u32>, NetError> {
        let asked = self.ask(destination, source);
        asked.map_err(|error| NetError::new(format!("ask for the route to {destination}"), error.into()))
    }

    fn ask(&self, destination: IpAddr, source: Option<IpAddr>) -> io::Result<Option<u32>> {
        let question = question(destination, source);
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(question));
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let (answer, _) = self.0.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => Ok(egress(&route)),
            // There is no route, or none for this source.
            NetlinkPayload::Error(_) => Ok(None),
            other => Err(io::Error::other(format!("unexpected answer over netlink: {other:?}"))),
        }
    }
}

fn question(destination: IpAddr, source: Option<IpAddr>) -> RouteMessage {
    match destination {
        IpAddr::V4(to) => {
            let question = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32);
            match source {
                Some(IpAddr::V4(from)) => question.source_prefix(from, 32).build(),
                _ => question.build(),
            }
        }
        IpAddr::V6(to) => {
            let question = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128);
            match source {
                Some(IpAddr::V6(from)) => question.source_prefix(from, 128).build(),
                _ => question.build(),
            }
        }
    }
}

fn egress(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}
