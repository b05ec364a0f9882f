//! All services with their instances, in memory as the store has them: they are read without it, and each change is in the
//! store before it is here.
//!
//! One at a time changes a service: who has its [`Turn`]. That alone keeps changes apart, since nobody but who leads writes;
//! each one asks all the same whether the store has what it was decided from. Where it is not known whether something was
//! written, the service is read anew. The turn of a service that is being made is taken before the store has it: who finds it
//! there waits until it is here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::id::Id;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::event::Events;
use super::layout::{self, Kept};
use super::record::{Difference, Head, Instance, Record};
use super::{Root, key};
use crate::store::{Revision, Store, StoreError, Transaction};

#[derive(Debug, Default)]
pub(super) struct Services {
    slots: Mutex<BTreeMap<Id, Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    turn: Arc<AsyncMutex<()>>,
    known: Known,
}

/// What is known of a service.
#[derive(Debug, Clone, Default)]
enum Known {
    As(Version),
    /// The store is to be asked.
    #[default]
    Unclear,
    /// It is being made: for those who read, it is not there yet. Its turn is over when it is, or is not to be.
    New,
}

/// A service as the store has it.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) record: Arc<Record>,
    revision: Revision,
}

/// Whoever has it is the only one who changes this service. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    service: Id,
    _held: Arc<OwnedMutexGuard<()>>,
}

/// What a service becomes by a transaction.
#[derive(Debug)]
pub(super) struct Change {
    service: Id,
    /// Of one that is new, it is taken when this is committed.
    turn: Option<Turn>,
    becomes: Option<Record>,
}

impl Change {
    pub(super) fn new(record: Record) -> Self {
        Self { service: record.service.id, turn: None, becomes: Some(record) }
    }

    pub(super) fn deleted(turn: Turn) -> Self {
        Self { service: turn.service, turn: Some(turn), becomes: None }
    }
}

impl Services {
    /// Reads all that the store has, which has this version's layout afterwards.
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let mut heads = BTreeMap::new();
        for (path, entry) in store.list::<Kept>(key::SERVICES).await? {
            let head = layout::of_today(store, &path, entry).await?;
            heads.insert(head.service.id, head);
        }
        let mut instances: BTreeMap<Id, Vec<Instance>> = BTreeMap::new();
        for (path, entry) in store.list::<Instance>(key::INSTANCES).await? {
            let below = path.strip_prefix(key::INSTANCES).and_then(|below| below.split('/').next());
            match below.and_then(|service| service.parse().ok()) {
                Some(service) => instances.entry(service).or_default().push(entry.value),
                None => tracing::error!(key = path, "key is not understood"),
            }
        }
        let mut slots = BTreeMap::new();
        for (path, entry) in store.list::<u32>(key::NEXT_INSTANCES).await? {
            let service = path.strip_prefix(key::NEXT_INSTANCES).and_then(|id| id.parse::<Id>().ok());
            let Some((service, head)) = service.and_then(|id| heads.remove_entry(&id)) else {
                tracing::error!(key = path, "number of no service");
                continue;
            };
            let instances = instances.remove(&service).unwrap_or_default();
            let record = Arc::new(Record::of(head, entry.value, instances));
            let known = Known::As(Version { record, revision: entry.revision });
            slots.insert(service, Slot { known, ..Slot::default() });
        }
        for service in heads.keys() {
            tracing::error!(%service, "service without the number of its next instance");
        }
        Ok(Self { slots: Mutex::new(slots) })
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Id, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one's turn. `None`: there is no such service.
    pub(super) async fn turn(&self, service: Id) -> Option<Turn> {
        let turn = Arc::clone(&self.slots().get(&service)?.turn);
        Some(Turn { service, _held: Arc::new(turn.lock_owned().await) })
    }

    /// Takes the turns of the services that a transaction is to make, before anybody can know of them.
    async fn reserve(&self, changes: &mut [Change]) {
        for change in changes {
            if change.turn.is_some() {
                continue;
            }
            let slot = Slot { known: Known::New, ..Slot::default() };
            let held = Arc::clone(&slot.turn).lock_owned().await;
            change.turn = Some(Turn { service: change.service, _held: Arc::new(held) });
            self.slots().insert(change.service, slot);
        }
    }

    /// Keeps what a transaction has made of services, or has not. Their turns are over, as far as the changes have them.
    fn settle(&self, changes: Vec<Change>, outcome: &Result<Revision, StoreError>, events: &Events) {
        let mut slots = self.slots();
        for Change { service, turn, becomes } in changes {
            let is_new = slots.get(&service).is_some_and(|slot| matches!(slot.known, Known::New));
            match (outcome, becomes) {
                (Ok(revision), Some(record)) => {
                    let version = Version { record: Arc::new(record), revision: *revision };
                    let slot = slots.entry(service).or_default();
                    match std::mem::replace(&mut slot.known, Known::As(version.clone())) {
                        Known::As(before) => events.of_service(Some(&before.record), Some(&version.record)),
                        Known::New => events.of_service(None, Some(&version.record)),
                        Known::Unclear => {}
                    }
                }
                (Ok(_), None) => {
                    if let Some(Slot { known: Known::As(before), .. }) = slots.remove(&service) {
                        events.of_service(Some(&before.record), None);
                    }
                }
                // Nothing was written of one that was to be new.
                (Err(StoreError::Conflict { .. } | StoreError::Deposed), _) if is_new => {
                    slots.remove(&service);
                }
                (Err(_), _) => slots.entry(service).or_default().known = Known::Unclear,
            }
            drop(turn);
        }
    }
}

impl Root {
    pub(super) async fn service(&self, id: Id) -> Result<Option<Arc<Record>>, StoreError> {
        match self.services.slots().get(&id).map(|slot| slot.known.clone()) {
            None | Some(Known::New) => return Ok(None),
            Some(Known::As(version)) => return Ok(Some(version.record)),
            Some(Known::Unclear) => {}
        }
        self.settled_service(id).await
    }

    /// The same once all that is under way is in it. The store shows a change before it is here: who acts on what it has found
    /// there asks for this.
    pub(super) async fn settled_service(&self, id: Id) -> Result<Option<Arc<Record>>, StoreError> {
        let Some(turn) = self.services.turn(id).await else { return Ok(None) };
        Ok(self.version(&turn).await?.map(|version| version.record))
    }

    /// By their ids.
    pub(super) async fn services(&self) -> Result<Vec<Arc<Record>>, StoreError> {
        let ids: Vec<Id> = {
            let slots = self.services.slots();
            let known = slots.values().filter_map(|slot| match &slot.known {
                Known::As(version) => Some(Some(Arc::clone(&version.record))),
                Known::Unclear => Some(None),
                Known::New => None,
            });
            let records: Option<_> = known.collect();
            match records {
                Some(records) => return Ok(records),
                None => slots.keys().copied().collect(),
            }
        };
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            records.extend(self.service(id).await?);
        }
        Ok(records)
    }

    /// The service whose turn one has. `None`: it is there no more.
    pub(super) async fn version(&self, turn: &Turn) -> Result<Option<Version>, StoreError> {
        let id = turn.service;
        match self.services.slots().get(&id).map(|slot| slot.known.clone()) {
            None => return Ok(None),
            Some(Known::As(version)) => return Ok(Some(version)),
            Some(Known::Unclear | Known::New) => {}
        }
        // Its revision is that of the whole, so it comes first: what is written meanwhile makes the next change a conflict.
        let next = self.store.get::<u32>(&key::next_instance(id)).await?;
        let head = self.store.get::<Head>(&key::service(id)).await?;
        let instances = self.store.list::<Instance>(&key::instances(id)).await?;
        let version = head.zip(next).map(|(head, next)| {
            let instances = instances.into_iter().map(|(_, entry)| entry.value);
            let record = Arc::new(Record::of(head.value, next.value, instances));
            Version { record, revision: next.revision }
        });
        let mut slots = self.services.slots();
        match &version {
            Some(version) => slots.entry(id).or_default().known = Known::As(version.clone()),
            None => drop(slots.remove(&id)),
        }
        Ok(version)
    }

    /// Commits a transaction, and what it makes of services. It goes on to its end whatever becomes of the caller.
    pub(super) async fn commit(
        &self,
        mut changes: Vec<Change>,
        transaction: Transaction,
    ) -> Result<(), StoreError> {
        let (store, services) = (self.store.clone(), Arc::clone(&self.services));
        let events = Arc::clone(&self.events);
        let committed = tokio::spawn(async move {
            services.reserve(&mut changes).await;
            let outcome = store.commit_revision(transaction).await;
            services.settle(changes, &outcome, &events);
            outcome.map(|_revision| ())
        });
        committed.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Changes a service and whatever goes with it, in one transaction; again from the start when the store had something
    /// else. `None`: there is no such service. A change that changes nothing writes nothing.
    pub(super) async fn change_service<R>(
        &self,
        id: Id,
        mut change: impl FnMut(&mut Record, Transaction) -> (Transaction, R),
    ) -> Result<Option<R>, StoreError> {
        let Some(turn) = self.services.turn(id).await else { return Ok(None) };
        while let Some(Version { record: before, revision }) = self.version(&turn).await? {
            let mut record = Record::clone(&before);
            let (transaction, result) = change(&mut record, Transaction::new());
            let transaction = write(&record, record.since(&before), transaction);
            if !transaction.writes() {
                return Ok(Some(result));
            }
            let next_key = key::next_instance(id);
            let transaction = transaction.expect(&next_key, Some(revision)).put(&next_key, &record.next());
            let change = Change { service: id, turn: Some(turn.clone()), becomes: Some(record) };
            match self.commit(vec![change], transaction).await {
                Err(StoreError::Conflict { key }) if key == next_key => {}
                other => return other.map(|()| Some(result)),
            }
        }
        Ok(None)
    }
}

/// Writes what is different of a service.
fn write(record: &Record, difference: Difference<'_>, mut transaction: Transaction) -> Transaction {
    let id = record.service.id;
    if let Some(head) = difference.head {
        transaction = transaction.put(&key::service(id), head);
    }
    for instance in difference.instances {
        transaction = transaction.put(&key::instance(id, instance.number), instance);
    }
    difference
        .gone
        .into_iter()
        .fold(transaction, |transaction, number| transaction.delete(&key::instance(id, number)))
}

/// Writes a service that there was not.
pub(super) fn write_new(record: &Record, transaction: Transaction) -> Transaction {
    let next_key = key::next_instance(record.service.id);
    let head: &Head = record;
    let transaction = transaction.expect_absent(&next_key).put(&next_key, &record.next());
    transaction.put(&key::service(record.service.id), head)
}

impl Version {
    /// Deletes all that is kept of the service, if the store has this version.
    pub(super) fn delete(&self, transaction: Transaction) -> Transaction {
        let id = self.record.service.id;
        let next_key = key::next_instance(id);
        let transaction =
            transaction.expect(&next_key, Some(self.revision)).delete(&next_key).delete(&key::service(id));
        let numbers = self.record.instances().map(|instance| instance.number);
        numbers.fold(transaction, |transaction, number| transaction.delete(&key::instance(id, number)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use futures::FutureExt;
    use protocol::plan::Plan;

    use super::{Change, Record};
    use crate::children::cluster::Registration;
    use crate::object_id;
    use crate::root::command::{Command, CommandKind};
    use crate::root::key;
    use crate::root::tests::{create, open};
    use crate::store::{StoreError, Transaction};

    #[tokio::test]
    async fn a_command_that_the_store_shows_before_its_instance_is_placed_here_is_not_lost() {
        let told = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&told);
        let cluster = Router::new().fallback(move || {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready("ok")
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(axum::serve(listener, cluster).into_future());

        let data = tempfile::tempdir().unwrap();
        let root = open(&data, Plan::default()).await.unwrap();
        let (name, location, ip) = ("one".to_owned(), "here".to_owned(), "127.0.0.1".to_owned());
        let registration = Registration { name, location, ip, port, net_port: port };
        let cluster = root.register(registration).await.unwrap();
        let (_, service) = create(&root, 1).await.unwrap();
        let number = root.add_instance(service).await.unwrap();

        let turn = root.services.turn(service).await.unwrap();
        let mut placed = Record::clone(&root.version(&turn).await.unwrap().unwrap().record);
        placed.place(number, cluster, "here");
        let command = Command { service, kind: CommandKind::Deploy(number) };
        root.store.put(&key::command(cluster, service, number), &command).await.unwrap();
        let sending = {
            let root = Arc::clone(&root);
            tokio::spawn(async move { root.send_commands(cluster).await })
        };
        // It has found the command, and waits for the turn: beside the slot and this test.
        let waits = || Arc::strong_count(&root.services.slots()[&service].turn) > 2;
        while !waits() && !sending.is_finished() {
            tokio::task::yield_now().await;
        }
        let change = Change { service, turn: Some(turn), becomes: Some(placed) };
        root.commit(vec![change], Transaction::new().put("test", &())).await.unwrap();
        assert_eq!(sending.await.unwrap().unwrap(), 1);
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn whoever_knows_of_a_service_that_is_being_made_waits_until_it_is_or_is_not_to_be() {
        let data = tempfile::tempdir().unwrap();
        let root = open(&data, Plan::default()).await.unwrap();
        let (_, other) = create(&root, 1).await.unwrap();
        let turn = root.services.turn(other).await.unwrap();
        let version = root.version(&turn).await.unwrap().unwrap();
        let conflict = StoreError::Conflict { key: String::new() };
        for (outcome, has_slot, is_there) in [
            (Ok(version.revision), true, true),
            (Err(conflict), false, false),
            (Err(StoreError::Deposed), false, false),
            // It is not known whether it was written: the store has it not.
            (Err(StoreError::Closed), true, false),
        ] {
            let mut record = Record::clone(&version.record);
            record.service.id = object_id::new();
            let id = record.service.id;
            let mut changes = vec![Change::new(record)];
            root.services.reserve(&mut changes).await;
            assert!(root.services.turn(id).now_or_never().is_none(), "{outcome:?}: it is waited for");
            assert!(root.service(id).await.unwrap().is_none(), "{outcome:?}: it is not there yet");
            let count = root.services().await.unwrap().len();
            root.services.settle(changes, &outcome, &root.events);
            assert_eq!(root.services.turn(id).await.is_some(), has_slot, "{outcome:?}");
            assert_eq!(root.service(id).await.unwrap().is_some(), is_there, "{outcome:?}");
            assert_eq!(root.services.turn(id).await.is_some(), is_there, "{outcome:?}");
            assert_eq!(root.services().await.unwrap().len(), count + usize::from(is_there), "{outcome:?}");
        }
    }
}
