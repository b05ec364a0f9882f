//! What takes more than one transaction, since etcd takes so much in one: to delete an application of many services, and to make
//! one. Either begins by writing down what goes, and ends by deleting that note together with the last of it; where something is
//! made, by deleting it without more. Whatever comes between, a crash or a store that is out of reach, ends likewise: what the
//! note names goes, when the root starts or after a pause. Meanwhile none of it is shown, since no application lists it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use protocol::id::Id;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::{Root, key};
use crate::error::chain;
use crate::store::{Revision, Store, StoreError, Transaction};

/// Services that are deleted at the same time: the store makes it durable together.
const AT_ONCE: usize = 16;
/// The pause after the store failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Unfinished {
    /// Keys of the names of applications. They stay taken until everything else is gone.
    pub names: Vec<String>,
    /// Those that are there of these.
    pub services: Vec<Id>,
}

/// What nobody waits for any more, and is to be cleared away in the background.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    notes: Mutex<BTreeSet<Id>>,
    more: Notify,
}

impl Leftovers {
    /// Of whoever used this store before.
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let notes = store.branches(key::UNFINISHED).await?;
        let notes = notes.iter().filter_map(|id| id.parse().ok()).collect();
        Ok(Self { notes: Mutex::new(notes), more: Notify::new() })
    }

    fn add(&self, note: Id) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(note);
        self.more.notify_one();
    }

    fn take(&self) -> BTreeSet<Id> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) async fn run(root: Arc<Root>, shutdown: CancellationToken) {
    loop {
        let mut failed = false;
        for note in root.leftovers.take() {
            if let Err(error) = root.clear_away_left(note).await {
                tracing::error!(error = %chain(&error), "what was left unfinished could not be cleared away");
                root.leftovers.add(note);
                failed = true;
            }
        }
        let pause = async {
            root.leftovers.more.notified().await;
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
        };
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

impl Root {
    /// Goes on to the end, whatever becomes of the caller.
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        self.tasks.spawn(work).await.map_err(|_panicked| Failure::from(StoreError::Closed))?
    }

    /// Writes down what goes unless the note does before, together with the transaction.
    pub(super) async fn begin(
        &self,
        note: Id,
        unfinished: &Unfinished,
        transaction: Transaction,
    ) -> Result<Revision, StoreError> {
        let outcome = self.store.commit_revision(transaction.put(&key::unfinished(note), unfinished)).await;
        if outcome.as_ref().is_err_and(StoreError::is_unclear) {
            self.clear_away_later(note);
        }
        outcome
    }

    pub(super) fn clear_away_later(&self, note: Id) {
        self.leftovers.add(note);
    }

    pub(super) async fn clear_away_or_later(
        &self,
        note: Id,
        unfinished: &Unfinished,
        revision: Revision,
    ) -> Result<(), Failure> {
        let outcome = self.clear_away(note, unfinished, revision).await;
        if outcome.is_err() {
            self.clear_away_later(note);
        }
        outcome
    }

    /// `revision`: of the note. An end that comes late takes no name from who has it by then.
    async fn clear_away(&self, note: Id, unfinished: &Unfinished, revision: Revision) -> Result<(), Failure> {
        let deleting = unfinished.services.iter().copied().map(|service| self.delete_if_there(service));
        futures::stream::iter(deleting).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let own_key = key::unfinished(note);
        let end = Transaction::new().expect(&own_key, Some(revision)).delete(&own_key);
        let end = unfinished.names.iter().fold(end, |end, name| end.delete(name));
        Ok(self.store.commit(end).await?)
    }

    async fn delete_if_there(&self, service: Id) -> Result<(), Failure> {
        match self.delete_service(service).await {
            Err(Failure::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    async fn clear_away_left(&self, note: Id) -> Result<(), Failure> {
        let own_key = key::unfinished(note);
        // It may have been finished after all.
        let Some(entry) = self.store.get::<Unfinished>(&own_key).await? else { return Ok(()) };
        // From here on it cannot be any more, also not by what comes late.
        let claimed = Transaction::new().expect(&own_key, Some(entry.revision)).put(&own_key, &entry.value);
        let revision = self.store.commit_revision(claimed).await?;
        tracing::info!(services = entry.value.services.len(), "what was left unfinished is cleared away");
        self.clear_away(note, &entry.value, revision).await
    }
}
