//! Gives each instance that waits to a cluster. Runs whenever an instance is asked for and whenever a cluster was
//! heard of, so what finds no place now finds it as soon as there is one.

use std::sync::Arc;
use std::time::Duration;

use protocol::id::Id;
use protocol::status::Status;
use tokio_util::sync::CancellationToken;

use super::command::{Command, CommandKind};
use super::place::{Candidate, choose};
use super::record::Record;
use super::{Root, key};
use crate::clock;
use crate::error::chain;
use crate::store::StoreError;

/// The pause after the store failed.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(root: Arc<Root>, shutdown: CancellationToken) {
    loop {
        if let Err(error) = root.place_waiting().await {
            tracing::error!(error = %chain(&error), "instances could not be placed");
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
            continue;
        }
        if shutdown.run_until_cancelled(root.placement.notified()).await.is_none() {
            return;
        }
    }
}

/// What became of one instance that waited.
enum Outcome {
    Placed(Box<Candidate>, u64),
    Refused,
    Gone,
}

impl Root {
    async fn place_waiting(&self) -> Result<(), StoreError> {
        let waiting = self.store.list::<()>(key::UNPLACED).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut candidates = self.candidates().await?;
        for (key, _) in waiting {
            let Some((service, number)) = parse(&key) else {
                tracing::error!(key, "key is not understood");
                continue;
            };
            if let Outcome::Placed(cluster, memory) = self.place_one(service, number, &candidates).await? {
                self.promise(cluster.id, memory, &mut candidates);
            }
        }
        Ok(())
    }

    /// A cluster was given an instance that needs so many MB: that counts until its reports show it, and it is to be told.
    pub(super) fn promise(&self, cluster: Id, memory: u64, candidates: &mut [Candidate]) {
        self.live().promise(cluster, memory, clock::moment());
        for candidate in candidates.iter_mut().filter(|candidate| candidate.id == cluster) {
            candidate.memory = candidate.memory.saturating_sub(memory);
        }
        self.wake();
    }

    async fn place_one(
        &self,
        service: Id,
        number: u32,
        candidates: &[Candidate],
    ) -> Result<Outcome, StoreError> {
        let unplaced = key::unplaced(service, number);
        let outcome = self
            .change_service(service, |record, transaction| {
                if record.instance(number).is_none() {
                    return (transaction.delete(&unplaced), Outcome::Gone);
                }
                match choose(&record.service.sla, candidates) {
                    Ok(cluster) => {
                        record.place(number, cluster.id, &cluster.location);
                        let command = Command { service, kind: CommandKind::Deploy(number) };
                        let transaction = transaction
                            .delete(&unplaced)
                            .put(&key::command(cluster.id, service, number), &command);
                        (transaction, Outcome::Placed(Box::new(cluster.clone()), record.service.sla.memory))
                    }
                    Err(refusal) => {
                        explain(record, number, refusal.status, &refusal.detail);
                        (transaction, Outcome::Refused)
                    }
                }
            })
            .await?;
        if outcome.is_none() {
            self.store.delete(&unplaced).await?;
        }
        let outcome = outcome.unwrap_or(Outcome::Gone);
        if let Outcome::Placed(cluster, _) = &outcome {
            tracing::info!(%service, instance = number, cluster = %cluster.name, "instance placed");
        }
        Ok(outcome)
    }
}

/// Says why an instance waits, and once in the log.
fn explain(record: &mut Record, number: u32, status: Status, detail: &str) {
    let said = record.instance(number).is_some_and(|instance| {
        instance.status == status && instance.status_detail.as_deref() == Some(detail)
    });
    if !said {
        tracing::warn!(service = %record.service.job_name, instance = number, %status, detail, "instance waits");
        record.explain(number, status, detail);
    }
}

fn parse(key: &str) -> Option<(Id, u32)> {
    let (service, number) = key.strip_prefix(key::UNPLACED)?.split_once('/')?;
    Some((service.parse().ok()?, number.parse().ok()?))
}
