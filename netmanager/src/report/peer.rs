//! The other nodes: how far away they are, and what gets there.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netmanager_common::link::Link;
use serde::{Deserialize, Serialize};

use crate::datapath::paths::Paths;
use crate::datapath::{Backend, Node, Service};

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where it listens.
    pub node: SocketAddr,
    /// Instances on it that this node knows.
    pub instances: usize,
    /// The time until the first answer of an instance there, smoothed, of several the shortest, in microseconds. Nothing
    /// before a connection or a probe has measured it.
    #[serde(default)]
    pub round_trip_us: Option<u64>,
    /// The largest packet of a container that gets there: bytes of IP.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// What the underlay carries to there, if that is less than what the uplink does: bytes of IP, outer headers included.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Whether packets go there in VXLAN's format, which the other node's kernel merges.
    #[serde(default)]
    pub vx: bool,
}

/// Those that are not this node itself, whose instances are in the tables, too.
pub(super) fn others(mut nodes: Vec<SocketAddr>, own: Option<Node>) -> Vec<SocketAddr> {
    if let Some(Node { addresses, .. }) = own {
        let own = [addresses.v4.map(IpAddr::V4), addresses.v6.map(IpAddr::V6)];
        nodes.retain(|node| !own.contains(&Some(node.ip())));
    }
    nodes
}

/// The nodes that listen there, with the instances that services name on them.
pub(super) fn all(
    nodes: Vec<SocketAddr>,
    services: &[Service],
    round_trip: impl Fn(&Backend) -> Option<Duration>,
    paths: &Paths,
) -> Vec<Peer> {
    let backends = services.iter().flat_map(|service| service.backends.iter().chain(&service.resting));
    // One instance is behind several addresses.
    let known: HashSet<_> = backends.collect();
    let narrow: Vec<_> = paths.narrow().collect();
    let peer = |node: SocketAddr| {
        let there = || known.iter().filter(|backend| backend.node == node);
        let nearest = there().filter_map(|backend| round_trip(backend)).min();
        let path_mtu = narrow.iter().find(|(address, _)| *address == node.ip()).map(|(_, mtu)| *mtu);
        Peer {
            node,
            instances: there().count(),
            round_trip_us: nearest.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            mtu: Some(paths.inner_mtu(node.ip())),
            path_mtu,
            vx: paths.link(node.ip()) == Link::Vx,
        }
    };
    nodes.into_iter().map(peer).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use netmanager_common::link::Link;

    use super::{Peer, all};
    use crate::datapath::paths::Paths;
    use crate::datapath::{Backend, Policy, Service};

    fn backend(node: SocketAddr, number: u8) -> Backend {
        Backend {
            ns_ip: Ipv4Addr::new(10, 18, 0, number),
            ns_ip6: None,
            instance_ip: Ipv4Addr::new(10, 30, 0, number),
            instance_ip6: None,
            node,
        }
    }

    #[test]
    fn a_node_is_as_far_away_as_its_closest_instance_and_the_rest_of_it_counts_once() {
        let [near, unknown] = [2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 50103)));
        let service = |policy, last| Service {
            service_ip: Ipv4Addr::new(10, 30, 9, last).into(),
            policy,
            backends: vec![backend(near, 1), backend(near, 2)],
            resting: vec![backend(near, 3)],
        };
        let services = [service(Policy::RoundRobin, 1), service(Policy::Closest, 2)];
        let round_trip = |backend: &Backend| match backend.ns_ip.octets()[3] {
            1 => None,
            number => Some(Duration::from_millis(number.into())),
        };
        let mut paths = Paths::default();
        paths.set_uplink(0, 1500);
        paths.set(near.ip(), Some(1400));
        for node in [near, unknown] {
            paths.set_link(node.ip(), Link::Vx);
        }
        let expected = [
            Peer {
                node: near,
                instances: 3,
                round_trip_us: Some(2000),
                mtu: Some(1372),
                path_mtu: Some(1400),
                vx: false,
            },
            Peer {
                node: unknown,
                instances: 0,
                round_trip_us: None,
                mtu: Some(1450),
                path_mtu: None,
                vx: true,
            },
        ];
        assert_eq!(all(vec![near, unknown], &services, round_trip, &paths), expected);
    }
}
