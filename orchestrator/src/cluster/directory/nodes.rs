//! The workers themselves, whose own processes speak to services: by the NsIPs under which they do.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::net::{NodeItself, TableInstance};

/// How long the root's word on a node of another cluster is believed: nobody tells when it changes.
pub(super) const BELIEVED_FOR: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Nodes {
    here: HashMap<Id, NodeItself>,
    by_address: HashMap<IpAddr, Id>,
    /// Those of other clusters that somebody here has asked for, and when the root was asked last.
    elsewhere: HashMap<IpAddr, (NodeItself, Instant)>,
}

impl Nodes {
    /// Notes where a worker's own processes are reached. Gives the NsIPs whose entry is another one now.
    pub(super) fn set(&mut self, worker: Id, itself: &NodeItself) -> Vec<IpAddr> {
        if self.here.get(&worker) == Some(itself) {
            return Vec::new();
        }
        self.forget(worker);
        self.here.insert(worker, itself.clone());
        let v6 = itself.nsipv6.map(IpAddr::V6);
        let addresses: Vec<_> = std::iter::once(IpAddr::V4(itself.nsip)).chain(v6).collect();
        self.by_address.extend(addresses.iter().map(|address| (*address, worker)));
        addresses
    }

    /// Whose NsIP this is, as workers get it.
    pub(super) fn find(&self, ns_ip: IpAddr) -> Option<TableInstance> {
        if let Some(worker) = self.by_address.get(&ns_ip) {
            return self.of(*worker).map(|itself| entry(Some(*worker), itself));
        }
        self.elsewhere.get(&ns_ip).map(|(itself, _)| entry(None, itself))
    }

    pub(super) fn of(&self, worker: Id) -> Option<&NodeItself> {
        self.here.get(&worker)
    }

    pub(super) fn forget(&mut self, worker: Id) {
        self.here.remove(&worker);
        self.by_address.retain(|_, owner| *owner != worker);
    }

    /// Notes what the root says of this NsIP. Says whether it is another word than before.
    pub(super) fn set_elsewhere(&mut self, ns_ip: IpAddr, itself: Option<NodeItself>, now: Instant) -> bool {
        let before = match itself.clone() {
            Some(itself) => self.elsewhere.insert(ns_ip, (itself, now)),
            None => self.elsewhere.remove(&ns_ip),
        };
        before.map(|(itself, _)| itself) != itself
    }

    pub(super) fn forget_elsewhere(&mut self, ns_ip: IpAddr) {
        self.elsewhere.remove(&ns_ip);
    }

    /// The NsIPs of which the root is to be asked again, each once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let is_due = |asked: &Instant| now.saturating_duration_since(*asked) >= BELIEVED_FOR;
        let due = self.elsewhere.iter_mut().filter(|(_, (_, asked))| is_due(asked));
        due.map(|(ns_ip, (_, asked))| {
            *asked = now;
            *ns_ip
        })
        .collect()
    }
}

/// As workers get it: with neither a service nor a ServiceIP.
fn entry(worker: Option<Id>, itself: &NodeItself) -> TableInstance {
    TableInstance {
        instance_number: 0,
        instance_ip: None,
        instance_ip_v6: None,
        cluster_id: None,
        worker_id: worker,
        namespace_ip: Some(itself.nsip.to_string()),
        namespace_ip_v6: itself.nsipv6.map(|address| address.to_string()),
        host_ip: Some(itself.host_ip.to_string()),
        host_port: itself.host_port,
        links: itself.links,
        kilometres: None,
        busy: false,
        service_ip: Vec::new(),
    }
}
