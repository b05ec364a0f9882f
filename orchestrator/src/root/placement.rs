//! Gives each instance that waits to a cluster. Runs whenever an instance is asked for and whenever a cluster was
//! heard of, so what finds no place now finds it as soon as there is one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use protocol::id::Id;
use protocol::status::Status;
use tokio_util::sync::CancellationToken;

use super::command::{Command, CommandKind};
use super::place::{Candidate, choose};
use super::record::Record;
use super::{Root, key};
use crate::clock;
use crate::error::chain;
use crate::store::{StoreError, Transaction};

/// Instances of one service that are placed in one transaction.
const TOGETHER: usize = 64;
/// Transactions that are under way at the same time: the store makes them durable together.
const AT_ONCE: usize = 64;
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

/// An instance that was given to a cluster, and how many MB it needs there.
struct Placed {
    number: u32,
    cluster: Candidate,
    memory: u64,
}

impl Root {
    async fn place_waiting(&self) -> Result<(), StoreError> {
        let mut waiting: BTreeMap<Id, Vec<u32>> = BTreeMap::new();
        for (key, _) in self.store.list::<()>(key::UNPLACED).await? {
            match parse(&key) {
                Some((service, number)) => waiting.entry(service).or_default().push(number),
                None => tracing::error!(key, "key is not understood"),
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let candidates = Mutex::new(self.candidates().await?);
        let mut placing = Vec::new();
        for (service, numbers) in &waiting {
            for numbers in numbers.chunks(TOGETHER) {
                placing.push(self.place_some(*service, numbers, &candidates));
            }
        }
        // Each to its end, also when another one fails: what was placed is to be promised, and told.
        let outcomes: Vec<_> = futures::stream::iter(placing).buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().collect()
    }

    /// A cluster was given an instance that needs so many MB: that counts until its reports show it, and it is to be told.
    pub(super) fn promise(&self, cluster: Id, memory: u64, candidates: &mut [Candidate]) {
        self.live().promise(cluster, memory, clock::moment());
        take(memory, cluster, candidates);
        self.wake();
    }

    /// Places instances of one service, all that find a place in one transaction. What they need there is taken from the
    /// candidates at once, since others are placed meanwhile.
    async fn place_some(
        &self,
        service: Id,
        numbers: &[u32],
        candidates: &Mutex<Vec<Candidate>>,
    ) -> Result<(), StoreError> {
        let unplaced = |number: &u32| key::unplaced(service, *number);
        let outcome = self
            .change_service(service, |record, mut transaction| {
                let mut left = candidates.lock().unwrap_or_else(PoisonError::into_inner);
                let mut placed = Vec::new();
                for number in numbers {
                    if record.instance(*number).is_none() {
                        transaction = transaction.delete(&unplaced(number));
                        continue;
                    }
                    match choose(&record.service.sla, &left) {
                        Ok(cluster) => {
                            let (number, cluster) = (*number, cluster.clone());
                            let memory = record.service.sla.memory;
                            record.place(number, cluster.id, &cluster.location);
                            let command = Command { service, kind: CommandKind::Deploy(number) };
                            transaction = transaction
                                .delete(&unplaced(&number))
                                .put(&key::command(cluster.id, service, number), &command);
                            take(memory, cluster.id, &mut left);
                            placed.push(Placed { number, cluster, memory });
                        }
                        Err(refusal) => explain(record, *number, refusal.status, &refusal.detail),
                    }
                }
                (transaction, placed)
            })
            .await?;
        if outcome.is_none() {
            let gone = numbers.iter().fold(Transaction::new(), |gone, number| gone.delete(&unplaced(number)));
            self.store.commit(gone).await?;
        }
        let now = clock::moment();
        for Placed { number, cluster, memory } in outcome.unwrap_or_default() {
            tracing::info!(%service, instance = number, cluster = %cluster.name, "instance placed");
            self.live().promise(cluster.id, memory, now);
        }
        self.wake();
        Ok(())
    }
}

/// So many MB less are free in a cluster.
fn take(memory: u64, cluster: Id, candidates: &mut [Candidate]) {
    for candidate in candidates.iter_mut().filter(|candidate| candidate.id == cluster) {
        candidate.memory = candidate.memory.saturating_sub(memory);
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
