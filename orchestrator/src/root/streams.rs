//! Those who listen, and the looks at everything that are made for all of them together, only while there are some.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::id::Id;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Root;
use super::application::Document;
use super::stream::{Ledger, Owner, Thing, Topic};
use crate::object_id;
use crate::store::StoreError;

/// At the same time: each costs a connection, and looks.
pub(super) const LISTENERS_MAX: usize = 64;
/// Between two looks, at least and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
/// Looks take at most one part of so many of the time.
const SHARE: u32 = 20;
/// What changes with each report and is asked for by itself.
const NOT_TOLD: [&str; 3] = ["cpu_history", "memory_history", "logs"];

#[derive(Debug)]
pub(super) struct Streams {
    /// Of this process: its numbers mean nothing to another one.
    pub epoch: Id,
    pub listeners: Arc<Semaphore>,
    /// Ends all of them.
    pub stop: CancellationToken,
    looked: Mutex<Looked>,
}

/// The last look.
#[derive(Debug)]
pub(super) struct Looked {
    pub ledger: Ledger,
    at: Option<Instant>,
    /// Until the next one.
    pub pause: Duration,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            epoch: object_id::new(),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
            stop: CancellationToken::new(),
            looked: Mutex::new(Looked { ledger: Ledger::default(), at: None, pause: PAUSE.0 }),
        }
    }
}

impl Root {
    /// Everything as it is now, or was a moment ago.
    pub(super) async fn look(&self) -> Result<MutexGuard<'_, Looked>, StoreError> {
        let mut looked = self.streams.looked.lock().await;
        let begin = Instant::now();
        if looked.at.is_none_or(|at| begin - at >= looked.pause) {
            let things = self.things().await?;
            looked.ledger.update(things);
            let end = Instant::now();
            looked.at = Some(end);
            looked.pause = ((end - begin) * SHARE).clamp(PAUSE.0, PAUSE.1);
        }
        Ok(looked)
    }

    pub(super) async fn things(&self) -> Result<Vec<Thing>, StoreError> {
        let (mut owners, mut things) = (BTreeMap::<Id, Owner>::new(), Vec::new());
        for application in self.applications().await? {
            let id = application.id;
            let organization = application.organization.unwrap_or(self.root_organization);
            let owner = Some((application.owner.clone(), organization));
            owners.extend(application.services.iter().map(|service| (*service, owner.clone())));
            let document = json!(Document::from(application));
            things.push(Thing { topic: Topic::Applications, id, owner, document });
        }
        for record in self.services().await? {
            let id = record.service.id;
            // One that its application does not list is not there yet, or is being deleted with it.
            let Some(owner) = owners.get(&id) else { continue };
            let mut document = self.document(&record);
            for instance in document["instance_list"].as_array_mut().into_iter().flatten() {
                leave_out(instance);
            }
            things.push(Thing { topic: Topic::Services, id, owner: owner.clone(), document });
        }
        for cluster in self.cluster_documents().await? {
            let mut document = json!(cluster);
            leave_out(&mut document);
            things.push(Thing { topic: Topic::Clusters, id: cluster.id, owner: None, document });
        }
        for worker in self.workers().await?.workers {
            let document = json!(worker);
            things.push(Thing { topic: Topic::Workers, id: worker.worker.id, owner: None, document });
        }
        let events = self.events.all().into_iter();
        things.extend(events.map(|(event, owner)| Thing {
            topic: Topic::Events,
            id: event.id,
            owner,
            document: json!(event),
        }));
        Ok(things)
    }
}

/// Empties what is not told: the keys stay, as those who read documents expect them.
fn leave_out(document: &mut Value) {
    for key in NOT_TOLD {
        match document.get_mut(key) {
            Some(Value::Array(list)) => list.clear(),
            Some(Value::String(text)) => text.clear(),
            _ => {}
        }
    }
}
