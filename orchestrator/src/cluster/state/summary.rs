//! What the root is told: sums over the workers, and every instance.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use protocol::cluster::{Largest, Report, ReportedService, ReportedWorker, WorkerState};
use protocol::constraint::name_of;
use protocol::id::Id;
use protocol::service::Instance as Document;
use protocol::status::Status;
use serde_json::{Map, Value};

use super::State;
use crate::cluster::instance::Instance;
use crate::cluster::worker::{Standing, Worker};
use crate::parent::summary::{LOCATIONS_MAX, Scope, Summary, distinct, other_keys};
use crate::schedule;

impl State {
    pub(in crate::cluster) fn summary(&mut self, scope: Scope, now: Instant) -> Summary {
        let jobs = match scope {
            Scope::All => self.jobs(self.services.keys()),
            Scope::Since(_) => self.jobs(self.told.changed.union(&self.without_room())),
        };
        let all: Vec<_> = self.workers.values().map(|worker| self.reported_worker(worker, now)).collect();
        let (workers, forgotten) = self.told.tell(scope, all);
        let active: Vec<_> =
            self.workers.values().filter(|worker| worker.is_alive()).map(Worker::node).collect();
        let report = Report {
            cpu_percent: mean(active.iter().map(|node| node.cpu_percent)),
            memory_percent: mean(active.iter().map(|node| node.memory_percent)),
            vcpus: active.iter().fold(0, |sum, node| sum.saturating_add(node.vcpus)),
            memory: active.iter().fold(0, |sum, node| sum.saturating_add(node.memory)),
            vgpus: active.iter().fold(0, |sum, node| sum.saturating_add(node.vgpus)),
            active_nodes: u32::try_from(active.len()).unwrap_or(u32::MAX),
            virtualization: distinct(active.iter().flat_map(|node| &node.virtualization).map(String::as_str))
                .collect(),
            supported_addons: active.iter().flat_map(|node| node.supported_addons.clone()).collect(),
            csi_drivers: distinct(active.iter().flat_map(|node| &node.csi_drivers).filter_map(name_of))
                .map(Value::from)
                .collect(),
            jobs,
            largest: Some(self.largest()),
            workers: Some(workers),
            since: scope.since(),
            forgotten,
            broker_away: self.hears_nobody_since.map(|since| now.saturating_duration_since(since).as_secs()),
            extra: if scope == Scope::All { other_keys() } else { Map::new() },
        };
        Summary { report, departed: self.departed.len() }
    }

    /// The root has a report in which so many of what is gone were told.
    pub(in crate::cluster) fn reported(&mut self, departed: usize) {
        self.departed.drain(..departed.min(self.departed.len()));
    }

    fn reported_worker(&self, worker: &Worker, now: Instant) -> ReportedWorker {
        let (id, node) = (worker.id(), worker.node());
        let instances = self.places.count_on(id) + self.former.count_on(id);
        ReportedWorker {
            id,
            name: worker.host().to_owned(),
            ip: node.ip.clone(),
            state: match worker.standing() {
                Standing::Reachable => WorkerState::Ready,
                Standing::Unreachable => WorkerState::Unreachable,
                Standing::Dead => WorkerState::Dead,
            },
            cordoned: worker.record.cordoned,
            draining: worker.record.draining,
            silent: worker.silence(now).as_secs(),
            vcpus: node.vcpus,
            cpu_percent: node.cpu_percent,
            memory: node.memory,
            memory_percent: node.memory_percent,
            architecture: node.architecture.clone(),
            virtualization: node.virtualization.clone(),
            instances: u32::try_from(instances).unwrap_or(u32::MAX),
            rtt_ms: self.round_trips.usual(id).map(|rtt| (rtt * 10.0).round() / 10.0),
            itself: self.directory.itself(id).cloned(),
        }
    }

    /// Over those that are heard, cordoned or not: why one of these gets nothing is best said by the cluster itself.
    fn largest(&self) -> Largest {
        let mut views = self.views();
        views.retain(|view| view.responding);
        let most = |amount: fn(&schedule::Worker) -> u64| views.iter().map(amount).max().unwrap_or(0);
        let count = |amount| u32::try_from(most(amount)).unwrap_or(u32::MAX);
        let locations: Option<Vec<_>> = views.iter().map(|view| view.location).collect();
        let locations = locations.map(|mut all| {
            all.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
            all.dedup();
            all
        });
        let said = |view: &&schedule::Worker| !view.architecture.is_empty();
        Largest {
            memory: most(schedule::Worker::memory_free),
            disk: views
                .iter()
                .map(schedule::Worker::disk_free)
                .try_fold(0, |most, free| Some(most.max(free?))),
            vcpus: count(|view| view.vcpus.into()),
            vgpus: count(|view| view.vgpus.into()),
            architectures: distinct(views.iter().filter(said).map(|view| view.architecture.as_str()))
                .collect(),
            locations: locations.filter(|all| all.len() <= LOCATIONS_MAX),
        }
    }

    /// An instance as clients read it. Of one that is kept at a worker that is not heard, nobody knows how it is.
    fn document(&self, instance: &Instance) -> Document {
        let mut document = instance.document();
        let unheard = |id: &Id| self.workers.get(id).filter(|worker| !worker.is_alive());
        if let Some(worker) = instance.wanted_on().as_ref().and_then(unheard) {
            let host = worker.host();
            document.status_detail = Some(format!("Worker {host} is not heard; kept there (on_disconnect)"));
        }
        document
    }

    /// Services with instances that find no worker here. The root looks for another cluster for them whenever it hears of
    /// them.
    fn without_room(&self) -> BTreeSet<Id> {
        let waits = |(id, number): &&(Id, u32)| {
            let instance = self.services.get(id).and_then(|service| service.instances.get(number));
            instance.is_some_and(|instance| instance.status().is_unschedulable())
        };
        self.waiting.iter().filter(waits).map(|(id, _)| *id).collect()
    }

    /// These, as far as they are still there, and what is gone.
    fn jobs<'a>(&self, ids: impl Iterator<Item = &'a Id>) -> Vec<ReportedService> {
        let mut jobs: BTreeMap<Id, ReportedService> = BTreeMap::new();
        for (id, service) in ids.filter_map(|id| Some((id, self.services.get(id)?))) {
            let instance_list: Vec<_> =
                service.instances.values().map(|instance| self.document(instance)).collect();
            let running = instance_list.iter().all(|instance| instance.status == Status::Running);
            let odd = instance_list.iter().find(|instance| instance.status != Status::Running);
            let status = if running { Some(Status::Running) } else { odd.map(|instance| instance.status) };
            let job_name = service.document.job_name.clone();
            jobs.insert(*id, ReportedService { id: *id, job_name, status, instance_list });
        }
        for (id, name, document) in &self.departed {
            let job = jobs.entry(*id).or_insert_with(|| ReportedService {
                id: *id,
                job_name: name.clone(),
                status: Some(Status::Undeployed),
                instance_list: Vec::new(),
            });
            job.instance_list.push(document.clone());
        }
        jobs.into_values().collect()
    }
}

/// The mean over those that say anything, as Oakestra forms it.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values
        .filter(|value| *value > 0.0)
        .fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}
