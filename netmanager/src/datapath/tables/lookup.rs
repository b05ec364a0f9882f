//! Single entries, as the programs look them up.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netmanager_common::flow::{self, Ports};
use netmanager_common::map::{self, FlowKey, FragmentKey};
use netmanager_common::wire::Be16;

use super::{Tables, found, from_backend, from_ip, ip, monotonic_seconds};
use crate::datapath::{Backend, DatapathError, Service};

/// Addresses and ports of a packet as it comes out of the tunnel. Of an ICMP echo the ports are the identifier at the
/// asking end and 0 at the answering one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
}

impl Arrival {
    pub(crate) fn key(&self, ifindex: u32) -> FlowKey {
        let ports =
            Ports { source: Be16::new(self.source_port), destination: Be16::new(self.destination_port) };
        flow::forward_key(ifindex, ip(self.source), ip(self.destination), ports, self.protocol)
    }

    /// The flows that matter to a packet that a container at `ifindex` sends: its own, and those that may have its ports
    /// already. `own` is the container's instance address, `backends` are behind the address that it dials.
    pub(crate) fn kin(&self, ifindex: u32, own: Option<IpAddr>, backends: &[Backend]) -> Vec<FlowKey> {
        let forward = self.key(ifindex);
        let mut keys = vec![forward];
        for backend in backends {
            let (instance, ns_ip) = if self.destination.is_ipv6() {
                (backend.instance_ip6.map(IpAddr::V6), backend.ns_ip6.map(IpAddr::V6))
            } else {
                (Some(backend.instance_ip.into()), Some(backend.ns_ip.into()))
            };
            keys.extend(instance.map(|instance| flow::reply_key(&forward, ip(instance))));
            if let (Some(own), Some(ns_ip)) = (own, ns_ip) {
                keys.push(Self { source: own, destination: ns_ip, ..*self }.key(0));
            }
        }
        keys
    }
}

/// What all fragments of a datagram have in common, and where they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    pub ifindex: u32,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// In the order of the wire.
    pub identification: u32,
    pub protocol: u8,
}

impl Datagram {
    pub(crate) fn key(&self) -> FragmentKey {
        FragmentKey {
            ifindex: self.ifindex,
            source: ip(self.source),
            destination: ip(self.destination),
            identification: self.identification,
            protocol: self.protocol.into(),
        }
    }
}

/// How far a flow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowAge {
    /// Since its last packet, to the second.
    pub idle: Duration,
    /// Whether the kernel still has the instance that was chosen for it.
    pub has_backend: bool,
}

impl Tables {
    /// What is behind a service address; nothing if that is not known.
    pub fn service(&self, address: IpAddr) -> Result<Option<Service>, DatapathError> {
        let row = found(&self.services, &ip(address), map::SERVICES)?;
        row.map(|row| self.read_service(address, &row)).transpose()
    }

    /// The instance on another node that has this address, NsIP or instance address.
    pub fn host_of(&self, address: IpAddr) -> Result<Option<Backend>, DatapathError> {
        let Some(number) = found(&self.hosts, &ip(address), map::HOSTS)? else { return Ok(None) };
        let row = self.backend(number)?;
        Ok((row.in_use() && row.owns(ip(address))).then(|| from_backend(&row)))
    }

    /// The largest inner packet on the way that a packet of a container at `ifindex` takes to another node; nothing if it
    /// takes none.
    pub fn mtu(&self, ifindex: u32, sent: &Arrival) -> Result<Option<u16>, DatapathError> {
        let number = match found(&self.flows, &sent.key(ifindex), map::FLOWS)? {
            Some(flow) => Some(flow.backend),
            // What goes to an NsIP is of no flow.
            None => found(&self.hosts, &ip(sent.destination), map::HOSTS)?,
        };
        let row = number.map(|number| self.backend(number)).transpose()?;
        Ok(row.filter(|row| row.in_use()).map(|row| row.mtu))
    }

    /// The number under which the tables have this backend.
    pub(in crate::datapath) fn number_of(&self, backend: &Backend) -> Result<Option<u32>, DatapathError> {
        let Some(number) = found(&self.hosts, &ip(backend.ns_ip.into()), map::HOSTS)? else {
            return Ok(None);
        };
        let row = self.backend(number)?;
        Ok((row.in_use() && from_backend(&row) == *backend).then_some(number))
    }

    /// Whether a node with this address is known.
    pub fn knows_peer(&self, node: IpAddr) -> Result<bool, DatapathError> {
        Ok(found(&self.peers, &map::Peer::node(ip(node)), map::PEERS)?.is_some())
    }

    /// Whether a node's tunnel is known to be there.
    pub fn listens(&self, node: SocketAddr) -> Result<bool, DatapathError> {
        let key = map::Peer::listening(ip(node.ip()), Be16::new(node.port()));
        Ok(found(&self.peers, &key, map::PEERS)?.is_some())
    }

    /// The instance address of the container of this node that has this NsIP: `None` if there is no such container,
    /// `Some(None)` if it has none yet.
    pub fn instance_ip(&self, ns_ip: IpAddr) -> Result<Option<Option<IpAddr>>, DatapathError> {
        let row = self.endpoint(ip(ns_ip))?;
        Ok(row.map(|row| (!row.instance_ip.is_none()).then(|| from_ip(row.instance_ip))))
    }

    /// The service address that the receiver of an arriving packet had dialled, if the packet is an answer.
    pub fn dialled(&self, arrival: &Arrival) -> Result<Option<IpAddr>, DatapathError> {
        let flow = found(&self.flows, &arrival.key(0), map::FLOWS)?;
        Ok(flow.map(|flow| from_ip(flow.source)))
    }

    /// Whether the first fragment of this datagram has come, a short while ago.
    pub fn has_begun(&self, datagram: &Datagram) -> Result<bool, DatapathError> {
        let first = found(&self.fragments, &datagram.key(), map::FRAGMENTS)?;
        Ok(first
            .is_some_and(|first| flow::idle(monotonic_seconds(), first.since) <= flow::FRAGMENTS_LIFETIME))
    }

    /// The age of a container's flow; nothing if there is none.
    pub fn age(&self, ifindex: u32, sent: &Arrival) -> Result<Option<FlowAge>, DatapathError> {
        let Some(flow) = found(&self.flows, &sent.key(ifindex), map::FLOWS)? else { return Ok(None) };
        let row = self.backend(flow.backend)?;
        let idle = flow::idle(monotonic_seconds(), flow.last_seen);
        Ok(Some(FlowAge {
            idle: Duration::from_secs(idle.into()),
            has_backend: row.in_use() && row.generation == flow.generation,
        }))
    }

    /// The source that packets of a container's flow get, and the instance that they go to; nothing if there is no such
    /// flow or the instance is gone.
    pub fn translation(
        &self,
        ifindex: u32,
        sent: &Arrival,
    ) -> Result<Option<(IpAddr, Backend)>, DatapathError> {
        let Some(flow) = found(&self.flows, &sent.key(ifindex), map::FLOWS)? else { return Ok(None) };
        let row = self.backend(flow.backend)?;
        let live = row.in_use() && row.generation == flow.generation;
        Ok(live.then(|| (from_ip(flow.source), from_backend(&row))))
    }
}

/// The gateway of the container that has this NsIP.
#[must_use]
pub fn gateway_of(ns_ip: IpAddr) -> IpAddr {
    from_ip(ip(ns_ip).gateway())
}
