//! Clusters that are not heard of any more. What they were given goes to others, each instance as soon as its service says;
//! that a cluster is silent does not mean that its workers are, so that this is not soon unless it is asked for.
//!
//! Should the cluster come back, it is told to remove what has gone elsewhere; or it has it back, where a service would
//! rather have the original.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::event::Code;
use protocol::id::Id;
use protocol::net::UpdateKind;
use protocol::outage::{Outage, Reconcile};
use protocol::service::Instance as Document;
use protocol::status::Status;
use tokio_util::sync::CancellationToken;

use super::command::{Command, CommandKind};
use super::instance::notify;
use super::place::{Candidate, choose};
use super::record::{Instance, Record};
use super::{Root, key};
use crate::clock;
use crate::error::chain;
use crate::store::StoreError;

/// How often the clusters are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often all services are gone through while a cluster is silent and nothing else asks for it.
const SEARCH_EVERY: f64 = 30.0;
/// The same while there is something that fits nowhere else.
const TRY_EVERY: f64 = 5.0;

pub(super) async fn run(root: Arc<Root>, shutdown: CancellationToken) {
    let mut watch = Watch::default();
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        if let Err(error) = root.look_for_lost(&mut watch).await {
            tracing::error!(error = %chain(&error), "instances of silent clusters could not be looked for");
        }
    }
}

/// What is known of silent clusters from one look to the next.
#[derive(Debug, Default)]
struct Watch {
    silent: BTreeSet<Id>,
    /// Those of them that were heard of before by this root.
    lost: BTreeSet<Id>,
    /// When there is something to do next, by the steady clock.
    next: f64,
}

/// A cluster that is not heard of.
#[derive(Debug, Clone)]
struct Silent {
    name: String,
    silence: Duration,
}

impl Root {
    async fn look_for_lost(&self, watch: &mut Watch) -> Result<(), StoreError> {
        let now = clock::moment();
        let silent: BTreeMap<Id, Silent> = {
            let clusters = self.clusters().await?;
            let live = self.live();
            let unheard = clusters.into_iter().filter(|cluster| !live.is_active(cluster.id, now));
            unheard
                .map(|cluster| {
                    let silence = live.silence(cluster.id, now);
                    (cluster.id, Silent { name: cluster.name, silence })
                })
                .collect()
        };
        let ids: BTreeSet<Id> = silent.keys().copied().collect();
        for id in ids.difference(&watch.silent) {
            let Silent { name, silence } = &silent[id];
            tracing::warn!(cluster = %name, %id, ?silence, "cluster is not heard of; its instances stay until their time is up");
            let was_heard = self.live().cluster(*id).is_some_and(|view| view.last_heard() > 0.0);
            if was_heard && watch.lost.insert(*id) {
                self.events.of_cluster(*id, Code::Lost, "its services run on as last seen");
            }
        }
        for id in watch.lost.difference(&ids) {
            self.events.of_cluster(*id, Code::Back, "");
        }
        watch.lost.retain(|id| ids.contains(id));
        if silent.is_empty() || (ids == watch.silent && now.steady < watch.next) {
            watch.silent = ids;
            return Ok(());
        }
        watch.silent = ids;
        watch.next = now.steady + self.replace_lost(&silent).await?;
        Ok(())
    }

    /// Gives what silent clusters have had for too long to others. Returns the seconds until there may be more to do.
    async fn replace_lost(&self, silent: &BTreeMap<Id, Silent>) -> Result<f64, StoreError> {
        let mut candidates = self.candidates().await?;
        let mut next = SEARCH_EVERY;
        for record in self.services().await? {
            let outage = Outage::of(&record.service.sla);
            let Some(patience) = outage.on_disconnect.patience(self.cluster_timeout) else { continue };
            for instance in record.instances() {
                let Some((id, cluster)) = lost_with(instance, silent) else { continue };
                if cluster.silence < patience {
                    next = next.min((patience - cluster.silence).as_secs_f64());
                    continue;
                }
                let number = instance.number;
                match self.replace(id, &record, number, outage.reconcile, &candidates).await? {
                    Some(chosen) => {
                        tracing::warn!(
                            service = %record.service.job_name, instance = number, lost = %cluster.name,
                            cluster = %chosen.name, "instance of a silent cluster goes to another one"
                        );
                        self.promise(chosen.id, record.service.sla.memory, &mut candidates);
                    }
                    None => next = next.min(TRY_EVERY),
                }
            }
        }
        Ok(next)
    }

    /// Gives an instance that a silent cluster has to another one. `None`: none fits, or it is there no more.
    async fn replace(
        &self,
        lost: Id,
        record: &Record,
        number: u32,
        reconcile: Reconcile,
        candidates: &[Candidate],
    ) -> Result<Option<Candidate>, StoreError> {
        // Most often this is asked again and again with the same answer, which need not be a transaction.
        if choose(&record.service.sla, candidates).is_err() {
            return Ok(None);
        }
        let service = record.service.id;
        let outcome = self
            .change_service(service, |record, mut transaction| {
                let is_there = record.instance(number).is_some_and(|it| it.cluster_id == Some(lost));
                let chosen = choose(&record.service.sla, candidates).ok().filter(|_| is_there);
                let Some(chosen) = chosen else { return (transaction, None) };
                let told = |kind| Command { service, kind };
                if reconcile == Reconcile::Original {
                    record.remember_original(number);
                    transaction = transaction.delete(&key::command(lost, service, number));
                } else {
                    transaction = transaction
                        .put(&key::command(lost, service, number), &told(CommandKind::Remove(number)));
                }
                record.place(number, chosen.id, &chosen.location);
                let deploy = told(CommandKind::Deploy(number));
                (transaction.put(&key::command(chosen.id, service, number), &deploy), Some(chosen.clone()))
            })
            .await?;
        Ok(outcome.flatten())
    }

    /// A cluster that was given up runs what others were given meanwhile: of services that would rather have the original,
    /// it has them back.
    pub(super) async fn take_back(
        &self,
        cluster: Id,
        record: &Record,
        reported: &[Document],
    ) -> Result<(), StoreError> {
        let service = record.service.id;
        let is_back = |instance: &&Document| {
            let known = record.instance(instance.instance_number);
            instance.status == Status::Running && known.is_some_and(|known| known.is_original_of(cluster))
        };
        for instance in reported.iter().filter(is_back) {
            let number = instance.instance_number;
            let location = self.cluster(cluster).await?.map(|known| known.location).unwrap_or_default();
            self.change_service(service, |record, transaction| {
                let newer = record.instance(number).and_then(|instance| instance.cluster_id);
                if !record.restore_original(number, cluster, &location) {
                    return (transaction, ());
                }
                record.observe(cluster, instance);
                let mut transaction = notify(record, number.into(), UpdateKind::Deployment, transaction);
                if let Some(newer) = newer {
                    let remove = Command { service, kind: CommandKind::Remove(number) };
                    transaction = transaction.put(&key::command(newer, service, number), &remove);
                }
                (transaction, ())
            })
            .await?;
            tracing::info!(
                %cluster, service = %record.service.job_name, instance = number,
                "the original is back, and takes over again"
            );
            self.wake();
        }
        Ok(())
    }
}

/// The silent cluster that has an instance.
fn lost_with<'a>(instance: &Instance, silent: &'a BTreeMap<Id, Silent>) -> Option<(Id, &'a Silent)> {
    let cluster = instance.cluster_id.filter(|_| instance.status != Status::Completed)?;
    silent.get(&cluster).map(|lost| (cluster, lost))
}
