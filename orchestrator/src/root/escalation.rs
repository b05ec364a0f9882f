//! What finds no worker in the cluster it was given to goes to another one that has room.
//!
//! A cluster says so in each of its reports. It keeps the instance until another one is chosen, and places it as soon as
//! it has room itself.

use protocol::cluster::ReportedService;
use protocol::id::Id;

use super::command::{Command, CommandKind};
use super::place::{Candidate, choose};
use super::record::Instance;
use super::{Root, key};
use crate::clock;
use crate::store::StoreError;

impl Root {
    /// Gives those of a cluster's instances that find no worker there to others, as far as these have room.
    pub(super) async fn escalate(
        &self,
        cluster: Id,
        reported: &ReportedService,
        candidates: &mut [Candidate],
    ) -> Result<(), StoreError> {
        for instance in reported.instance_list.iter().filter(|instance| instance.status.is_unschedulable()) {
            let (service, number) = (reported.id, instance.instance_number);
            let now = clock::moment();
            let others: Vec<_> = {
                let mut live = self.live();
                live.refusals.note((service, number), cluster, now);
                let open = |other: &&Candidate| !live.refusals.is_refused((service, number), other.id, now);
                candidates.iter().filter(open).cloned().collect()
            };
            if others.is_empty() {
                continue;
            }
            if let Some((chosen, memory)) = self.hand_over(cluster, service, number, &others).await? {
                tracing::info!(
                    service = %reported.job_name, instance = number, cluster = %chosen.name,
                    "no worker fits in the cluster that had it, another one gets it"
                );
                self.promise(chosen.id, memory, candidates);
            }
        }
        Ok(())
    }

    /// Gives an instance that still waits in one cluster to another one. `None`: none of these fits, or it waits no more.
    async fn hand_over(
        &self,
        from: Id,
        service: Id,
        number: u32,
        others: &[Candidate],
    ) -> Result<Option<(Candidate, u64)>, StoreError> {
        let outcome = self
            .change_service(service, |record, transaction| {
                let fits = record.instance(number).filter(|instance| waits_in(instance, from));
                let Some(chosen) = fits.and_then(|_| choose(&record.service.sla, others).ok()) else {
                    return (transaction, None);
                };
                record.place(number, chosen.id, &chosen.location);
                let told = |kind| Command { service, kind };
                let transaction = transaction
                    .put(&key::command(from, service, number), &told(CommandKind::Remove(number)))
                    .put(&key::command(chosen.id, service, number), &told(CommandKind::Deploy(number)));
                (transaction, Some((chosen.clone(), record.service.sla.memory)))
            })
            .await?;
        Ok(outcome.flatten())
    }
}

fn waits_in(instance: &Instance, cluster: Id) -> bool {
    instance.cluster_id == Some(cluster) && instance.status.is_unschedulable()
}
