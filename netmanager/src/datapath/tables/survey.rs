//! What the tables say of themselves as a whole.

use std::net::{IpAddr, SocketAddr};

use netmanager_common::map;

use super::{Tables, found, from_ip, ip, reading, rows};
use crate::datapath::paths::{Egress, Paths};
use crate::datapath::{DatapathError, FROM_CONTAINER, FROM_SLOW_PATH, FROM_UPLINK, interface, slots};

impl Tables {
    /// How many connections to a service address have taken a turn; 0 of one that has a single instance.
    pub fn turns_taken(&self, service_ip: IpAddr) -> Result<u32, DatapathError> {
        Ok(found(&self.turns, &ip(service_ip), map::TURNS)?.unwrap_or_default())
    }

    /// Where the nodes that this one talks to listen.
    pub fn peers(&self) -> Result<Vec<SocketAddr>, DatapathError> {
        let rows = rows(&self.peers, map::PEERS)?.into_iter();
        let listening = rows.map(|(peer, _)| SocketAddr::new(from_ip(peer.address), peer.port.get()));
        // The entry with port 0 stands for the node as such.
        let mut peers: Vec<_> = listening.filter(|peer| peer.port() != 0).collect();
        peers.sort_unstable();
        Ok(peers)
    }

    /// The interfaces that the tables name, each with the program that belongs there.
    pub fn interfaces(&self) -> Result<Vec<(u32, &'static str)>, DatapathError> {
        let mut interfaces: Vec<_> =
            self.uplinks()?.into_iter().map(|uplink| (uplink, FROM_UPLINK)).collect();
        interfaces.extend(self.endpoints()?.iter().map(|endpoint| (endpoint.ifindex, FROM_CONTAINER)));
        interfaces.extend(self.node_itself()?.map(|itself| (itself.ifindex, FROM_CONTAINER)));
        let slow_path = self.slow_path.get(&0, 0).map_err(reading(map::SLOW_PATH))?;
        interfaces.extend((slow_path != 0).then_some((slow_path, FROM_SLOW_PATH)));
        Ok(interfaces)
    }

    /// The interfaces at which packets of other nodes may arrive.
    pub fn uplinks(&self) -> Result<Vec<u32>, DatapathError> {
        let node = self.node.get(&0, 0).map_err(reading(map::NODE))?;
        Ok(slots::taken(&node.uplinks).collect())
    }

    /// What an earlier process has learned of the paths to other nodes.
    pub(crate) fn paths(&self) -> Result<Paths, DatapathError> {
        let mut paths = Paths::default();
        let node = self.node.get(&0, 0).map_err(reading(map::NODE))?;
        match (interface::mtu(node.uplink_ifindex), slots::of(&node.uplinks, node.uplink_ifindex)) {
            (Ok(mtu), Some(slot)) => paths.set_uplink(slot, mtu),
            // Of an uplink that has gone, or none yet, there is nothing to compare with.
            _ => return Ok(paths),
        }
        for row in self.backends.iter() {
            let row = row.map_err(reading(map::BACKENDS))?;
            if row.generation == 0 {
                break;
            }
            if row.in_use() {
                let (peer, ifindex) = (from_ip(row.node), node.egress_to(&row));
                if ifindex != node.uplink_ifindex
                    && let Ok(mtu) = interface::mtu(ifindex)
                {
                    paths.set_egress(peer, Some(Egress { ifindex, slot: row.egress, mtu }));
                }
                paths.adopt(peer, row.mtu, row.link());
            }
        }
        Ok(paths)
    }
}
