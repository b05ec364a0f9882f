//! Workers that have been gone for so long that nobody expects them any more: their addresses go back to the root.

use std::time::Instant;

use protocol::net::Subnet;

use super::{Ask, State, encode, return_key, worker_key};
use crate::cluster::worker::{Standing, Worker};

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
            let Some(worker) = self.workers.remove(&id) else { continue };
            tracing::info!(worker = %worker.host(), %id, "worker is forgotten: it has been gone for too long");
            self.by_host.remove(worker.host());
            self.subnets_asked.remove(&id);
            self.measures_no_more(id);
            self.effects.keep.insert(worker_key(id), None);
            self.effects.dismiss.push(id);
            self.effects.report = true;
            if let Some(subnet) = worker.record.subnet {
                // Kept until the root has it back: what is lost between would be nobody's for ever.
                self.effects.keep.insert(return_key(&subnet), Some(encode(&subnet)));
                self.effects.ask.push(Ask::Return(subnet));
            }
        }
    }

    /// The root has a block back, or never knew that it gave it.
    pub(in crate::cluster) fn subnet_returned(&mut self, subnet: &Subnet) {
        self.effects.keep.insert(return_key(subnet), None);
    }
}
