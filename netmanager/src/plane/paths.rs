//! What the measuring of paths needs of a data plane: of the one that a node has, or of the kernel's by itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Plane, PlaneError};
use crate::datapath::{Datapath, Node};

/// See [`Datapath`] and [`crate::datapath::Tables`] for what the verbs do.
#[expect(clippy::missing_errors_doc, reason = "as there")]
pub trait PathTable {
    fn node(&self) -> Result<Option<Node>, PlaneError>;
    fn listens(&self, node: SocketAddr) -> Result<bool, PlaneError>;
    fn uplink_mtu(&self) -> u32;
    fn largest_to(&self, node: IpAddr) -> u16;
    fn peers(&self) -> BTreeSet<IpAddr>;
    fn peers_in_use(&self, within: Duration) -> Result<BTreeSet<IpAddr>, PlaneError>;
    fn narrow_paths(&self) -> Vec<(IpAddr, u16)>;
    fn set_path_mtu(&mut self, node: IpAddr, mtu: Option<u16>) -> Result<(), PlaneError>;
}

impl PathTable for Datapath {
    fn node(&self) -> Result<Option<Node>, PlaneError> {
        Ok(self.tables().node()?)
    }

    fn listens(&self, node: SocketAddr) -> Result<bool, PlaneError> {
        Ok(self.tables().listens(node)?)
    }

    fn uplink_mtu(&self) -> u32 {
        self.uplink_mtu()
    }

    fn largest_to(&self, node: IpAddr) -> u16 {
        self.largest_to(node)
    }

    fn peers(&self) -> BTreeSet<IpAddr> {
        self.peers().collect()
    }

    fn peers_in_use(&self, within: Duration) -> Result<BTreeSet<IpAddr>, PlaneError> {
        Ok(self.peers_in_use(within)?)
    }

    fn narrow_paths(&self) -> Vec<(IpAddr, u16)> {
        self.narrow_paths()
    }

    fn set_path_mtu(&mut self, node: IpAddr, mtu: Option<u16>) -> Result<(), PlaneError> {
        Ok(self.set_path_mtu(node, mtu)?)
    }
}

impl PathTable for Plane {
    fn node(&self) -> Result<Option<Node>, PlaneError> {
        self.node()
    }

    fn listens(&self, node: SocketAddr) -> Result<bool, PlaneError> {
        match self {
            Self::Ebpf(datapath) => PathTable::listens(&**datapath, node),
            Self::Userspace(datapath) => Ok(datapath.control().peers().contains(&node)),
        }
    }

    fn uplink_mtu(&self) -> u32 {
        match self {
            Self::Ebpf(datapath) => datapath.uplink_mtu(),
            Self::Userspace(datapath) => datapath.control().uplink_mtu(),
        }
    }

    fn largest_to(&self, node: IpAddr) -> u16 {
        match self {
            Self::Ebpf(datapath) => datapath.largest_to(node),
            Self::Userspace(datapath) => datapath.control().largest_to(node),
        }
    }

    fn peers(&self) -> BTreeSet<IpAddr> {
        self.peers()
    }

    fn peers_in_use(&self, within: Duration) -> Result<BTreeSet<IpAddr>, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.peers_in_use(within)?),
            Self::Userspace(datapath) => Ok(datapath.control().nodes_in_use(within)),
        }
    }

    fn narrow_paths(&self) -> Vec<(IpAddr, u16)> {
        match self {
            Self::Ebpf(datapath) => datapath.narrow_paths(),
            Self::Userspace(datapath) => datapath.control().narrow_paths(),
        }
    }

    fn set_path_mtu(&mut self, node: IpAddr, mtu: Option<u16>) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.set_path_mtu(node, mtu)?),
            Self::Userspace(datapath) => {
                datapath.set_path_mtu(node, mtu);
                Ok(())
            }
        }
    }
}
