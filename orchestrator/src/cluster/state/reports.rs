//! What workers say of themselves and of their instances.

use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::name::{InstanceName, ServiceName};
use protocol::node::{InstanceReport, InstanceResources, Node, ResourceReport};
use protocol::service::CONTAINER;
use protocol::status::Status;

use super::State;
use crate::cluster::instance::{Instance, Phase, Usage};
use crate::cluster::worker::{Connected, NamedInstance};

/// How often a worker is told again to remove what it should not have.
const EVICT_AGAIN: Duration = Duration::from_secs(5);

impl State {
    /// A worker's node-engine listens to its commands, for the first time or again: it is told what it may have
    /// missed. What it was seen to run it will name in its reports; what it does not name by then is asked of it again.
    pub(in crate::cluster) fn worker_listens(&mut self, worker: Id, now: Instant) {
        self.heard(worker, now);
        if let Some(known) = self.workers.get_mut(&worker) {
            known.connected = Some(Connected { since: now, reports: 0 });
        }
        for (id, number) in self.instances_on(worker) {
            match self.phase(id, number) {
                Some(Phase::Placed { .. }) => {
                    if let Some(instance) = self.instance_mut(id, number) {
                        instance.sent(now);
                    }
                    self.tell_deploy(id, number);
                }
                Some(Phase::Removing { .. }) => self.tell_removal(worker, id, number),
                Some(Phase::Waiting { .. } | Phase::Up { .. } | Phase::Completed { .. }) | None => {}
            }
        }
    }

    /// `nodes/{id}/information`.
    pub(in crate::cluster) fn node_report(&mut self, worker: Id, node: &Node, now: Instant) {
        self.heard(worker, now);
        if self.workers.get_mut(&worker).is_some_and(|known| known.report(node)) {
            self.room = true;
        }
        for (id, number) in self.instances_on(worker) {
            self.weigh(id, number, now);
        }
    }

    /// `nodes/{id}/job`.
    pub(in crate::cluster) fn instance_report(&mut self, worker: Id, report: InstanceReport, now: Instant) {
        self.heard(worker, now);
        let InstanceReport { sname, status, status_detail, instance: number, publicip } = report;
        if status == Status::Running {
            self.reclaim(worker, &sname, number, now);
        }
        let Some(id) = self.service_on(&sname, number, worker) else {
            if matches!(status, Status::Creating | Status::Created | Status::Running) {
                self.evict(worker, &sname, number, CONTAINER, now);
            }
            return;
        };
        let Some(service) = self.services.get_mut(&id) else {
            return;
        };
        let one_shot = service.document.sla.one_shot;
        // Oakestra's worker gives back the text it was sent.
        let echo = service.document.status_detail.as_deref() == Some(status_detail.as_str());
        let detail = if echo { String::new() } else { status_detail };
        let Some(instance) = service.instances.get_mut(&number) else {
            return;
        };
        if !publicip.is_empty() {
            instance.record.document.publicip = Some(publicip);
        }
        if matches!(instance.phase, Phase::Removing { .. }) {
            if matches!(status, Status::Undeployed | Status::Dead | Status::Failed | Status::Completed) {
                self.gone(id, number);
            }
            return;
        }
        let changed = match status {
            Status::Creating | Status::Created | Status::Running => {
                instance.is_up(worker, status, &detail, now)
            }
            Status::Completed if one_shot => {
                instance.complete(&detail);
                true
            }
            Status::Failed | Status::Dead | Status::Completed | Status::Undeployed
                if instance.wanted_on() == Some(worker) =>
            {
                let status = if status == Status::Failed { Status::Failed } else { Status::Dead };
                let reason = if detail.is_empty() { "It ended on its worker".to_owned() } else { detail };
                instance.fail(status, &reason, now);
                let failures = instance.record.failures;
                tracing::warn!(service = %sname, instance = number, %worker, %status, %reason, failures, "instance ended");
                self.room = true;
                true
            }
            _ => false,
        };
        if changed {
            self.changed(id, number);
        }
    }

    /// A worker that was given up runs what was replaced meanwhile, and what its service would rather have.
    fn reclaim(&mut self, worker: Id, name: &ServiceName, number: u32, now: Instant) {
        let Some(known) = self.workers.get(&worker) else { return };
        let (host_ip, host_port) = (known.node().ip.clone(), known.port());
        let ids: Vec<_> = self.named(name).map(|(id, _)| id).collect();
        for id in ids {
            let Some(instance) = self.instance_mut(id, number) else { continue };
            if instance.is_reclaimed_by(worker) {
                tracing::info!(service = %name, instance = number, %worker, "the original is back, and takes over again");
                instance.place(worker, &host_ip, host_port, now);
                self.changed(id, number);
                return;
            }
        }
    }

    /// `nodes/{id}/jobs/resources`: being named here is being alive. Oakestra's workers send a list per runtime, so
    /// that not being in one list means nothing; not having been in any for long does (see [`super::time`]).
    pub(in crate::cluster) fn resource_report(&mut self, worker: Id, report: ResourceReport, now: Instant) {
        self.heard(worker, now);
        let ResourceReport { services, more } = report;
        if let Some(known) = self.workers.get_mut(&worker) {
            known.named.get_or_insert_default().take(services.iter().map(name), more);
        }
        for named in services {
            self.is_measured(worker, named, now);
        }
        if !more {
            self.has_reported(worker);
        }
    }

    /// `nodes/{id}/alive`: it would report the same again.
    pub(in crate::cluster) fn still_as_reported(&mut self, worker: Id, now: Instant) {
        self.heard(worker, now);
        let Some(mut named) = self.workers.get_mut(&worker).and_then(|known| known.named.take()) else {
            return;
        };
        for NamedInstance { name, service } in &mut named.instances {
            let number = name.number;
            let known = service.and_then(|id| self.instance_mut(id, number));
            if !known.is_some_and(|instance| instance.is_still_up(worker, now)) {
                let found = self.is_named(worker, &name.service, number, CONTAINER, now);
                *service = found.map(|instance| instance.record.service);
            }
        }
        if let Some(known) = self.workers.get_mut(&worker) {
            known.named = Some(named);
        }
        self.has_reported(worker);
    }

    /// A report of a worker's instances has come to its end: what it has not named was not there.
    fn has_reported(&mut self, worker: Id) {
        if let Some(connected) = self.workers.get_mut(&worker).and_then(|known| known.connected.as_mut()) {
            connected.reports = connected.reports.saturating_add(1);
        }
        for (id, number) in self.instances_on(worker) {
            if let Some(instance) = self.instance_mut(id, number)
                && let Phase::Removing { reports, .. } = &mut instance.phase
            {
                *reports = reports.saturating_add(1);
            }
        }
        self.look_for_departed(worker);
    }

    fn is_measured(&mut self, worker: Id, named: InstanceResources, now: Instant) {
        let InstanceResources { cpu_percent, memory_percent, disk, logs, job_name, virtualization, .. } =
            named;
        let number = named.instance;
        let Some(instance) = self.is_named(worker, &job_name, number, &virtualization, now) else { return };
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        let usage = Usage {
            cpu_percent: filled(cpu_percent),
            memory_percent: filled(memory_percent),
            disk: filled(disk),
            logs,
        };
        if instance.usage != usage {
            instance.usage = usage;
            let service = instance.record.service;
            self.told.changed.insert(service);
            self.weigh(service, number, now);
        }
    }

    /// The instance, where it is to run.
    fn is_named(
        &mut self,
        worker: Id,
        name: &ServiceName,
        number: u32,
        virtualization: &str,
        now: Instant,
    ) -> Option<&mut Instance> {
        self.reclaim(worker, name, number, now);
        let Some(id) = self.service_on(name, number, worker) else {
            self.evict(worker, name, number, virtualization, now);
            return None;
        };
        let instance = self.instance_mut(id, number)?;
        if let Phase::Removing { named: last, reports, told, .. } = &mut instance.phase {
            *last = now;
            *reports = 0;
            if now.saturating_duration_since(*told) >= EVICT_AGAIN {
                *told = now;
                self.tell_removal(worker, id, number);
            }
            return None;
        }
        let adopted = matches!(instance.phase, Phase::Waiting { .. });
        if instance.is_up(worker, Status::Running, "Running", now) {
            if adopted {
                tracing::info!(service = %name, instance = number, %worker, "instance was kept by its worker");
            }
            // From now on the worker's measurements show it, so that it need not be reserved for.
            self.room = true;
            self.changed(id, number);
        }
        self.instance_mut(id, number)
    }

    /// Which service's instance this is, when `worker` speaks of it: one that is there, or one that waits and may as
    /// well be there. Two services can bear one name while the older is being removed.
    fn service_on(&self, name: &ServiceName, number: u32, worker: Id) -> Option<Id> {
        let candidates =
            || self.named(name).filter_map(|(id, service)| Some((id, service.instances.get(&number)?)));
        candidates()
            .find(|(_, instance)| instance.worker() == Some(worker))
            .or_else(|| {
                candidates().find(|(_, instance)| {
                    matches!(instance.phase, Phase::Waiting { .. }) && instance.record.moving_from.is_none()
                })
            })
            .map(|(id, _)| id)
    }

    /// A worker has what it should not have.
    fn evict(&mut self, worker: Id, name: &ServiceName, number: u32, virtualization: &str, now: Instant) {
        if self.is_moving_from(worker, name, number) {
            return;
        }
        self.is_named_still(worker, name, number);
        let what = (worker, InstanceName { service: name.clone(), number });
        if self.evicted.get(&what).is_some_and(|told| now.saturating_duration_since(*told) < EVICT_AGAIN) {
            return;
        }
        tracing::info!(%worker, service = %name, instance = number, "worker has an instance that is not wanted there");
        self.evicted.insert(what, now);
        let virtualization = if virtualization.is_empty() { CONTAINER } else { virtualization };
        self.tell_delete(worker, name.clone(), number, virtualization.to_owned());
    }
}

fn name(named: &InstanceResources) -> InstanceName {
    InstanceName { service: named.job_name.clone(), number: named.instance }
}
