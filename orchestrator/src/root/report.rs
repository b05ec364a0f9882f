//! What clusters report of their instances: kept where it lasts, corrected where the cluster runs what nobody wants.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use protocol::cluster::ReportedService;
use protocol::id::Id;
use protocol::service::Instance;
use protocol::status::Status;

use super::command::{Command, CommandKind};
use super::failure::Failure;
use super::live::UnknownBase;
use super::record::Record;
use super::{Root, key};
use crate::children::report::Read;
use crate::clock::{self, Moment};
use crate::store::{StoreError, Transaction};

/// Services of a report that are taken at the same time: what they change is made durable together.
const AT_ONCE: usize = 64;
/// Instances of one service that are taken in one transaction: etcd takes so many operations and no more.
const TOGETHER: usize = 256;

impl Root {
    /// Takes a cluster's report, as it came. Gives the number that the cluster may continue it by, if it may.
    pub(super) async fn take_report(&self, cluster: Id, body: &[u8]) -> Result<Option<u32>, Failure> {
        let known = self.cluster(cluster).await?.ok_or_else(|| Failure::no_cluster(cluster))?;
        let Read { report, jobs, is_whole } = Read::of(body, &known.name).map_err(Failure::Malformed)?;
        let now = clock::moment();
        let taken = self.of_workers(cluster, |live| live.reported(cluster, report, now));
        let is_audit = taken.map_err(|UnknownBase| {
            Failure::Conflict(
                "The report that this one continues is not known here: report everything.".to_owned(),
            )
        })? && is_whole;
        let taking: Vec<_> = jobs.iter().map(|job| self.take_service(cluster, job, now)).collect();
        futures::stream::iter(taking).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let waits = |job: &&ReportedService| {
            job.instance_list.iter().any(|instance| instance.status.is_unschedulable())
        };
        let without_room: Vec<_> = jobs.iter().filter(waits).collect();
        if !without_room.is_empty() {
            let mut candidates = self.candidates().await?;
            for job in without_room {
                self.escalate(cluster, job, &mut candidates).await?;
            }
        }
        if is_audit {
            let reported = jobs
                .iter()
                .flat_map(|job| job.instance_list.iter().map(|instance| (job.id, instance.instance_number)));
            let reported = reported.collect();
            self.deploy_lost(cluster, &reported).await?;
        }
        self.cluster_heard(cluster);
        Ok(self.live().taken(cluster, rand::random()))
    }

    /// Gives a cluster again what it was given and does not report: it has lost its memory.
    async fn deploy_lost(&self, cluster: Id, reported: &HashSet<(Id, u32)>) -> Result<(), StoreError> {
        for record in self.services().await? {
            let service = record.service.id;
            for instance in record.instances() {
                let number = instance.number;
                let is_lost = instance.cluster_id == Some(cluster)
                    && instance.status != Status::Completed
                    && !reported.contains(&(service, number));
                if is_lost {
                    tracing::warn!(
                        %cluster, service = %record.service.job_name, instance = number,
                        "cluster does not report this instance, told again"
                    );
                    self.command(cluster, service, CommandKind::Deploy(number)).await?;
                }
            }
        }
        Ok(())
    }

    async fn take_service(
        &self,
        cluster: Id,
        reported: &ReportedService,
        now: Moment,
    ) -> Result<(), StoreError> {
        let Some(record) = self.service(reported.id).await? else {
            if reported.instance_list.iter().all(is_gone) {
                return Ok(());
            }
            tracing::info!(%cluster, service = %reported.job_name, "cluster runs a service that is not known");
            return self.command(cluster, reported.id, CommandKind::RemoveAll).await;
        };
        self.take_back(cluster, &record, &reported.instance_list).await?;
        let record = self.service(reported.id).await?.unwrap_or(record);
        let (own, foreign): (Vec<_>, Vec<_>) =
            reported.instance_list.iter().partition(|instance| belongs(&record, instance, cluster));
        {
            let mut live = self.live();
            for instance in &own {
                live.observe(reported.id, instance, now);
            }
        }
        for own in own.chunks(TOGETHER) {
            self.change_service(reported.id, |record, transaction| {
                own.iter().for_each(|instance| record.observe(cluster, instance));
                (transaction, ())
            })
            .await?;
        }
        for instance in foreign.iter().filter(|instance| !is_gone(instance)) {
            self.command(cluster, reported.id, CommandKind::Remove(instance.instance_number)).await?;
        }
        Ok(())
    }

    /// Leaves a command for a cluster, unless one about the same waits already.
    async fn command(&self, cluster: Id, service: Id, kind: CommandKind) -> Result<(), StoreError> {
        let key = match kind {
            CommandKind::Deploy(number) | CommandKind::Remove(number) => {
                key::command(cluster, service, number)
            }
            CommandKind::RemoveAll => key::command(cluster, service, -1),
        };
        let command = Command { service, kind };
        match self.store.commit(Transaction::new().expect_absent(&key).put(&key, &command)).await {
            Err(StoreError::Conflict { .. }) => Ok(()),
            other => {
                self.commands.notify_one();
                other
            }
        }
    }
}

/// A cluster reports once more what it has removed.
fn is_gone(reported: &Instance) -> bool {
    reported.status == Status::Undeployed
}

/// Whether the root wants this instance to run in this cluster.
fn belongs(record: &Record, reported: &Instance, cluster: Id) -> bool {
    record.instance(reported.instance_number).is_some_and(|instance| instance.cluster_id == Some(cluster))
}
