//! Workers that nobody expects any more, since they have been gone for so long, or since an operator says so: their addresses go
//! back to the root.

use std::time::Instant;

use protocol::id::Id;
use protocol::net::Subnet;
use protocol::outage::Reconcile;

use super::{Ask, Refused, State, encode, return_key, worker_key};
use crate::cluster::instance::Phase;
use crate::cluster::worker::{Standing, UNREACHABLE_AFTER, Worker};

impl State {
    /// One that runs something still, as far as is known, or about which an operator has said something, is never forgotten.
    pub(super) fn forget_workers(&mut self, now: Instant) {
        if self.hears_nobody_since.is_some() {
            return;
        }
        let forget_after = self.rules.forget_after;
        let forgotten = self.workers.values().filter(|worker| {
            let id = worker.id();
            worker.standing() == Standing::Dead
                && worker.silence(now) >= forget_after
                && !worker.record.cordoned
                && self.places.count_on(id) == 0
                && self.former.count_on(id) == 0
        });
        for id in forgotten.map(Worker::id).collect::<Vec<_>>() {
            self.forget(id, "it has been gone for too long");
        }
    }

    /// An operator says that a worker is gone for good: what ran there goes elsewhere at once, also what asks to be kept. Of one
    /// that is heard this is not believed, since it would join again, and with another block than its netmanager has.
    pub(in crate::cluster) fn delete_worker(&mut self, id: Id, now: Instant) -> Result<(), Refused> {
        let worker = self.workers.get(&id).ok_or(Refused::UnknownWorker(id))?;
        let host = worker.host().to_owned();
        if self.hears_nobody_since.is_some() {
            return Err(Refused::HearsNobody { host });
        }
        // Who was excused, since nobody could be heard, counts as heard for a while, whatever he was before.
        let silence = worker.silence(now);
        if worker.standing() == Standing::Reachable || silence < UNREACHABLE_AFTER {
            return Err(Refused::IsHeard { host, silence });
        }
        self.told_otherwise(id);
        self.worker_lost(id);
        for (service, number) in self.instances_on(id) {
            if matches!(self.phase(service, number), Some(Phase::Placed { .. } | Phase::Up { .. })) {
                self.give_up(service, number, format!("Worker {host} was deleted"), |_asked| {
                    Reconcile::Newest
                });
            }
        }
        self.forget(id, "an operator has deleted it");
        self.overlay_acts();
        Ok(())
    }

    fn forget(&mut self, id: Id, why: &str) {
        let Some(worker) = self.workers.remove(&id) else { return };
        tracing::info!(worker = %worker.host(), %id, why, "worker is forgotten");
        self.by_host.remove(worker.host());
        self.subnets_asked.remove(&id);
        self.measures_no_more(id);
        self.effects.keep.insert(worker_key(id), None);
        self.effects.dismiss.push(id);
        self.effects.report = true;
        if let Some(subnet) = worker.record.subnet {
            self.give_back(subnet);
        }
    }

    /// Kept until the root has it back: what is lost between would be nobody's for ever.
    pub(super) fn give_back(&mut self, subnet: Subnet) {
        self.effects.keep.insert(return_key(&subnet), Some(encode(&subnet)));
        self.effects.ask.push(Ask::Return(subnet));
    }

    /// The root has a block back, or never knew that it gave it.
    pub(in crate::cluster) fn subnet_returned(&mut self, subnet: &Subnet) {
        self.effects.keep.insert(return_key(subnet), None);
    }
}
