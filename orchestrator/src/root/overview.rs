//! The whole in numbers, and what somebody may have to act on. Pure, but for the gathering.

use std::collections::HashSet;

use protocol::cluster::{Cluster, Worker, WorkerState};
use protocol::id::Id;
use protocol::overview::{
    ClusterTotals, Code, InstanceTotals, Kind, Overview, Problem, Subject, WorkerTotals,
};
use protocol::service::Service;

use super::Root;
use super::access::Caller;
use super::application::Application;
use crate::standing::{Mood, counts, is_ready, mood, shortfall, standing};
use crate::store::StoreError;

impl Root {
    /// As far as the caller may see: clusters and workers everybody, services who may use their application.
    pub(super) async fn overview(&self, caller: &Caller) -> Result<Overview, StoreError> {
        let mut apps = self.applications().await?;
        apps.retain(|app| self.may_use(caller, app));
        let services = self.services().await?.into_iter();
        let listed: HashSet<Id> = apps.iter().flat_map(|app| app.services.iter().copied()).collect();
        let services = services.filter(|record| listed.contains(&record.service.id));
        let services = services.map(|record| record.document());
        let mut services: Vec<_> = services.collect();
        services.sort_by(|a, b| a.job_name.cmp(&b.job_name));
        let mut clusters = self.cluster_documents().await?;
        clusters.sort_by(|a, b| a.cluster_name.cmp(&b.cluster_name));
        Ok(overview(&clusters, &self.workers().await?.workers, &apps, &services))
    }
}

fn overview(
    clusters: &[Cluster],
    workers: &[Worker],
    apps: &[Application],
    services: &[Service],
) -> Overview {
    let active = || clusters.iter().filter(|cluster| cluster.active);
    // Those of a lost cluster are told of with it.
    let told = || workers.iter().filter(|of| of.cluster_active);
    let is_deaf = |id| active().any(|cluster| cluster.id == id && cluster.broker_away_since.is_some());
    let mut overview = Overview {
        clusters: ClusterTotals { active: active().count(), total: clusters.len() },
        workers: WorkerTotals {
            active: active().map(|cluster| cluster.active_nodes).sum(),
            cordoned: told().filter(|of| of.worker.cordoned).count(),
            draining: told().filter(|of| of.worker.draining).count(),
            cpus: active().map(|cluster| cluster.total_cpu_cores).sum(),
            memory_free_mb: active().map(|cluster| cluster.memory_in_mb).sum(),
        },
        apps: apps.len(),
        services: services.len(),
        instances: InstanceTotals::default(),
        problems: Vec::new(),
    };
    let problems = &mut overview.problems;
    problems.extend(clusters.iter().filter(|cluster| !cluster.active).map(lost));
    problems.extend(active().filter_map(deaf));
    // That they are silent says nothing of them then.
    problems.extend(told().filter(|of| !is_deaf(of.cluster_id)).filter_map(silent));
    if overview.clusters.active > 0 && overview.workers.active == 0 {
        problems.push(problem(Code::NoWorkers, None, None, "none has joined"));
    }
    for service in services {
        for instance in service.instance_list.iter().filter(|instance| counts(instance)) {
            match mood(instance.status) {
                _ if is_ready(instance) => overview.instances.running += 1,
                Mood::Bad => overview.instances.failed += 1,
                _ => overview.instances.waiting += 1,
            }
        }
        problems.extend(unwell(service, apps, services));
        problems.extend(astray(service, apps, services));
    }
    problems.sort_by_key(|problem| problem.severity);
    overview
}

fn problem(code: Code, subject: Option<Subject>, since: Option<f64>, message: impl Into<String>) -> Problem {
    Problem { severity: code.severity(), code, subject, since, message: message.into() }
}

fn lost(cluster: &Cluster) -> Problem {
    let subject = Subject { kind: Kind::Cluster, id: cluster.id, name: cluster.cluster_name.clone() };
    let since = Some(cluster.last_modified_timestamp).filter(|since| *since > 0.0);
    problem(Code::ClusterLost, Some(subject), since, "its services run on as last seen")
}

/// A cluster that hears nothing of its workers.
fn deaf(cluster: &Cluster) -> Option<Problem> {
    let since = cluster.broker_away_since?;
    let subject = Subject { kind: Kind::Cluster, id: cluster.id, name: cluster.cluster_name.clone() };
    let message = "its services run on as last seen, nothing is moved and nothing begun";
    Some(problem(Code::BrokerAway, Some(subject), Some(since), message))
}

/// A worker that is not heard of.
#[expect(clippy::cast_precision_loss, reason = "shown to the second")]
fn silent(of: &Worker) -> Option<Problem> {
    let worker = &of.worker;
    let (code, message) = match worker.state {
        WorkerState::Ready => return None,
        WorkerState::Unreachable => {
            let noun = if worker.instances == 1 { "instance" } else { "instances" };
            let message = format!("{} {noun} there as last seen, nothing is moved yet", worker.instances);
            (Code::WorkerUnreachable, message)
        }
        WorkerState::Dead => (Code::WorkerDead, "its instances are placed elsewhere".to_owned()),
    };
    let subject = Subject { kind: Kind::Worker, id: worker.id, name: worker.name.clone() };
    Some(problem(code, Some(subject), Some(of.told_timestamp - worker.silent as f64), message))
}

/// A service of which not all runs that should.
fn unwell(service: &Service, apps: &[Application], services: &[Service]) -> Option<Problem> {
    let standing = standing(service);
    let code = match standing.mood {
        Mood::Bad => Code::ServiceFailed,
        Mood::Changing => Code::ServiceWaiting,
        Mood::Plain | Mood::Good => return None,
    };
    let name = label(service, apps, services);
    let subject = Subject { kind: Kind::Service, id: service.id, name };
    let message = format!("{} of {} run; {}", standing.ready, standing.total, standing.cause);
    Some(problem(code, Some(subject), None, message))
}

/// A service of which something runs, but not as it asks for.
fn astray(service: &Service, apps: &[Application], services: &[Service]) -> Option<Problem> {
    let (number, shortfall) = service.instance_list.iter().find_map(|instance| {
        let shortfall = shortfall(instance.status, instance.status_detail.as_deref())?;
        Some((instance.instance_number, shortfall))
    })?;
    let name = label(service, apps, services);
    let subject = Subject { kind: Kind::Service, id: service.id, name };
    Some(problem(Code::ServiceAstray, Some(subject), None, format!("/{number}: {shortfall}")))
}

/// `app/service`; with namespaces where that would fit another one, too.
fn label(service: &Service, apps: &[Application], services: &[Service]) -> String {
    let (app, name) = (&service.app_name, &service.service_name);
    let of_app = apps.iter().filter(|other| other.name == *app).count();
    let of_service = services
        .iter()
        .filter(|other| other.application_id == service.application_id && other.service_name == *name);
    let app = if of_app < 2 { app.clone() } else { format!("{app}.{}", service.app_ns) };
    let name = if of_service.count() < 2 { name.clone() } else { format!("{name}.{}", service.service_ns) };
    format!("{app}/{name}")
}

#[cfg(test)]
mod tests;
