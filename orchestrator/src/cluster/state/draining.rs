//! What operators want of workers: that one gets nothing new, and that what runs there moves to others.
//!
//! A draining worker's instances move one of a service at a time: each is placed elsewhere, serves where it is until it runs
//! there, and is stopped then. What fits nowhere else stays, and says so. A job that runs once is left to its end.

use std::time::Instant;

use protocol::id::Id;
use protocol::name::ServiceName;

use super::{Refused, State, encode, worker_key};
use crate::cluster::decisions::WithoutPlace;
use crate::cluster::instance::Phase;
use crate::cluster::worker::{Standing, Worker};
use crate::schedule::{self, Request};
use crate::wish::Wish;

impl State {
    /// Asked twice is asked once.
    pub(in crate::cluster) fn wish(&mut self, id: Id, wish: Wish) -> Result<(), Refused> {
        let worker = self.workers.get_mut(&id).ok_or(Refused::UnknownWorker(id))?;
        let before = (worker.record.cordoned, worker.record.draining);
        let after = match wish {
            Wish::Cordon => (true, worker.record.draining),
            Wish::Drain => (true, true),
            Wish::Uncordon => (false, false),
        };
        if before != after {
            tracing::info!(worker = %worker.host(), %id, cordoned = after.0, draining = after.1, "an operator's wish");
            (worker.record.cordoned, worker.record.draining) = after;
            self.effects.keep.insert(worker_key(id), Some(encode(&worker.record)));
            self.effects.report = true;
            self.room = true;
        }
        Ok(())
    }

    /// Lets instances leave the workers that are to become empty, as many as may at a time.
    pub(super) fn drain(&mut self, now: Instant) {
        let is_draining =
            |worker: &&Worker| worker.record.draining && worker.standing() == Standing::Reachable;
        let draining = self.workers.values().filter(is_draining);
        let draining: Vec<_> = draining.map(|worker| (worker.id(), worker.host().to_owned())).collect();
        for (worker, host) in draining {
            for (id, number) in self.instances_on(worker) {
                self.let_leave(worker, &host, (id, number), now);
            }
        }
    }

    fn let_leave(&mut self, worker: Id, host: &str, (id, number): (Id, u32), now: Instant) {
        let Some(service) = self.services.get(&id) else { return };
        let is_moving = service.instances.values().any(|instance| instance.record.moving_from.is_some());
        let is_there = matches!(self.phase(id, number), Some(Phase::Up { .. } | Phase::Placed { .. }));
        if service.document.sla.one_shot || is_moving || !is_there {
            return;
        }
        let mut views = self.views();
        self.count_siblings(id, &mut views);
        let links = self.links(id);
        self.see_reach(&links, (id, number), &mut views, now);
        let request = Request { links: links.asked(), ..super::placing::request(service) };
        let choice = schedule::place(&request, &views, self.rules.placement.algorithm());
        let Some(instance) = self.instance_mut(id, number) else { return };
        match choice.chosen {
            Some(_) => {
                instance.move_away(worker, &format!("Moving away from {host}, which is drained"));
                self.changed(id, number);
                // Before its worker can name it again.
                self.place_waiting(now);
            }
            None => {
                let refusal = schedule::Refusal(&choice.decision);
                let detail = format!("Stays on {host}, which is drained: {refusal}");
                if instance.stays(detail, WithoutPlace::new(&choice.decision, now)) {
                    self.changed(id, number);
                }
            }
        }
    }

    /// Whether a worker serves for an instance that is on its way to another one.
    pub(super) fn is_moving_from(&self, worker: Id, name: &ServiceName, number: u32) -> bool {
        let instances = self.named(name).filter_map(|(_, service)| service.instances.get(&number));
        let mut records = instances.map(|instance| &instance.record);
        records.any(|record| record.moving_from == Some(worker) && !record.removing)
    }

    /// A worker is lost: it serves for nobody any more.
    pub(super) fn nobody_moves_from(&mut self, worker: Id) {
        for (id, number) in self.former.on(worker).collect::<Vec<_>>() {
            if self.instance_mut(id, number).is_some_and(|instance| instance.is_cut_off_from(worker)) {
                self.changed(id, number);
            }
        }
    }

    /// A worker has reported what it runs: what has moved away and is not among it, several times in a row, has ended there.
    /// Else the worker says so when it does.
    pub(super) fn look_for_departed(&mut self, worker: Id) {
        for (id, number) in self.former.on(worker).collect::<Vec<_>>() {
            if self.instance_mut(id, number).is_some_and(|instance| instance.is_unnamed_by(worker)) {
                self.changed(id, number);
                self.overlay_acts();
            }
        }
    }

    /// A worker still names what has moved away from it.
    pub(super) fn is_named_still(&mut self, worker: Id, name: &ServiceName, number: u32) {
        let ids: Vec<_> = self.named(name).map(|(id, _)| id).collect();
        for id in ids {
            if let Some(instance) = self.instance_mut(id, number).filter(|it| it.is_departing_from(worker)) {
                instance.departing_unnamed = 0;
            }
        }
    }
}
