//! The tables as decisions see them.

use std::net::IpAddr;

use super::decide::View;
use crate::datapath::{Arrival, Backend, Datagram, DatapathError};
use crate::error::chain;
use crate::plane::Reader;

impl View for Reader {
    fn service(&self, address: IpAddr) -> Option<Vec<Backend>> {
        match self {
            Self::Ebpf(tables) => read(tables.service(address)).map(|service| service.backends),
            Self::Userspace(tables) => tables.service(address),
        }
    }

    fn is_container(&self, address: IpAddr) -> bool {
        match self {
            Self::Ebpf(tables) => read(tables.ranges().map(Some)).is_some_and(|it| it.is_container(address)),
            Self::Userspace(tables) => tables.ranges().is_container(address),
        }
    }

    fn host_of(&self, address: IpAddr) -> Option<Backend> {
        match self {
            Self::Ebpf(tables) => read(tables.host_of(address)),
            Self::Userspace(tables) => tables.host_of(address),
        }
    }

    fn knows_peer(&self, node: IpAddr) -> bool {
        match self {
            Self::Ebpf(tables) => read(tables.knows_peer(node).map(Some)).unwrap_or(false),
            Self::Userspace(tables) => tables.knows_peer(node),
        }
    }

    fn instance_ip(&self, ns_ip: IpAddr) -> Option<Option<IpAddr>> {
        match self {
            Self::Ebpf(tables) => read(tables.instance_ip(ns_ip)),
            Self::Userspace(tables) => tables.instance_ip(ns_ip),
        }
    }

    fn dialled(&self, arrival: &Arrival) -> Option<IpAddr> {
        match self {
            Self::Ebpf(tables) => read(tables.dialled(arrival)),
            Self::Userspace(tables) => tables.dialled(arrival),
        }
    }

    fn translation(&self, ifindex: u32, sent: &Arrival) -> Option<(IpAddr, Backend)> {
        match self {
            Self::Ebpf(tables) => read(tables.translation(ifindex, sent)),
            Self::Userspace(tables) => tables.translation(ifindex, sent),
        }
    }

    fn mtu(&self, ifindex: u32, sent: &Arrival) -> Option<u16> {
        match self {
            Self::Ebpf(tables) => read(tables.mtu(ifindex, sent)),
            Self::Userspace(tables) => tables.mtu(ifindex, sent),
        }
    }

    fn has_begun(&self, datagram: &Datagram) -> bool {
        match self {
            Self::Ebpf(tables) => read(tables.has_begun(datagram).map(Some)).unwrap_or(false),
            Self::Userspace(tables) => tables.has_begun(datagram),
        }
    }
}

fn read<T>(result: Result<Option<T>, DatapathError>) -> Option<T> {
    result.unwrap_or_else(|error| {
        tracing::debug!(error = chain(&error), "the slow path cannot read a table");
        None
    })
}
