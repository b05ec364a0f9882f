//! Clusters that are not heard of. What they have goes to others, each instance as soon as its service says. What fits nowhere
//! else is left where it is, and says so to the one above, which may have a place.
//!
//! `reconcile: original` counts between the clusters of a root, not between those of a branch: who comes back is told to remove
//! what others have been given.

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::id::Id;
use protocol::outage::Outage;
use protocol::status::Status;

use super::State;
use crate::children::place::Refusal;
use crate::clock::Moment;

/// How often all instances are gone through while a cluster is silent and nothing else asks for it, seconds.
const SEARCH_EVERY: f64 = 30.0;
/// The same while there is something that fits nowhere else; also how often waiting instances are tried.
const TRY_EVERY: f64 = 5.0;

/// What is known of silent clusters from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    silent: BTreeSet<Id>,
    /// When there is something to do next, by the steady clock.
    next: f64,
    retry: f64,
}

impl State {
    /// To be called every second or so.
    pub(in crate::branch) fn tick(&mut self, now: Moment) {
        if now.steady >= self.watch.retry {
            self.watch.retry = now.steady + TRY_EVERY;
            self.retry();
        }
        let is_silent = |id: &&Id| self.live.is_silent(**id, now);
        let silent: BTreeSet<Id> = self.clusters.keys().filter(is_silent).copied().collect();
        let is_same = silent == self.watch.silent;
        for id in silent.symmetric_difference(&self.watch.silent).copied().collect::<Vec<_>>() {
            self.silence_changed(id, silent.contains(&id));
        }
        self.watch.silent = silent;
        if self.watch.silent.is_empty() || (is_same && now.steady < self.watch.next) {
            return;
        }
        self.watch.next = now.steady + self.replace_lost(now);
    }

    /// What is shown of a cluster's workers and instances is another thing now.
    fn silence_changed(&mut self, id: Id, is_silent: bool) {
        if is_silent {
            let name = self.clusters.get(&id).map_or("", |cluster| cluster.name.as_str());
            tracing::warn!(cluster = name, %id, "cluster is not heard of; its instances stay until their time is up");
        }
        for (service, instances) in &self.services {
            if instances.values().any(|instance| instance.is_of(id)) {
                self.told.changed.insert(*service);
            }
        }
        self.effects.report = true;
    }

    /// Returns the seconds until there may be more to do.
    fn replace_lost(&mut self, now: Moment) -> f64 {
        let mut candidates = self.candidates(now);
        let mut next = SEARCH_EVERY;
        for (cluster, service, number, patience) in self.lost() {
            let silence = self.live.silence(cluster, now);
            if silence < patience {
                next = next.min((patience - silence).as_secs_f64());
                continue;
            }
            if self.hand_over(cluster, service, number, &mut candidates, now) {
                continue;
            }
            next = next.min(TRY_EVERY);
            // Should it come back, it says how this one is whatever it has said before.
            self.anew.insert(cluster);
            let name = self.clusters.get(&cluster).map_or("", |cluster| cluster.name.as_str());
            let detail = format!("Cluster {name}, which has it, is not heard of, and no other one fits.");
            self.explain(service, number, &Refusal { status: Status::NoActiveClusterWithCapacity, detail });
        }
        next
    }

    /// Instances of silent clusters that are to go elsewhere some time, and after which silence.
    fn lost(&self) -> Vec<(Id, Id, u32, Duration)> {
        let mut lost = Vec::new();
        for (service, instances) in &self.services {
            for (number, instance) in instances {
                let cluster = instance.kept.cluster.filter(|id| self.watch.silent.contains(id));
                let Some(cluster) = cluster.filter(|_| instance.document.status != Status::Completed) else {
                    continue;
                };
                let outage = Outage::of(&instance.kept.service.sla);
                if let Some(patience) = outage.on_disconnect.patience(self.cluster_timeout) {
                    lost.push((cluster, *service, *number, patience));
                }
            }
        }
        lost
    }
}
