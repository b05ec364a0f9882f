//! The tables for other tasks to read: the answers of [`crate::datapath::Tables`], about this process's memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netmanager_common::wire::Ip;
use netmanager_common::{flow, map};

use super::engine::Engine;
use super::moment::now;
use super::rehearsal::Rehearsal;
use super::tables::{self, Tables};
use super::trace::Watch;
use crate::datapath::{
    Arrival, Backend, Datagram, Endpoint, Flow, FlowAge, Policy, Ranges, Reading, Service, TraceFilter,
    endpoints_of, flow_of, from_backend, from_ip, ip, numbers, resting,
};

/// Reads what [`super::Datapath`] writes.
#[derive(Debug, Clone)]
pub(crate) struct Reader(Arc<Engine>);

impl Reader {
    pub(super) fn new(engine: &Arc<Engine>) -> Self {
        Self(Arc::clone(engine))
    }

    /// To try packets on a copy of the tables.
    pub(crate) fn rehearse(&self) -> Rehearsal {
        Rehearsal::of(&self.0)
    }

    /// To be told what becomes of packets; nothing if somebody else is.
    pub(crate) fn watch(&self, filter: &TraceFilter) -> Option<Watch> {
        Watch::open(&self.0, filter)
    }

    pub(crate) fn ranges(&self) -> Ranges {
        Ranges(self.0.tables().plan)
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.veths(map::CONTAINER)
    }

    pub(crate) fn node_itself(&self) -> Option<Endpoint> {
        self.veths(map::NODE_ITSELF).into_iter().next()
    }

    fn veths(&self, holder: u32) -> Vec<Endpoint> {
        endpoints_of(self.0.tables().endpoints.values().copied().filter(|row| row.veth.holder == holder))
    }

    pub(crate) fn services(&self) -> Vec<Service> {
        let tables = self.0.tables();
        let services = tables.services.iter();
        let services = services.map(|(address, service)| service_of(&tables, from_ip(*address), service));
        let mut services: Vec<_> = services.collect();
        services.sort_by_key(|service| service.service_ip);
        services
    }

    pub(crate) fn flows(&self) -> Vec<Flow> {
        let tables = self.0.tables();
        let now = now().seconds();
        let flow = |(key, row)| {
            flow_of(&key, &row, |number| tables.backend(number).copied().unwrap_or_default(), now)
        };
        let mut flows: Vec<_> = self.0.memory.flows.all().into_iter().filter_map(flow).collect();
        flows.sort_by_key(|flow| (flow.client, flow.service, flow.transport));
        flows
    }

    /// As [`crate::datapath::Tables::turns_taken`].
    pub(crate) fn turns_taken(&self, service_ip: IpAddr) -> u32 {
        self.0.tables().services.get(&ip(service_ip)).map_or(0, tables::Service::turns_taken)
    }

    /// As [`crate::datapath::Tables::round_trip`].
    pub(crate) fn round_trip(&self, backend: &Backend) -> Option<Duration> {
        let tables = self.0.tables();
        Reading::of(&tables.health(tables.number_of(backend)?), 0).round_trip
    }

    pub(crate) fn service(&self, address: IpAddr) -> Option<Vec<Backend>> {
        let tables = self.0.tables();
        let service = tables.services.get(&ip(address))?;
        let rows = numbers(&service.row).filter_map(|number| tables.backend(number.into()));
        Some(rows.filter(|row| row.in_use()).map(from_backend).collect())
    }

    pub(crate) fn host_of(&self, address: IpAddr) -> Option<Backend> {
        let tables = self.0.tables();
        let row = tables.owner(&ip(address))?;
        (row.in_use() && row.owns(ip(address))).then(|| from_backend(row))
    }

    pub(crate) fn knows_peer(&self, node: IpAddr) -> bool {
        self.0.tables().knows_peer(ip(node))
    }

    pub(crate) fn instance_ip(&self, ns_ip: IpAddr) -> Option<Option<IpAddr>> {
        let tables = self.0.tables();
        let row = tables.endpoints.get(&ip(ns_ip))?;
        Some(some(row.instance_ip))
    }

    pub(crate) fn dialled(&self, arrival: &Arrival) -> Option<IpAddr> {
        self.0.memory.flows.get(&arrival.key(0)).map(|flow| from_ip(flow.source))
    }

    pub(crate) fn translation(&self, ifindex: u32, sent: &Arrival) -> Option<(IpAddr, Backend)> {
        let flow = self.0.memory.flows.get(&sent.key(ifindex))?;
        let tables = self.0.tables();
        let row = tables.backend(flow.backend)?;
        let live = row.in_use() && row.generation == flow.generation;
        live.then(|| (from_ip(flow.source), from_backend(row)))
    }

    pub(crate) fn age(&self, ifindex: u32, sent: &Arrival) -> Option<FlowAge> {
        let flow = self.0.memory.flows.get(&sent.key(ifindex))?;
        let tables = self.0.tables();
        let row = tables.backend(flow.backend);
        Some(FlowAge {
            idle: Duration::from_secs(flow::idle(now().seconds(), flow.last_seen).into()),
            has_backend: row.is_some_and(|row| row.in_use() && row.generation == flow.generation),
        })
    }

    pub(crate) fn mtu(&self, ifindex: u32, sent: &Arrival) -> Option<u16> {
        let tables = self.0.tables();
        let row = match self.0.memory.flows.get(&sent.key(ifindex)) {
            Some(flow) => tables.backend(flow.backend)?,
            // What goes to an NsIP is of no flow.
            None => tables.owner(&ip(sent.destination))?,
        };
        row.in_use().then_some(row.mtu)
    }

    pub(crate) fn has_begun(&self, datagram: &Datagram) -> bool {
        self.0
            .memory
            .fragments
            .get(&datagram.key())
            .is_some_and(|first| flow::idle(now().seconds(), first.since) <= flow::FRAGMENTS_LIFETIME)
    }
}

/// A service as people know it.
pub(super) fn service_of(tables: &Tables, address: IpAddr, service: &tables::Service) -> Service {
    let backends = |numbers: &mut dyn Iterator<Item = u16>| {
        let rows = numbers.filter_map(|number| tables.backend(number.into()));
        rows.filter(|row| row.in_use()).map(from_backend).collect()
    };
    Service {
        service_ip: address,
        policy: Policy::try_from(service.row.policy).unwrap_or(Policy::RoundRobin),
        backends: backends(&mut numbers(&service.row)),
        resting: backends(&mut resting(&service.row)),
    }
}

fn some(address: Ip) -> Option<IpAddr> {
    (!address.is_none()).then(|| from_ip(address))
}
