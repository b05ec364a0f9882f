//! Workers, as their clusters last told of them: known here to be shown, and to pass an operator's wish on. What counts is
//! what the cluster keeps.

use protocol::cluster::{UntoldWorkers, Worker, Workers};
use protocol::id::Id;

use super::Root;
use super::event::seen;
use super::failure::Failure;
use super::live::Live;
use crate::children::call::{self, Declined};
use crate::children::cluster::Cluster;
use crate::clock;
use crate::store::StoreError;
use crate::wish::Wish;

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

    /// Passes a wish on to the worker's cluster, and is done when that has kept it.
    ///
    /// # Errors
    /// When no cluster has told of such a worker, or its cluster is not reached or refuses.
    pub(super) async fn pass_on(&self, worker: Id, wish: Wish) -> Result<(), Failure> {
        let cluster = self.cluster_of(worker).await?;
        call::wish(&self.client, &cluster, worker, wish).await?;
        self.of_workers(cluster.id, |live| live.heed(cluster.id, worker, wish));
        Ok(())
    }

    /// Has the worker's cluster forget it.
    ///
    /// # Errors
    /// As [`Self::pass_on`]; [`Failure::Conflict`] if it is heard.
    pub(super) async fn delete_worker(&self, worker: Id) -> Result<(), Failure> {
        let cluster = self.cluster_of(worker).await?;
        call::delete_worker(&self.client, &cluster, worker).await?;
        self.of_workers(cluster.id, |live| live.deleted(cluster.id, worker));
        Ok(())
    }

    async fn cluster_of(&self, worker: Id) -> Result<Cluster, Failure> {
        let of = self.live().cluster_of_worker(worker);
        let unknown = || Failure::NotFound { kind: "worker", id: worker.to_string() };
        match of {
            Some(cluster) => self.cluster(cluster).await?.ok_or_else(unknown),
            None => Err(unknown()),
        }
    }
}

impl From<Declined> for Failure {
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::Conflict(why) => Self::Conflict(why),
            Declined::Otherwise(why) => Self::Cluster(why),
        }
    }
}
