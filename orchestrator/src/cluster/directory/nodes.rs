//! The workers themselves, whose own processes speak to services: by the NsIPs under which they do.

use std::collections::HashMap;
use std::net::IpAddr;

use protocol::id::Id;
use protocol::net::{NodeItself, TableInstance};

#[derive(Debug, Default)]
pub(super) struct Nodes {
    entries: HashMap<Id, NodeItself>,
    by_address: HashMap<IpAddr, Id>,
}

impl Nodes {
    /// Notes where a worker's own processes are reached. Gives the NsIPs whose entry is another one now.
    pub(super) fn set(&mut self, worker: Id, itself: &NodeItself) -> Vec<IpAddr> {
        if self.entries.get(&worker) == Some(itself) {
            return Vec::new();
        }
        self.forget(worker);
        self.entries.insert(worker, itself.clone());
        let v6 = itself.nsipv6.map(IpAddr::V6);
        let addresses: Vec<_> = std::iter::once(IpAddr::V4(itself.nsip)).chain(v6).collect();
        self.by_address.extend(addresses.iter().map(|address| (*address, worker)));
        addresses
    }

    /// Whose NsIP this is, as workers get it.
    pub(super) fn find(&self, ns_ip: IpAddr) -> Option<TableInstance> {
        let worker = *self.by_address.get(&ns_ip)?;
        self.of(worker).map(|itself| entry(worker, itself))
    }

    pub(super) fn of(&self, worker: Id) -> Option<&NodeItself> {
        self.entries.get(&worker)
    }

    pub(super) fn forget(&mut self, worker: Id) {
        self.entries.remove(&worker);
        self.by_address.retain(|_, owner| *owner != worker);
    }
}

/// As workers get it: with neither a service nor a ServiceIP.
fn entry(worker: Id, itself: &NodeItself) -> TableInstance {
    TableInstance {
        instance_number: 0,
        instance_ip: None,
        instance_ip_v6: None,
        cluster_id: None,
        worker_id: Some(worker),
        namespace_ip: Some(itself.nsip.to_string()),
        namespace_ip_v6: itself.nsipv6.map(|address| address.to_string()),
        host_ip: Some(itself.host_ip.to_string()),
        host_port: itself.host_port,
        links: itself.links,
        service_ip: Vec::new(),
    }
}
