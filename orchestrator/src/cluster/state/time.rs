//! What follows from time having passed: workers that have fallen silent, instances that are no longer named, and
//! what is to be said again.

use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::outage::{Outage, Reconcile};

use super::{Service, State};
use crate::cluster::instance::Phase;
use crate::cluster::worker::Standing;

/// What a worker that came back is given to name what it runs, and in how many reports.
const NAME_WITHIN: Duration = Duration::from_secs(5);
const NAME_REPORTS: u32 = 3;
/// An instance that its worker was told to remove, and does not name in so many reports over so long, is gone.
const GONE_AFTER: Duration = Duration::from_secs(5);
const GONE_REPORTS: u32 = 3;
/// How long it is remembered what a worker was told to remove.
const EVICTIONS_KEPT: Duration = Duration::from_secs(60);

enum Due {
    Resend,
    /// The worker does not name it, and never said why.
    Missing,
    /// The worker has been silent for as long as the service bears it.
    Lost(Id),
    /// The worker came back without it.
    PlaceAgain,
    Gone,
    RemoveAgain(Id),
}

impl State {
    /// Called a few times a second; between calls nothing is overdue by more than that.
    pub(in crate::cluster) fn tick(&mut self, now: Instant) {
        self.look_for_silence(now);
        self.look_for_due_instances(now);
        self.drain(now);
        self.keep_near(now);
        self.look_after_peers(now);
        self.weigh_again(now);
        self.forget_workers(now);
        self.evicted.retain(|_, told| now.saturating_duration_since(*told) < EVICTIONS_KEPT);
        self.directory.tick(now);
        self.overlay_acts();
    }

    fn look_for_silence(&mut self, now: Instant) {
        let timeout = self.rules.worker_timeout;
        let patience = if self.hears_nobody_since.is_some() { Duration::MAX } else { timeout };
        let mut lost = Vec::new();
        for worker in self.workers.values_mut() {
            while let Some(standing) = worker.falls_silent(now, patience) {
                self.effects.report = true;
                let (id, host) = (worker.id(), worker.host());
                if standing == Standing::Dead {
                    lost.push((id, host.to_owned()));
                } else {
                    tracing::warn!(
                        worker = %host, %id, ?timeout,
                        "worker is unreachable; its instances stay until the timeout, or for as long as they ask for"
                    );
                }
            }
        }
        for (worker, host) in lost {
            tracing::warn!(
                worker = %host, id = %worker, ?timeout,
                "worker is dead; its instances go elsewhere, but for those that ask to be kept"
            );
            self.told_otherwise(worker);
            self.worker_lost(worker);
        }
    }

    /// Of instances on a worker that is not heard, or is again, something else is told.
    pub(super) fn told_otherwise(&mut self, worker: Id) {
        let services: Vec<_> = self.places.on(worker).map(|(id, _)| id).collect();
        self.told.changed.extend(services);
    }

    /// Of what it still serves nothing is left, and what was to go has gone. What was to stay: see [`Due::Lost`].
    pub(super) fn worker_lost(&mut self, worker: Id) {
        self.directory.forget_worker(worker);
        self.measures_no_more(worker);
        self.nobody_moves_from(worker);
        for (id, number) in self.instances_on(worker) {
            if let Some(Phase::Removing { .. }) = self.phase(id, number) {
                self.gone(id, number);
            }
        }
    }

    fn look_for_due_instances(&mut self, now: Instant) {
        let due: Vec<_> = self
            .services
            .iter()
            .flat_map(|(id, service)| {
                service.instances.values().map(move |instance| (*id, service, instance))
            })
            .filter_map(|(id, service, instance)| {
                let due = match instance.phase {
                    Phase::Placed { worker, .. } | Phase::Up { worker, .. }
                        if self.is_given_up(worker, service, now) =>
                    {
                        Some(Due::Lost(worker))
                    }
                    Phase::Placed { .. } => instance.resend_due(now).then_some(Due::Resend),
                    Phase::Up { worker, named, .. } => self.missing(worker, named, now),
                    Phase::Removing { worker, told, named, reports } => {
                        let passed = |since: Instant, time| now.saturating_duration_since(since) >= time;
                        if reports >= GONE_REPORTS && passed(named, GONE_AFTER) {
                            Some(Due::Gone)
                        } else {
                            passed(told, self.rules.worker_timeout.max(GONE_AFTER))
                                .then_some(Due::RemoveAgain(worker))
                        }
                    }
                    Phase::Waiting { .. } | Phase::Completed { .. } => None,
                };
                due.map(|due| (id, instance.number(), due))
            })
            .collect();
        for (id, number, due) in due {
            self.act(id, number, &due, now);
        }
    }

    /// Whether a worker has been silent for longer than a service bears it.
    fn is_given_up(&self, worker: Id, service: &Service, now: Instant) -> bool {
        if self.hears_nobody_since.is_some() {
            return false;
        }
        let Some(worker) = self.workers.get(&worker).filter(|it| it.standing() != Standing::Reachable) else {
            return false;
        };
        let on_disconnect = Outage::of(&service.document.sla).on_disconnect;
        on_disconnect
            .patience(self.rules.worker_timeout)
            .is_some_and(|patience| worker.silence(now) >= patience)
    }

    /// Whether an instance that was up has not been named by its worker for too long, while the worker reported.
    fn missing(&self, worker: Id, named: Instant, now: Instant) -> Option<Due> {
        let worker = self.workers.get(&worker).filter(|worker| worker.is_alive())?;
        let connected = worker.connected?;
        if connected.reports < NAME_REPORTS {
            return None;
        }
        let came_back = named < connected.since;
        if came_back && now.saturating_duration_since(connected.since) >= NAME_WITHIN {
            return Some(Due::PlaceAgain);
        }
        let unnamed = now.saturating_duration_since(named.max(connected.since));
        (unnamed >= self.rules.worker_timeout.max(NAME_WITHIN * 2)).then_some(Due::Missing)
    }

    fn act(&mut self, id: Id, number: u32, due: &Due, now: Instant) {
        match due {
            Due::Lost(worker) => self.lose_worker(id, number, *worker, now),
            Due::Resend => {
                if let Some(instance) = self.instance_mut(id, number) {
                    instance.sent_again(now);
                }
                self.tell_deploy(id, number);
            }
            Due::Gone => self.gone(id, number),
            Due::RemoveAgain(worker) => {
                if let Some(instance) = self.instance_mut(id, number)
                    && let Phase::Removing { told, .. } = &mut instance.phase
                {
                    *told = now;
                }
                self.tell_removal(*worker, id, number);
            }
            Due::PlaceAgain => {
                if let Some(instance) = self.instance_mut(id, number) {
                    instance.place_again(now);
                }
                self.changed(id, number);
                self.tell_deploy(id, number);
            }
            Due::Missing => {
                let status = protocol::status::Status::Dead;
                if let Some(instance) = self.instance_mut(id, number) {
                    instance.fail(status, "Its worker reports, but no longer names it", now);
                }
                self.changed(id, number);
            }
        }
    }

    fn lose_worker(&mut self, id: Id, number: u32, worker: Id, now: Instant) {
        let Some(known) = self.workers.get(&worker) else { return };
        let reason =
            format!("Worker {} has not been heard for {} s", known.host(), known.silence(now).as_secs());
        self.give_up(id, number, reason, |asked| asked);
    }

    /// An instance goes elsewhere, since its worker is gone. `reconcile`: what is to count of what its service asks for should
    /// that come back.
    pub(super) fn give_up(
        &mut self,
        id: Id,
        number: u32,
        reason: String,
        reconcile: impl FnOnce(Reconcile) -> Reconcile,
    ) {
        let Some(service) = self.services.get_mut(&id) else { return };
        let reconcile = reconcile(Outage::of(&service.document.sla).reconcile);
        if let Some(instance) = service.instances.get_mut(&number) {
            tracing::warn!(service = %service.document.job_name, instance = number, %reason, "instance is given up");
            instance.lose_worker(reason, reconcile);
        }
        self.changed(id, number);
    }
}
