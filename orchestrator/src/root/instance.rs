//! Instances: asked for and taken back by people, with their addresses and with what the clusters must be told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::id::Id;
use protocol::net::{JobUpdate, UpdateKind};
use tokio::sync::oneshot;

use super::command::{Command, CommandKind};
use super::creation::OPERATIONS;
use super::failure::Failure;
use super::record::{Record, Removed};
use super::{Root, key};
use crate::store::{StoreError, Transaction};

/// Instances of one service that are added in one transaction, and removed at most: etcd takes so many operations and no more.
const TOGETHER: usize = 32;

/// Keys of an instance that are written or deleted when it is removed, without the notices.
const OF_EACH: usize = 4;

/// Who has asked for one more instance and waits for its number.
type Waiting = oneshot::Sender<Result<u32, Failure>>;

/// All of them, by service.
#[derive(Debug, Default)]
pub(super) struct Wanted(Mutex<BTreeMap<Id, Vec<Waiting>>>);

impl Wanted {
    /// Whether this is the first who waits.
    fn add(&self, service: Id, reply: Waiting) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.entry(service).or_default();
        waiting.push(reply);
        waiting.len() == 1
    }

    fn take(&self, service: Id) -> Vec<Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&service).unwrap_or_default()
    }
}

impl Root {
    /// Asks for one more instance. It is placed in the background. What is asked for while others are being added is added
    /// together.
    pub(super) async fn add_instance(self: &Arc<Self>, service: Id) -> Result<u32, Failure> {
        let (reply, number) = oneshot::channel();
        if self.wanted.add(service, reply) {
            let root = Arc::clone(self);
            self.tasks.spawn(async move { root.add_wanted(service).await });
        }
        number.await.map_err(|_panicked| Failure::from(StoreError::Closed))?
    }

    async fn add_wanted(&self, service: Id) {
        // Whoever asks until it is this one's turn is served with it.
        let turn = self.services.turn(service).await;
        let waiting = self.wanted.take(service);
        drop(turn);
        let mut waiting = waiting.into_iter().filter(|reply| !reply.is_closed());
        loop {
            let some: Vec<_> = waiting.by_ref().take(TOGETHER).collect();
            if some.is_empty() {
                break;
            }
            self.add_some(service, some).await;
        }
        self.placement.notify_one();
    }

    /// Adds an instance for each of these, as far as there are addresses, and tells them.
    async fn add_some(&self, service: Id, waiting: Vec<Waiting>) {
        let free: Vec<_> = waiting.iter().map(|_| self.pool().take()).collect();
        let added = self
            .change_service(service, |record, mut transaction| {
                let (mut numbers, mut unused) = (Vec::with_capacity(free.len()), Vec::new());
                for free in &free {
                    // The service has one that its author chose since it was made.
                    let chosen = record.chosen_for_next();
                    let address = match chosen.map_or(*free, Ok) {
                        Ok(address) => address,
                        Err(error) => {
                            numbers.push(Err(error));
                            continue;
                        }
                    };
                    let number = record.add_instance(address);
                    transaction = transaction.put(&key::unplaced(service, number), &());
                    if chosen.is_none() {
                        let address_key = key::address(address.into());
                        transaction = transaction.expect_absent(&address_key).put(&address_key, &service);
                    } else {
                        unused.push(*free);
                    }
                    numbers.push(Ok(number));
                }
                (transaction, (numbers, unused))
            })
            .await;
        let to_all = |failure: &dyn Fn() -> Failure| waiting.iter().map(|_| Err(failure())).collect();
        let (answers, unused): (Vec<_>, _) = match added {
            Ok(Some((numbers, unused))) => (numbers.into_iter().map(|number| Ok(number?)).collect(), unused),
            Ok(None) => (to_all(&|| Failure::no_service(service)), free),
            Err(error) => {
                let error = Arc::new(error);
                (to_all(&|| Failure::Store(Arc::clone(&error))), free)
            }
        };
        {
            let mut pool = self.pool();
            unused.into_iter().flatten().for_each(|address| pool.release(address.into()));
        }
        for (reply, answer) in waiting.into_iter().zip(answers) {
            let _caller_gone = reply.send(answer);
        }
    }

    /// Takes back one instance, or all of the service. Returns how many.
    pub(super) async fn remove_instances(&self, service: Id, number: Option<u32>) -> Result<usize, Failure> {
        if let Some(number) = number {
            let removed = self.remove_some(service, |_record| vec![number]).await?;
            return if removed == 0 { Err(Failure::no_instance(service, number)) } else { Ok(removed) };
        }
        let mut count = 0;
        loop {
            let removed = self.remove_some(service, some_of).await?;
            count += removed;
            if removed == 0 {
                return Ok(count);
            }
        }
    }

    async fn remove_some(
        &self,
        service: Id,
        which: impl Fn(&Record) -> Vec<u32> + Send + Sync,
    ) -> Result<usize, Failure> {
        let removed = self
            .change_service(service, |record, transaction| {
                let removed = record.remove_instances(which(record));
                (after_removal(record, &removed, transaction), removed)
            })
            .await?
            .ok_or_else(|| Failure::no_service(service))?;
        self.removed(service, &removed);
        Ok(removed.len())
    }

    /// Removes some instances of a service that has many.
    pub(super) async fn thin_out(&self, service: Id) -> Result<(), Failure> {
        self.remove_some(service, some_of).await.map(drop)
    }

    /// What follows from a removal outside of the store.
    pub(super) fn removed(&self, service: Id, removed: &[Removed]) {
        {
            let mut pool = self.pool();
            let mut live = self.live();
            for instance in removed {
                if let Some(address) = instance.address {
                    pool.release(address.into());
                }
                live.forget(service, instance.number);
            }
        }
        self.wake();
    }
}

/// As many as one transaction removes: each with its address, a command, and a notice for each cluster that is to hear of it.
fn some_of(record: &Record) -> Vec<u32> {
    let together = (OPERATIONS / (OF_EACH + record.interested.len())).clamp(1, TOGETHER);
    record.instances().map(|instance| instance.number).take(together).collect()
}

/// Frees the addresses, tells the clusters that run the instances to remove them, and those that know their
/// addresses to forget them.
pub(super) fn after_removal(
    record: &Record,
    removed: &[Removed],
    mut transaction: Transaction,
) -> Transaction {
    let service = record.service.id;
    for instance in removed {
        transaction = transaction.delete(&key::unplaced(service, instance.number));
        if let Some(address) = instance.address {
            transaction = transaction.delete(&key::address(address.into()));
        }
        if let Some(cluster) = instance.cluster {
            let command = Command { service, kind: CommandKind::Remove(instance.number) };
            transaction = transaction.put(&key::command(cluster, service, instance.number), &command);
        }
        transaction = notify(record, i64::from(instance.number), UpdateKind::Undeployment, transaction);
    }
    transaction
}

/// Leaves a notice for each cluster that asked for this service's table.
pub(super) fn notify(
    record: &Record,
    instance_number: i64,
    kind: UpdateKind,
    transaction: Transaction,
) -> Transaction {
    notify_others(record, instance_number, kind, &[], transaction)
}

/// As [`notify`], but for those that know it already.
pub(super) fn notify_others(
    record: &Record,
    instance_number: i64,
    kind: UpdateKind,
    knows: &[Id],
    mut transaction: Transaction,
) -> Transaction {
    let name = &record.service.job_name;
    for cluster in record.interested.iter().filter(|cluster| !knows.contains(cluster)) {
        let update = JobUpdate { job_name: name.clone(), instance_number, kind };
        transaction = transaction.put(&key::notice(*cluster, name, instance_number), &update);
    }
    transaction
}
