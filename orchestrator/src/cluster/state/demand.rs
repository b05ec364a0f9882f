//! What is asked of the cluster: workers that join, instances to run and to remove.

use std::time::{Duration, Instant};

use protocol::connectivity::Connectivity;
use protocol::id::Id;
use protocol::node::Node;
use protocol::service::{Instance as Document, Service as ServiceDocument};

use super::{Service, State, encode, service_key, worker_key};
use crate::cluster::instance::{Instance, Phase};
use crate::cluster::worker::{Heard, Record, Worker};

/// Why something asked for is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::cluster) enum Refused {
    #[error("no service {0} in this cluster")]
    UnknownService(Id),
    #[error("no instance {number} of service {service} in this cluster")]
    UnknownInstance { service: Id, number: u32 },
    #[error("no worker {0} in this cluster")]
    UnknownWorker(Id),
    #[error("instance {number} of service {service} is being removed")]
    BeingRemoved { service: Id, number: u32 },
    #[error(
        "worker {host} is heard from (last {} s ago) and would join again: stop its node-engine and netmanager, and delete it \
         6 s later",
        silence.as_secs()
    )]
    IsHeard { host: String, silence: Duration },
    #[error("the broker is out of reach, so that it is not known whether worker {host} is gone")]
    HearsNobody { host: String },
}

impl State {
    /// A worker joins, or joins again: the same host name is the same worker.
    pub(in crate::cluster) fn register(
        &mut self,
        node: Node,
        new_id: impl FnOnce() -> Id,
        now: Instant,
    ) -> Id {
        let known = self.by_host.get(&node.host).copied();
        let id = known.unwrap_or_else(new_id);
        let worker = match self.workers.entry(id) {
            std::collections::btree_map::Entry::Occupied(entry) => {
                let worker = entry.into_mut();
                if worker.connected.is_some() && worker.node().ip != node.ip {
                    let (was, is) = (&worker.node().ip, &node.ip);
                    tracing::warn!(worker = %node.host, %was, %is, "a connected worker registers from another address; are there two machines of this name?");
                }
                worker.register(&node);
                tracing::info!(worker = %worker.host(), %id, "worker registered again");
                worker
            }
            std::collections::btree_map::Entry::Vacant(entry) => {
                tracing::info!(worker = %node.host, %id, ip = %node.ip, "worker registered");
                self.by_host.insert(node.host.clone(), id);
                entry.insert(Worker::new(
                    Record { id, node, subnet: None, cordoned: false, draining: false },
                    now,
                ))
            }
        };
        self.effects.keep.insert(worker_key(id), Some(encode(&worker.record)));
        // The root counts what the cluster has to offer.
        self.effects.report = true;
        self.room = true;
        self.heard(id, now);
        id
    }

    /// Something came from this worker.
    pub(super) fn heard(&mut self, id: Id, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        match worker.heard(now) {
            Heard::Still => {}
            Heard::InTime => {
                tracing::info!(worker = %worker.host(), %id, "worker is reachable again; nothing was moved");
                self.room = true;
                self.effects.report = true;
            }
            Heard::Again => {
                tracing::info!(worker = %worker.host(), %id, "worker is back");
                self.room = true;
                self.effects.report = true;
                self.told_otherwise(id);
            }
        }
    }

    /// The root wants this instance to run here. Asked twice is asked once.
    pub(in crate::cluster) fn deploy(
        &mut self,
        mut document: ServiceDocument,
        instance: Document,
    ) -> Result<(), Refused> {
        let (id, number) = (document.id, instance.instance_number);
        document.instance_list.clear();
        self.by_name.entry(document.job_name.clone()).or_default().insert(id);
        let connectivity = Connectivity::of(&document.sla);
        let is_linked = self.services.get(&id).is_some_and(|known| known.connectivity == connectivity);
        let service = self.services.entry(id).or_insert_with(|| Service::new(document.clone()));
        service.connectivity = connectivity;
        service.document = document;
        self.effects.keep.insert(service_key(id), Some(encode(&service.document)));
        if !is_linked {
            self.link(id);
        }
        let Some(service) = self.services.get_mut(&id) else { return Ok(()) };
        if let Some(known) = service.instances.get(&number) {
            return match known.phase {
                Phase::Removing { .. } => Err(Refused::BeingRemoved { service: id, number }),
                _ => Ok(()),
            };
        }
        tracing::info!(service = %service.document.job_name, instance = number, "instance wanted");
        service.instances.insert(number, Instance::new(id, instance));
        self.changed(id, number);
        Ok(())
    }

    /// The root wants this instance gone, or all of the service.
    pub(in crate::cluster) fn undeploy(
        &mut self,
        id: Id,
        number: Option<u32>,
        now: Instant,
    ) -> Result<(), Refused> {
        let service = self.services.get(&id).ok_or(Refused::UnknownService(id))?;
        let numbers: Vec<u32> = match number {
            None => service.instances.keys().copied().collect(),
            Some(number) if service.instances.contains_key(&number) => vec![number],
            Some(number) => return Err(Refused::UnknownInstance { service: id, number }),
        };
        for number in numbers {
            let Some(instance) = self.instance_mut(id, number) else {
                continue;
            };
            if matches!(instance.phase, Phase::Removing { .. }) {
                continue;
            }
            match instance.remove(now) {
                Some(worker) if self.workers.get(&worker).is_some_and(Worker::is_alive) => {
                    self.changed(id, number);
                    self.tell_removal(worker, id, number);
                }
                // On no worker, or on one that is silent: should that come back, what it then names is unknown here
                // and is removed.
                _ => self.gone(id, number),
            }
        }
        Ok(())
    }

    pub(super) fn tell_removal(&mut self, worker: Id, id: Id, number: u32) {
        if let Some(service) = self.services.get(&id) {
            let name = service.document.job_name.clone();
            let virtualization = service.document.sla.virtualization.clone();
            self.tell_delete(worker, name, number, virtualization);
        }
    }
}
