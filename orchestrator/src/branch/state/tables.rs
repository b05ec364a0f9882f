//! Which clusters have the table of which service, and are told when it changes. The tables themselves are the root's.

use std::collections::BTreeSet;

use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::{JobUpdate, UpdateKind};

use super::{State, encode};
use crate::branch::key;
use crate::children::key as of_cluster;

impl State {
    /// Clusters have asked for a table, and are to hear of its changes. Says whether that is new of one of them.
    pub(in crate::branch) fn interested(&mut self, name: &ServiceName, clusters: &[Id]) -> bool {
        let mut is_new = false;
        for cluster in clusters {
            if self.interests.entry(name.clone()).or_default().insert(*cluster) {
                self.effects.keep.insert(key::interest(name, *cluster), Some(encode(&())));
                is_new = true;
            }
        }
        is_new
    }

    pub(in crate::branch) fn has_interested(&self, name: &ServiceName) -> bool {
        self.interests.contains_key(name)
    }

    /// Clusters do not want to hear of a service any more. Says whether others do.
    pub(in crate::branch) fn disinterested(&mut self, name: &ServiceName, clusters: &[Id]) -> bool {
        let Some(interested) = self.interests.get_mut(name) else { return false };
        for cluster in clusters {
            if interested.remove(cluster) {
                self.effects.keep.insert(key::interest(name, *cluster), None);
            }
        }
        if interested.is_empty() {
            self.interests.remove(name);
        }
        self.has_interested(name)
    }

    /// The one above says that a table has changed.
    pub(in crate::branch) fn table_changed(&mut self, update: &JobUpdate) {
        self.tell_interested(update, &[]);
    }

    /// Those instances of a service that these clusters may speak for, and the service's name.
    pub(in crate::branch) fn theirs(
        &self,
        service: Id,
        clusters: &[Id],
    ) -> Option<(ServiceName, BTreeSet<u32>)> {
        let instances = self.services.get(&service)?;
        let name = instances.values().next()?.kept.service.job_name.clone();
        let is_theirs = |id: Option<Id>| id.is_some_and(|id| clusters.contains(&id));
        let own = instances.iter().filter(|(_, instance)| is_theirs(instance.kept.cluster));
        Some((name, own.map(|(number, _)| *number).collect()))
    }

    /// It is known above where these instances are. The one above does not tell the branch what it has said itself; `knows` are
    /// those who need not be told either.
    pub(in crate::branch) fn settled(&mut self, name: &ServiceName, numbers: &BTreeSet<u32>, knows: &[Id]) {
        for number in numbers {
            let kind = UpdateKind::Deployment;
            let update = JobUpdate { job_name: name.clone(), instance_number: i64::from(*number), kind };
            self.tell_interested(&update, knows);
        }
    }

    fn tell_interested(&mut self, update: &JobUpdate, knows: &[Id]) {
        let name = &update.job_name;
        for cluster in self.interests.get(name).into_iter().flatten().filter(|id| !knows.contains(id)) {
            let key = of_cluster::notice(*cluster, name, update.instance_number);
            self.effects.keep.insert(key, Some(encode(update)));
            self.effects.notices = true;
        }
    }
}
