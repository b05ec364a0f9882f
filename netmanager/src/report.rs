//! What `netmanager status` shows: put together from the kernel's tables and the node's state, the same way by the
//! daemon and, when none runs, by the command itself.

mod peer;
mod unwrapping;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use netmanager_common::link::Link;
use protocol::id::Id;
use protocol::name::{InstanceName, ServiceName};
use serde::{Deserialize, Serialize};

pub use self::peer::Peer;
pub use self::unwrapping::Unwrapping;
use crate::datapath::{self, Counters, Early, Flow, FlowState, Placement, Policy, Ranges, Service, Tables};
use crate::hooks::{self, Hook};
use crate::net::{LeftToNic, Links, Uplink};
use crate::offload::is_question;
use crate::plane::Mode;
use crate::ports::PortMapping;
use crate::slowpath;
use crate::state;
use crate::userspace::Control;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The running daemon; nothing when none runs.
    pub daemon: Option<Daemon>,
    pub node: Option<Id>,
    /// Host of the cluster's broker.
    pub cluster: Option<String>,
    /// First address of the node's block.
    pub subnet: Option<Ipv4Addr>,
    /// Under which the node's own processes speak to services; nothing where they cannot.
    #[serde(default)]
    pub own_ns_ip: Option<Ipv4Addr>,
    pub uplink: Option<Uplink>,
    /// What carries packets: `ebpf`, `userspace`, or `none` while no data plane is loaded.
    #[serde(default)]
    pub mode: String,
    /// How programs are attached to interfaces here: `tcx` or `clsact`; nothing where there are none.
    pub attach_mode: String,
    /// What is attached to the uplink and to each container's link.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// Where the outer headers of what arrives are taken off, for each uplink.
    #[serde(default)]
    pub unwrapping: Vec<Unwrapping>,
    /// The nodes that this one talks to.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Connections of this node's containers that the kernel remembers.
    #[serde(default)]
    pub flows: Flows,
    pub endpoints: Vec<Endpoint>,
    pub services: Vec<ServiceAddress>,
    pub drops: Vec<Drops>,
    /// Packets that the kernel gave to netmanager instead.
    #[serde(default)]
    pub punts: Vec<Drops>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flows {
    pub open: usize,
    /// Their end was seen.
    pub closing: usize,
}

impl Flows {
    fn of(flows: &[Flow]) -> Self {
        let is_ending = |state| matches!(state, FlowState::Closing | FlowState::Closed);
        let flows = || flows.iter().filter(|flow| !is_question(flow));
        let closing = flows().filter(|flow| is_ending(flow.state)).count();
        Self { open: flows().count() - closing, closing }
    }
}

/// What the data plane says, as far as there is one.
#[derive(Debug, Default)]
pub struct Kernel {
    pub services: Vec<Service>,
    /// Under which the node's own processes speak to services.
    pub own_ns_ip: Option<Ipv4Addr>,
    pub counters: Counters,
    pub peers: Vec<Peer>,
    pub flows: Flows,
    pub hooks: Vec<Hook>,
    /// What was done before the kernel had a packet.
    pub early: Early,
    /// Where the daemon has decided that the uplink's packets are unwrapped.
    pub placement: Option<Placement>,
    /// Links whose packets the kernel merges before the programs have them.
    pub merged: Vec<Link>,
    pub is_loaded: bool,
}

/// Without the other nodes themselves, which stand behind their NsIPs in the same table.
fn of_services(mut services: Vec<Service>, ranges: Ranges) -> Vec<Service> {
    services.retain(|service| ranges.is_service(service.service_ip));
    services
}

impl Kernel {
    /// Reads the tables and looks at the interfaces that they name.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn read(tables: &Tables, links: &Links) -> Result<Self, datapath::DatapathError> {
        let services = of_services(tables.services()?, tables.ranges()?);
        let round_trip = |backend: &_| tables.round_trip(backend).ok().flatten();
        let nodes = peer::others(tables.peers()?, tables.node()?);
        let peers = peer::all(nodes, &services, round_trip, &tables.paths()?);
        Ok(Self {
            services,
            own_ns_ip: tables.node_itself()?.map(|itself| itself.ns_ip),
            counters: tables.counters()?,
            peers,
            flows: Flows::of(&tables.flows()?),
            hooks: hooks::look(tables, links).await,
            early: tables.early()?,
            placement: None,
            merged: unwrapping::merged(links).await,
            is_loaded: true,
        })
    }

    /// The same of a data plane in user space, which has nothing attached.
    #[must_use]
    pub fn of_process(control: &Control) -> Self {
        let services = of_services(control.services(), control.ranges());
        let nodes = peer::others(control.peers(), control.node());
        let round_trip = |backend: &_| control.reading(backend)?.round_trip;
        let peers = peer::all(nodes, &services, round_trip, &control.paths());
        Self {
            services,
            own_ns_ip: control.node_itself().map(|itself| itself.ns_ip),
            counters: control.counters(),
            peers,
            flows: Flows::of(&control.flows()),
            is_loaded: true,
            ..Self::default()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    pub pid: u32,
    pub version: String,
    /// Where other nodes are told to reach this one's tunnel.
    pub tunnel: SocketAddr,
    pub session: SessionState,
    /// Why it forwards packets itself although the kernel was to do it.
    #[serde(default)]
    pub fallback: Option<String>,
    /// Addresses that a packet needed and the tables did not have, since it started.
    #[serde(default)]
    pub misses: u64,
    /// What became of packets that the kernel could not finish alone; nothing where there is no slow path.
    #[serde(default)]
    pub slow_path: Option<slowpath::Counts>,
    /// What containers' kernels leave to the NIC: less than all where a way to another node was seen to lose it.
    #[serde(default)]
    pub left_to_nic: LeftToNic,
    /// Other nodes of which it is not known yet whether packets are cut on their way there, which says how to wrap them.
    #[serde(default)]
    pub links_on_trial: BTreeSet<IpAddr>,
}

/// How it stands with the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum SessionState {
    /// No `/register` yet.
    Unregistered,
    Connecting,
    Up {
        since: SystemTime,
    },
    Down {
        since: SystemTime,
        reason: String,
    },
}

/// A container of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub instance: InstanceName,
    pub ns_ip: Ipv4Addr,
    /// Nothing where the container has no IPv6.
    #[serde(default)]
    pub ns_ip6: Option<Ipv6Addr>,
    pub instance_ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub instance_ip6: Option<Ipv6Addr>,
    pub link: String,
    pub pid: i32,
    pub ports: Vec<PortMapping>,
    /// Counted by the data plane since it was attached.
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub received_packets: u64,
    pub received_bytes: u64,
}

/// A ServiceIP that this node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddress {
    pub address: IpAddr,
    pub service: Option<ServiceName>,
    pub policy: String,
    pub backends: Vec<Backend>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub instance_ip: Ipv4Addr,
    pub ns_ip: Ipv4Addr,
    pub node: SocketAddr,
    /// Whether it runs on this node.
    pub here: bool,
    /// It keeps the connections that it has and gets no new ones: it was found to be a dead end, or drains.
    #[serde(default)]
    pub resting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    pub reason: String,
    pub packets: u64,
}

impl Report {
    /// `owner` tells the service of an address.
    #[must_use]
    pub fn new(
        state: &state::Node,
        kernel: Kernel,
        owner: impl Fn(IpAddr) -> Option<ServiceName>,
        daemon: Option<Daemon>,
    ) -> Self {
        let here = |ns_ip| state.endpoints.iter().any(|endpoint| endpoint.ns_ip == ns_ip);
        let unwrapping = unwrapping::all(&kernel, state);
        let Kernel { services, own_ns_ip, counters, peers, flows, hooks, is_loaded, .. } = kernel;
        let mut services: Vec<_> = services
            .into_iter()
            .map(|service| ServiceAddress {
                address: service.service_ip,
                service: owner(service.service_ip),
                policy: policy(service.policy).to_owned(),
                backends: service
                    .backends
                    .iter()
                    .map(|backend| (backend, false))
                    .chain(service.resting.iter().map(|backend| (backend, true)))
                    .map(|(backend, resting)| Backend {
                        instance_ip: backend.instance_ip,
                        ns_ip: backend.ns_ip,
                        node: backend.node,
                        here: here(backend.ns_ip),
                        resting,
                    })
                    .collect(),
            })
            .collect();
        services.sort_by_key(|service| (service.service.clone(), service.address));
        let mut endpoints: Vec<_> =
            state.endpoints.iter().map(|attachment| Endpoint::new(attachment, &counters)).collect();
        endpoints.sort_by_key(|endpoint| endpoint.ns_ip);
        let count = |counts: &[(datapath::DropReason, u64)]| {
            counts
                .iter()
                .map(|(reason, packets)| Drops { reason: reason.to_string(), packets: *packets })
                .collect()
        };
        Self {
            daemon,
            node: state.id,
            cluster: state.cluster.clone(),
            subnet: state.subnet,
            own_ns_ip,
            uplink: state.uplink.clone(),
            mode: mode(state.datapath, is_loaded).to_owned(),
            attach_mode: attach_mode(state.datapath).to_owned(),
            hooks,
            unwrapping,
            peers,
            flows,
            endpoints,
            services,
            drops: count(&counters.drops),
            punts: count(&counters.punts),
        }
    }
}

impl Endpoint {
    fn new(attachment: &state::Attachment, counters: &Counters) -> Self {
        let counted = counters.endpoints.iter().find(|counted| counted.ns_ip == attachment.ns_ip);
        Self {
            instance: attachment.instance.clone(),
            ns_ip: attachment.ns_ip,
            ns_ip6: attachment.ns_ip6,
            instance_ip: attachment.instance_ip,
            instance_ip6: attachment.instance_ip6,
            link: attachment.link.clone(),
            pid: attachment.pid,
            ports: attachment.ports.clone(),
            sent_packets: counted.map_or(0, |counted| counted.sent_packets),
            sent_bytes: counted.map_or(0, |counted| counted.sent_bytes),
            received_packets: counted.map_or(0, |counted| counted.received_packets),
            received_bytes: counted.map_or(0, |counted| counted.received_bytes),
        }
    }
}

fn mode(last: Option<Mode>, is_loaded: bool) -> &'static str {
    match last {
        _ if !is_loaded => "none",
        Some(Mode::Userspace) => "userspace",
        _ => "ebpf",
    }
}

fn attach_mode(mode: Option<Mode>) -> &'static str {
    match (mode, datapath::Hook::probe()) {
        (Some(Mode::Userspace), _) => "-",
        (_, datapath::Hook::Tcx) => "tcx",
        (_, datapath::Hook::Clsact) => "clsact",
    }
}

/// How a service chooses among its instances, in words.
#[must_use]
pub fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::RoundRobin => "round robin",
        Policy::Instance => "instance",
        Policy::Closest => "closest",
        Policy::LeastConnections => "least connections",
    }
}
