//! Workers, as their clusters last told of them: known here to be shown, and to pass an operator's word on. What counts is
//! what the cluster keeps.

use std::time::Duration;

use protocol::cluster::{ReportedWorker, UntoldWorkers, Worker, Workers};
use protocol::id::Id;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::Root;
use super::cluster::{Cluster, unanswered};
use super::event::seen;
use super::failure::Failure;
use super::live::Live;
use crate::clock;
use crate::store::StoreError;

/// A person waits for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What an operator says of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Cordon,
    Drain,
    Uncordon,
    /// It is gone for good.
    Delete,
}

impl Root {
    pub(super) async fn workers(&self) -> Result<Workers, StoreError> {
        let mut clusters = self.clusters().await?;
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        let (live, now) = (self.live(), clock::moment());
        let (mut workers, mut untold) = (Vec::new(), Vec::new());
        for cluster in clusters {
            let Some(view) = live.cluster(cluster.id) else { continue };
            let report = view.report();
            let Some(told) = &report.workers else {
                untold.push(UntoldWorkers { cluster_name: cluster.name, count: report.active_nodes });
                continue;
            };
            let mut of_cluster: Vec<_> = told.iter().collect();
            of_cluster.sort_by(|a, b| a.name.cmp(&b.name));
            workers.extend(of_cluster.into_iter().map(|worker| Worker {
                cluster_id: cluster.id,
                cluster_name: cluster.name.clone(),
                cluster_active: live.is_active(cluster.id, now),
                told_timestamp: view.last_heard(),
                worker: worker.clone(),
            }));
        }
        Ok(Workers { workers, untold })
    }

    /// Changes what is known of a cluster, and notes what has thereby happened to its workers.
    pub(super) fn of_workers<R>(&self, cluster: Id, change: impl FnOnce(&mut Live) -> R) -> R {
        let mut live = self.live();
        let before = live.workers_of(cluster).map(|told| seen(told.iter()));
        let outcome = change(&mut live);
        if let Some(after) = live.workers_of(cluster) {
            self.events.of_workers(cluster, before.as_ref(), after);
        }
        outcome
    }

    /// Passes a word on to the worker's cluster, and is done when that has kept it.
    ///
    /// # Errors
    /// When no cluster has told of such a worker, or its cluster is not reached or refuses; [`Failure::Conflict`] of one that
    /// is to be deleted and is heard.
    pub(super) async fn pass_on(&self, worker: Id, word: Word) -> Result<(), Failure> {
        let of = self.live().cluster_of_worker(worker);
        let unknown = || Failure::NotFound { kind: "worker", id: worker.to_string() };
        let cluster: Cluster = match of {
            Some(cluster) => self.cluster(cluster).await?.ok_or_else(unknown)?,
            None => return Err(unknown()),
        };
        let (method, verb) = match word {
            Word::Cordon => (Method::POST, "/cordon"),
            Word::Drain => (Method::POST, "/drain"),
            Word::Uncordon => (Method::POST, "/uncordon"),
            Word::Delete => (Method::DELETE, ""),
        };
        let url = format!("http://{}/api/worker/{worker}{verb}", cluster.authority());
        let sent = self.client.request(method, url).timeout(ANSWER_WITHIN).send().await;
        let response = sent.map_err(|error| {
            let why = unanswered(&error);
            Failure::Cluster(format!("Cluster {} at {} {why}.", cluster.name, cluster.authority()))
        })?;
        match response.status() {
            status if status.is_success() => {
                self.of_workers(cluster.id, |live| live.heed(cluster.id, worker, word));
                Ok(())
            }
            StatusCode::NOT_FOUND => Err(Failure::Cluster(format!(
                "Cluster {} does not know that worker (any more).",
                cluster.name
            ))),
            StatusCode::CONFLICT if word == Word::Delete => {
                let why = response.json::<Refusal>().await.map(|refusal| refusal.message).unwrap_or_default();
                Err(Failure::Conflict(format!("Cluster {}: {}.", cluster.name, shortened(&why))))
            }
            status => Err(Failure::Cluster(format!("Cluster {} answered {status}.", cluster.name))),
        }
    }
}

/// What a cluster says against it.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// A person reads it.
fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

/// As many as are kept of one cluster.
pub(super) const WORKERS_MAX: usize = 16_384;

/// What is kept of what a cluster tells of its workers.
pub(super) fn bounded(mut workers: Vec<ReportedWorker>) -> Vec<ReportedWorker> {
    workers.truncate(WORKERS_MAX);
    workers
}
