//! A node with two containers, and others that it knows over IPv4 and over IPv6; every address that means something to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aya::Pod;
use aya::maps::{HashMap, MapData};
use netmanager::datapath::{Addresses, Backend, Endpoint, Policy};
use netmanager_common::map::{ASSURED, FLOWS, FRAGMENTS, Flow, FlowKey, FragmentKey, FragmentPorts};

use crate::bed::{Bed, CLIENT, NEIGHBOUR, NODE, PEER, SERVER, SERVICE, TUNNEL_PORT};

const LOOPBACK: u32 = 1;

pub(crate) const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(crate) const SERVICE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0x2000, 0, 0, 0, 0, 0, 9);
/// A service without instances.
pub(crate) const EMPTY: Ipv4Addr = Ipv4Addr::new(10, 30, 2, 11);

/// The containers of the node, each with both families.
pub(crate) const CONTAINERS: [Endpoint; 2] = [
    Endpoint { ns_ip6: Some(ns_ip6(1, 2)), instance_ip6: Some(instance_ip6(0x11)), ..CLIENT },
    Endpoint { ns_ip6: Some(ns_ip6(1, 3)), instance_ip6: Some(instance_ip6(0x12)), ..NEIGHBOUR },
];

/// The instances: over IPv4, over IPv6, and on this node.
pub(crate) const INSTANCES: [Backend; 3] = [
    Backend { ns_ip6: Some(ns_ip6(2, 2)), instance_ip6: Some(instance_ip6(0x13)), ..SERVER },
    Backend {
        ns_ip: Ipv4Addr::new(10, 18, 3, 2),
        ns_ip6: Some(ns_ip6(3, 2)),
        instance_ip: Ipv4Addr::new(10, 30, 13, 10),
        instance_ip6: Some(instance_ip6(0x14)),
        node: SocketAddr::new(IpAddr::V6(PEER6), TUNNEL_PORT + 1),
    },
    Backend {
        ns_ip: NEIGHBOUR.ns_ip,
        ns_ip6: CONTAINERS[1].ns_ip6,
        instance_ip: Ipv4Addr::new(10, 30, 11, 11),
        instance_ip6: CONTAINERS[1].instance_ip6,
        node: SocketAddr::new(IpAddr::V4(NODE), TUNNEL_PORT),
    },
];

const fn ns_ip6(node: u16, container: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, node << 8 | container)
}

const fn instance_ip6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, last)
}

pub(crate) struct World {
    pub(crate) bed: Bed,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut bed = Bed::empty();
        bed.within(|datapath| {
            datapath.set_node(Addresses { v4: Some(NODE), v6: Some(NODE6) }, LOOPBACK)?;
            for container in &CONTAINERS {
                datapath.attach_endpoint(container)?;
            }
            for instance in &INSTANCES {
                let own = [Some(instance.instance_ip.into()), instance.instance_ip6.map(IpAddr::V6)];
                for address in own.into_iter().flatten() {
                    datapath.publish_service(address, Policy::Instance, &[*instance])?;
                }
            }
            datapath.publish_service(SERVICE, Policy::RoundRobin, &INSTANCES)?;
            datapath.publish_service(SERVICE6, Policy::RoundRobin, &INSTANCES)?;
            datapath.publish_service(EMPTY, Policy::RoundRobin, &[])
        });
        Self { bed }
    }

    /// So that a round does not depend on those before it, nor on how long they took.
    pub(crate) fn forget_packets(&self) {
        for table in [FLOWS, ASSURED] {
            forget_all(self.bed.table::<FlowKey, Flow>(table));
        }
        forget_all(self.bed.table::<FragmentKey, FragmentPorts>(FRAGMENTS));
    }
}

fn forget_all<K: Pod, V: Pod>(mut table: HashMap<MapData, K, V>) {
    let keys: Vec<_> = table.keys().collect::<Result<_, _>>().unwrap();
    for key in keys {
        table.remove(&key).unwrap();
    }
}

/// Addresses that the programs tell apart.
pub(crate) const ADDRESSES4: [Ipv4Addr; 20] = [
    SERVICE,
    SERVICE,
    INSTANCES[0].instance_ip,
    INSTANCES[1].instance_ip,
    INSTANCES[2].instance_ip,
    INSTANCES[0].ns_ip,
    INSTANCES[1].ns_ip,
    CLIENT.ns_ip,
    NEIGHBOUR.ns_ip,
    EMPTY,
    Ipv4Addr::new(10, 30, 99, 99),
    Ipv4Addr::new(10, 30, 11, 10),
    Ipv4Addr::new(10, 18, 9, 9),
    Ipv4Addr::new(10, 18, 1, 1),
    NODE,
    PEER,
    Ipv4Addr::new(203, 0, 113, 1),
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::BROADCAST,
    Ipv4Addr::new(224, 0, 0, 1),
];

/// The same of IPv6. An IPv4 address in its mapped form is none of the overlay's.
pub(crate) const ADDRESSES6: [Ipv6Addr; 20] = [
    SERVICE6,
    SERVICE6,
    instance_ip6(0x11),
    instance_ip6(0x12),
    instance_ip6(0x13),
    instance_ip6(0x14),
    ns_ip6(1, 2),
    ns_ip6(1, 3),
    ns_ip6(2, 2),
    ns_ip6(3, 2),
    ns_ip6(9, 9),
    ns_ip6(1, 1),
    SERVICE.to_ipv6_mapped(),
    CLIENT.ns_ip.to_ipv6_mapped(),
    NEIGHBOUR.ns_ip.to_ipv6_mapped(),
    INSTANCES[0].ns_ip.to_ipv6_mapped(),
    NODE6,
    PEER6,
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::UNSPECIFIED,
];
