//! What the one above wants to run, and to run no more.

use std::collections::{BTreeMap, BTreeSet};

use protocol::id::Id;
use protocol::service::{Instance as Document, Service};
use protocol::status::Status;

use super::State;
use crate::branch::instance::Instance;
use crate::children::cluster::Cluster;
use crate::children::command::CommandKind;

/// The branch was asked about what it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::branch) enum Unknown {
    #[error("no service {0} in this branch")]
    Service(Id),
    #[error("no instance {number} of service {service} in this branch")]
    Instance { service: Id, number: u32 },
}

impl State {
    /// The one above wants this instance to run here. Twice is once: then its description may be another one, with which
    /// whatever runs is not bothered.
    pub(in crate::branch) fn deploy(&mut self, service: Service, document: Document) {
        let (id, number) = (service.id, document.instance_number);
        if let Some(known) = self.instance_mut(id, number) {
            if known.kept.service != service {
                known.kept.service = service;
                self.keep(id, number);
            }
            return;
        }
        tracing::info!(service = %service.job_name, instance = number, "instance wanted");
        self.services.entry(id).or_default().insert(number, Instance::new(service, document));
        self.waiting.insert((id, number));
        self.room = true;
        self.keep(id, number);
    }

    /// The one above wants this instance gone, or all of the service.
    pub(in crate::branch) fn undeploy(&mut self, service: Id, number: Option<u32>) -> Result<(), Unknown> {
        let instances = self.services.get(&service).ok_or(Unknown::Service(service))?;
        let numbers: Vec<u32> = match number {
            None => instances.keys().copied().collect(),
            Some(number) if instances.contains_key(&number) => vec![number],
            Some(number) => return Err(Unknown::Instance { service, number }),
        };
        for number in numbers {
            self.remove(service, number);
        }
        Ok(())
    }

    fn remove(&mut self, service: Id, number: u32) {
        let Some(instances) = self.services.get_mut(&service) else { return };
        let Some(instance) = instances.remove(&number) else { return };
        if instances.is_empty() {
            self.services.remove(&service);
        }
        self.waiting.remove(&(service, number));
        self.live.forget(service, number);
        match instance.kept.cluster {
            Some(cluster) => self.command(cluster, service, CommandKind::Remove(number)),
            // Nobody is left who says that it is gone.
            None => {
                let gone = Document::new(number, Status::Undeployed);
                self.departed.push((service, instance.kept.service.job_name, gone));
            }
        }
        self.keep(service, number);
    }

    /// An instance that a cluster is to be told of, if it still is to.
    pub(in crate::branch) fn order(&self, cluster: Id, service: Id, number: u32) -> Option<Service> {
        let instance = self.services.get(&service)?.get(&number)?;
        let order = || {
            let order = instance.order();
            Service { sla: self.asked_of_clusters(&order.sla), ..order }
        };
        instance.is_of(cluster).then(order)
    }

    /// The clusters that have instances of a service, and which. `None`: it is not known here.
    pub(in crate::branch) fn clusters_of(&self, service: Id) -> Option<Vec<(Cluster, BTreeSet<u32>)>> {
        let mut all: BTreeMap<Id, BTreeSet<u32>> = BTreeMap::new();
        for (number, instance) in self.services.get(&service)? {
            if let Some(cluster) = instance.kept.cluster {
                all.entry(cluster).or_default().insert(*number);
            }
        }
        let known = |(id, numbers)| Some((self.clusters.get(&id)?.clone(), numbers));
        Some(all.into_iter().filter_map(known).collect())
    }
}
