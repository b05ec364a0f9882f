//! Instances: asked for and taken back by people, with their addresses and with what the clusters must be told.

use protocol::id::Id;
use protocol::net::{JobUpdate, UpdateKind};

use super::command::{Command, CommandKind};
use super::failure::Failure;
use super::record::{Record, Removed};
use super::{Root, key};
use crate::store::{Entry, StoreError, Transaction};

impl Root {
    /// Asks for one more instance. It is placed in the background.
    pub(super) async fn add_instance(&self, service: Id) -> Result<u32, Failure> {
        let free = self.pool().take();
        let added = self
            .change_service(service, |record, transaction| {
                if let Some(address) = record.chosen_for_next() {
                    // The service has had it since it was made.
                    let number = record.add_instance(address);
                    return (transaction.put(&key::unplaced(service, number), &()), Ok((number, false)));
                }
                let address = match free {
                    Ok(address) => address,
                    Err(error) => return (transaction, Err(error)),
                };
                let number = record.add_instance(address);
                let transaction = transaction
                    .put(&key::unplaced(service, number), &())
                    .expect_absent(&key::address(address.into()))
                    .put(&key::address(address.into()), &service);
                (transaction, Ok((number, true)))
            })
            .await;
        let is_used = matches!(added, Ok(Some(Ok((_, true)))));
        if let (Ok(address), false) = (free, is_used) {
            self.pool().release(address.into());
        }
        let (number, _) = added?.ok_or_else(|| Failure::no_service(service))??;
        self.placement.notify_one();
        Ok(number)
    }

    /// Takes back one instance, or all of the service. Returns how many.
    pub(super) async fn remove_instances(&self, service: Id, number: Option<u32>) -> Result<usize, Failure> {
        let removed = self
            .change_service(service, |record, transaction| {
                let removed = record.remove_instances(number);
                (after_removal(record, &removed, transaction), removed)
            })
            .await?
            .ok_or_else(|| Failure::no_service(service))?;
        if let (Some(number), true) = (number, removed.is_empty()) {
            return Err(Failure::no_instance(service, number));
        }
        self.removed(service, &removed);
        Ok(removed.len())
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

    /// Changes a service and whatever goes with it, in one transaction; again from the start when somebody else
    /// changed it meanwhile. `None`: there is no such service.
    pub(super) async fn change_service<R>(
        &self,
        id: Id,
        change: impl FnMut(&mut Record, Transaction) -> (Transaction, R),
    ) -> Result<Option<R>, StoreError> {
        match self.store.get::<Record>(&key::service(id)).await? {
            Some(entry) => self.change_read(entry, change).await,
            None => Ok(None),
        }
    }

    /// As [`Self::change_service`], of one that was just read. A change that changes nothing writes nothing.
    pub(super) async fn change_read<R>(
        &self,
        entry: Entry<Record>,
        mut change: impl FnMut(&mut Record, Transaction) -> (Transaction, R),
    ) -> Result<Option<R>, StoreError> {
        let service_key = key::service(entry.value.service.id);
        let mut read = Some(entry);
        while let Some(Entry { value: before, revision }) = read {
            let mut record = before.clone();
            let transaction = Transaction::new().expect(&service_key, Some(revision));
            let (transaction, result) = change(&mut record, transaction);
            let transaction =
                if record == before { transaction } else { transaction.put(&service_key, &record) };
            if !transaction.writes() {
                return Ok(Some(result));
            }
            match self.store.commit(transaction).await {
                Err(StoreError::Conflict { key }) if key == service_key => {}
                other => return other.map(|()| Some(result)),
            }
            read = self.store.get(&service_key).await?;
        }
        Ok(None)
    }
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
    mut transaction: Transaction,
) -> Transaction {
    let name = &record.service.job_name;
    for cluster in &record.interested {
        let update = JobUpdate { job_name: name.clone(), instance_number, kind };
        transaction = transaction.put(&key::notice(*cluster, name, instance_number), &update);
    }
    transaction
}
