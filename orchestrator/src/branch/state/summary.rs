//! What the one above is told: all clusters as if they were one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use protocol::cluster::{Largest, Report, ReportedService, ReportedWorker, WorkerState};
use protocol::constraint::names_of;
use protocol::id::Id;
use protocol::location;
use protocol::service::Instance as Document;
use protocol::status::Status;
use serde_json::{Map, Value};

use super::State;
use crate::children::cluster::Cluster;
use crate::clock::Moment;
use crate::parent::summary::{LOCATIONS_MAX, Scope, Summary, distinct, other_keys};

impl State {
    pub(in crate::branch) fn summary(&mut self, scope: Scope, now: Moment) -> Summary {
        let ids: BTreeSet<Id> = match scope {
            Scope::All => self.services.keys().copied().collect(),
            Scope::Since(_) => self.told.changed.union(&self.without_room()).copied().collect(),
        };
        let jobs = self.jobs(&ids, now);
        let all = self.workers(now);
        let (workers, forgotten) = self.told.tell(scope, all);
        let active: Vec<(&Cluster, &Report)> = self.active(now).collect();
        let sum = |amount: fn(&Report) -> u32| {
            active.iter().fold(0_u32, |sum, (_, report)| sum.saturating_add(amount(report)))
        };
        let all_names = |names: fn(&Report) -> &[Value]| {
            let names: Vec<String> = active.iter().flat_map(|(_, report)| names_of(names(report))).collect();
            distinct(names.iter().map(String::as_str)).map(Value::from).collect()
        };
        let report = Report {
            cpu_percent: mean(&active, |report| report.cpu_percent),
            memory_percent: mean(&active, |report| report.memory_percent),
            vcpus: sum(|report| report.vcpus),
            memory: active.iter().fold(0, |sum, (_, report)| sum.saturating_add(report.memory)),
            vgpus: sum(|report| report.vgpus),
            active_nodes: sum(|report| report.active_nodes),
            virtualization: distinct(
                active.iter().flat_map(|(_, report)| &report.virtualization).map(String::as_str),
            )
            .collect(),
            supported_addons: all_names(|report| &report.supported_addons),
            csi_drivers: all_names(|report| &report.csi_drivers),
            jobs,
            workers: Some(workers),
            largest: Some(largest(&active)),
            since: scope.since(),
            // It has none; that of a cluster is that cluster's matter.
            broker_away: None,
            forgotten,
            extra: if scope == Scope::All { other_keys() } else { Map::new() },
        };
        Summary { report, departed: self.departed.len() }
    }

    /// The one above has a report in which so many of what is gone were told.
    pub(in crate::branch) fn departed_told(&mut self, departed: usize) {
        self.departed.drain(..departed.min(self.departed.len()));
    }

    fn active(&self, now: Moment) -> impl Iterator<Item = (&Cluster, &Report)> {
        let heard = self.clusters.values().filter(move |cluster| self.live.is_active(cluster.id, now));
        heard.filter_map(|cluster| Some((cluster, self.live.cluster(cluster.id)?.report())))
    }

    /// Of a cluster that is silent nobody knows how its workers are.
    fn workers(&self, now: Moment) -> Vec<ReportedWorker> {
        let mut all = Vec::new();
        for id in self.clusters.keys() {
            let is_active = self.live.is_active(*id, now);
            let told = self.live.cluster(*id).into_iter().flat_map(|view| view.workers());
            all.extend(told.cloned().map(|worker| match worker.state {
                WorkerState::Ready if !is_active => {
                    ReportedWorker { state: WorkerState::Unreachable, ..worker }
                }
                _ => worker,
            }));
        }
        all
    }

    /// Services with instances that find no place here. The one above looks for another one whenever it hears of them.
    fn without_room(&self) -> BTreeSet<Id> {
        let waits = |instances: &BTreeMap<u32, super::Instance>| {
            instances.values().any(super::Instance::is_unschedulable)
        };
        self.services.iter().filter(|(_, instances)| waits(instances)).map(|(id, _)| *id).collect()
    }

    /// These, as far as they are still there, and what is gone.
    fn jobs(&self, ids: &BTreeSet<Id>, now: Moment) -> Vec<ReportedService> {
        let mut jobs: BTreeMap<Id, ReportedService> = BTreeMap::new();
        for (id, instances) in ids.iter().filter_map(|id| Some((id, self.services.get(id)?))) {
            let numbers = instances.keys();
            let instance_list: Vec<_> =
                numbers.filter_map(|number| self.document(*id, *number, now)).collect();
            if instance_list.is_empty() {
                continue;
            }
            let odd = instance_list.iter().find(|instance| instance.status != Status::Running);
            let status = Some(odd.map_or(Status::Running, |instance| instance.status));
            let Some(job_name) = instances.values().next().map(|one| one.kept.service.job_name.clone())
            else {
                continue;
            };
            jobs.insert(*id, ReportedService { id: *id, job_name, status, instance_list });
        }
        let is_back = |id: &Id, gone: &Document| {
            self.services.get(id).is_some_and(|all| all.contains_key(&gone.instance_number))
        };
        for (id, name, document) in self.departed.iter().filter(|(id, _, gone)| !is_back(id, gone)) {
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

/// Over all active workers, as far as clusters say how it is with theirs.
fn mean(active: &[(&Cluster, &Report)], value: fn(&Report) -> f64) -> f64 {
    let (sum, count) = active.iter().fold((0.0, 0.0), |(sum, count), (_, report)| {
        let workers = f64::from(report.active_nodes);
        (value(report).mul_add(workers, sum), count + workers)
    });
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The most that a single worker of any of them has. Of a cluster that does not say so, all of its workers count as one.
fn largest(active: &[(&Cluster, &Report)]) -> Largest {
    let each: Vec<Largest> = active.iter().map(|(cluster, report)| largest_of(cluster, report)).collect();
    // An empty list means that it is not known which there are.
    let are_known = each.iter().all(|one| !one.architectures.is_empty());
    let architectures = each.iter().filter(|_| are_known).flat_map(|one| &one.architectures);
    let places: Option<Vec<_>> = each.iter().map(|one| one.locations.clone()).collect();
    let places = places.map(|places| {
        let mut all: Vec<_> = places.into_iter().flatten().collect();
        all.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        all.dedup();
        all
    });
    Largest {
        memory: each.iter().map(|one| one.memory).max().unwrap_or(0),
        disk: each.iter().map(|one| one.disk).try_fold(0, |most, free| Some(most.max(free?))),
        vcpus: each.iter().map(|one| one.vcpus).max().unwrap_or(0),
        vgpus: each.iter().map(|one| one.vgpus).max().unwrap_or(0),
        architectures: distinct(architectures.map(String::as_str)).collect(),
        locations: places.filter(|all| all.len() <= LOCATIONS_MAX),
    }
}

fn largest_of(cluster: &Cluster, report: &Report) -> Largest {
    report.largest.clone().unwrap_or_else(|| Largest {
        memory: report.memory,
        disk: None,
        vcpus: report.vcpus,
        vgpus: report.vgpus,
        architectures: Vec::new(),
        locations: location::of_cluster(&cluster.location).map(|place| vec![place]),
    })
}
