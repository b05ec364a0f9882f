//! The tables for the slow path to read: the answers of [`crate::datapath::Tables`], about this process's memory.

use std::net::IpAddr;
use std::sync::Arc;

use netmanager_common::wire::Ip;

use super::engine::Engine;
use crate::datapath::{Arrival, Backend, from_backend, from_ip, ip, numbers};

/// Reads what [`super::Datapath`] writes.
#[derive(Debug, Clone)]
pub(crate) struct Reader(Arc<Engine>);

impl Reader {
    pub(super) fn new(engine: &Arc<Engine>) -> Self {
        Self(Arc::clone(engine))
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

    pub(crate) fn mtu(&self, ifindex: u32, sent: &Arrival) -> Option<u16> {
        let destination = ip(sent.destination);
        let tables = self.0.tables();
        let row = if destination.is_service() {
            tables.backend(self.0.memory.flows.get(&sent.key(ifindex))?.backend)?
        } else {
            tables.owner(&destination)?
        };
        row.in_use().then_some(row.mtu)
    }
}

fn some(address: Ip) -> Option<IpAddr> {
    (!address.is_none()).then(|| from_ip(address))
}
