//! Writing the tables of services: the steps of the registry, one system call each.

use std::net::SocketAddr;

use aya::maps::MapError;
use netmanager_common::health::Health;
use netmanager_common::map;
use netmanager_common::wire::Be16;

use super::{Tables, backend_row, ip, service_row, table};
use crate::datapath::DatapathError;
use crate::datapath::paths::Paths;
use crate::datapath::registry::{Row, Step};

impl Tables {
    /// Takes one step.
    pub(in crate::datapath) fn apply(&mut self, step: &Step, paths: &Paths) -> Result<(), DatapathError> {
        match step {
            Step::AddPeer(node) => written(self.peers.insert(peer(node), 1, 0), map::PEERS),
            Step::RemovePeer(node) => removed(self.peers.remove(&peer(node)), map::PEERS),
            Step::ClearHealth(number) => {
                written(self.loads.set((*number).into(), 0, 0), map::LOADS)?;
                written(self.health.set((*number).into(), Health::default(), 0), map::HEALTH)
            }
            &Step::SetBackend { number, generation, backend, aside } => {
                self.set_backend(Row { number, generation, backend, aside }, paths)
            }
            Step::SetHost { address, number } => {
                written(self.hosts.insert(ip(*address), u32::from(*number), 0), map::HOSTS)
            }
            Step::RemoveHost(address) => removed(self.hosts.remove(&ip(*address)), map::HOSTS),
            Step::SetService { service_ip, policy, numbers, resting } => {
                let key = ip(*service_ip);
                match self.turns.insert(key, 0, BPF_NOEXIST) {
                    // It keeps its turn.
                    Err(MapError::SyscallError(error))
                        if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
                    result => written(result, map::TURNS)?,
                }
                let node = self.node.get(&0, 0).map_err(table("read", map::NODE))?;
                let row = service_row(&node, key, *policy, numbers, resting);
                written(self.services.insert(key, row, 0), map::SERVICES)
            }
            Step::RemoveService(service_ip) => {
                removed(self.services.remove(&ip(*service_ip)), map::SERVICES)?;
                removed(self.turns.remove(&ip(*service_ip)), map::TURNS)
            }
        }
    }

    /// Writes the row of a number.
    pub(in crate::datapath) fn set_backend(&mut self, row: Row, paths: &Paths) -> Result<(), DatapathError> {
        let number = row.number.into();
        written(self.backends.set(number, backend_row(row, paths), 0), map::BACKENDS)
    }
}

fn peer(node: &SocketAddr) -> map::Peer {
    map::Peer::listening(ip(node.ip()), Be16::new(node.port()))
}

/// Update flag: only if there is no such entry.
const BPF_NOEXIST: u64 = 1;

/// Removing what is not there is no failure.
pub(in crate::datapath) fn removed(
    result: Result<(), MapError>,
    name: &'static str,
) -> Result<(), DatapathError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(table("remove from", name)),
    }
}

fn written(result: Result<(), MapError>, name: &'static str) -> Result<(), DatapathError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
            Err(full(name))
        }
        result => result.map_err(table("write", name)),
    }
}

pub(crate) fn full(name: &'static str) -> DatapathError {
    let capacity = match name {
        map::ENDPOINTS => map::MAX_ENDPOINTS,
        map::BACKENDS => map::MAX_BACKENDS,
        map::HOSTS => map::MAX_HOSTS,
        map::PEERS => map::MAX_PEERS,
        _ => map::MAX_SERVICES,
    };
    DatapathError::Full { table: name, capacity }
}
