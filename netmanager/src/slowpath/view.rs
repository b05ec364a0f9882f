//! The kernel's tables as decisions see them.

use std::net::IpAddr;

use super::decide::View;
use crate::datapath::{Arrival, Backend, DatapathError, Tables};
use crate::error::chain;

impl View for Tables {
    fn service(&self, address: IpAddr) -> Option<Vec<Backend>> {
        read(self.service(address)).map(|service| service.backends)
    }

    fn host_of(&self, address: IpAddr) -> Option<Backend> {
        read(self.host_of(address))
    }

    fn knows_peer(&self, node: IpAddr) -> bool {
        read(self.knows_peer(node).map(Some)).unwrap_or(false)
    }

    fn instance_ip(&self, ns_ip: IpAddr) -> Option<Option<IpAddr>> {
        read(self.instance_ip(ns_ip))
    }

    fn dialled(&self, arrival: &Arrival) -> Option<IpAddr> {
        read(self.dialled(arrival))
    }

    fn translation(&self, ifindex: u32, sent: &Arrival) -> Option<(IpAddr, Backend)> {
        read(self.translation(ifindex, sent))
    }

    fn mtu(&self, ifindex: u32, sent: &Arrival) -> Option<u16> {
        read(self.mtu(ifindex, sent))
    }
}

fn read<T>(result: Result<Option<T>, DatapathError>) -> Option<T> {
    result.unwrap_or_else(|error| {
        tracing::debug!(error = chain(&error), "the slow path cannot read a table");
        None
    })
}
