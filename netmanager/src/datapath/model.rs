//! What the rest of netmanager says to the data plane, and hears from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netmanager_common::event::DropReason;
use netmanager_common::life::State as FlowState;
use netmanager_common::map::Policy;

use super::slots::Slots;

/// A container's attachment on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    pub ns_ip: Ipv4Addr,
    pub ns_ip6: Option<Ipv6Addr>,
    /// The instance's own service address. Without it the container can only be reached and only reach NsIPs.
    pub instance_ip: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub instance_ip6: Option<Ipv6Addr>,
    /// The host side of the container's veth.
    pub ifindex: u32,
    /// MAC of the container side.
    pub mac: [u8; 6],
    /// MAC of the host side, which the container sees as its gateway's.
    pub gateway_mac: [u8; 6],
}

/// One instance behind a service address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    pub ns_ip: Ipv4Addr,
    pub ns_ip6: Option<Ipv6Addr>,
    pub instance_ip: Ipv4Addr,
    pub instance_ip6: Option<Ipv6Addr>,
    /// The tunnel endpoint of the node where it runs.
    pub node: SocketAddr,
}

/// A service address as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub service_ip: IpAddr,
    pub policy: Policy,
    /// Those that new flows go to: in turn, or all to the first one, as `policy` says.
    pub backends: Vec<Backend>,
    /// Those that get no new flows and keep the ones that they have: they drain, or are set aside.
    pub resting: Vec<Backend>,
}

/// What the kernel side has noted of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Packets since the last answer that should have been answered.
    pub unanswered: u32,
    /// Where the last of them went, if that was TCP.
    pub asked_port: Option<u16>,
    /// How long ago something came back last; nothing if nothing ever has.
    pub heard: Option<Duration>,
    /// TCP connections refused since the last one that was accepted.
    pub refused: u32,
    /// Where the last TCP connection was accepted.
    pub accepted_port: Option<u16>,
    /// Where the last one was refused.
    pub refused_port: Option<u16>,
    /// The time until a first answer, smoothed.
    pub round_trip: Option<Duration>,
}

/// Transport of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
    /// ICMP echo.
    Icmp,
}

/// One connection that a container of this node made to a service address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub transport: Transport,
    /// The container's NsIP and port (of ICMP: the echo identifier).
    pub client: SocketAddr,
    /// The service address that it dialled.
    pub service: SocketAddr,
    /// The instance chosen for it; nothing if that instance is gone.
    pub backend: Option<Backend>,
    /// Time since its last packet, to the second.
    pub idle: Duration,
    /// As the client's direction has it.
    pub state: FlowState,
}

/// Packets and bytes of one endpoint since it was attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointCounters {
    pub ns_ip: Ipv4Addr,
    /// Sent by the container into the overlay.
    pub sent_packets: u64,
    pub sent_bytes: u64,
    /// Delivered to the container from the overlay.
    pub received_packets: u64,
    pub received_bytes: u64,
}

/// What the data plane has counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counters {
    pub endpoints: Vec<EndpointCounters>,
    /// Only reasons that occurred.
    pub drops: Vec<(DropReason, u64)>,
    /// Packets given to netmanager instead, likewise.
    pub punts: Vec<(DropReason, u64)>,
}

/// What the kernel side tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Miss(Miss),
    /// A backend does not answer, or refuses connections: see [`super::Datapath::suspect`].
    Suspect(Suspect),
}

/// A backend by its number in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect {
    pub(crate) number: u32,
    pub(crate) generation: u32,
}

/// What the XDP program at the uplink has done since the tables were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Early {
    /// Packets whose outer headers it has taken off.
    pub unwrapped: u64,
    /// Packets on which it left them, since the driver gave no room for its mark.
    pub no_metadata: u64,
}

impl Early {
    /// Whether the driver has never let the program do what it is there for.
    pub(super) const fn is_in_vain(self) -> bool {
        self.no_metadata > 0 && self.unwrapped == 0
    }
}

/// A packet needed a service address that the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miss {
    pub service_ip: IpAddr,
    /// Who needs it: the NsIP of a container of this node.
    pub ns_ip: IpAddr,
}

/// The outer source of what a node sends, and the outer destination of what it takes: one for each family in which it
/// reaches other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// Those that there are.
    pub(crate) fn each(self) -> impl Iterator<Item = IpAddr> {
        [self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6)].into_iter().flatten()
    }
}

impl From<Ipv4Addr> for Addresses {
    fn from(address: Ipv4Addr) -> Self {
        Self { v4: Some(address), v6: None }
    }
}

impl From<Ipv6Addr> for Addresses {
    fn from(address: Ipv6Addr) -> Self {
        Self { v4: None, v6: Some(address) }
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

/// This node as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub addresses: Addresses,
    /// The interface whose address this is, and through which most other nodes are reached.
    pub uplink_ifindex: u32,
    /// All interfaces through which others are, by their places in the table; 0 is none.
    pub uplinks: Slots,
    pub tunnel_port: u16,
    /// The largest packet that the tunnel carries.
    pub inner_mtu: u16,
}
