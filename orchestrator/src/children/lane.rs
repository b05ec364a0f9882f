//! Tells clusters what they have yet to be told, as long as it takes. Each kind of news has its lane, and each cluster in a
//! lane its own worker, so that a slow or absent cluster keeps nobody else waiting, and a slow deploy no table update. A worker
//! lives while there is something to tell its cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::id::Id;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::call::CallError;
use super::cluster::{self, Cluster};
use crate::error::chain;
use crate::store::{Entry, Store, StoreError, Transaction};

/// The first and the longest pause before a cluster that could not be told is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What was told is noted in transactions of so many.
const NOTED_TOGETHER: usize = 256;

/// One kind of what clusters have to be told. It is in the store, under a prefix and the id of the cluster.
pub(crate) trait Lane: Send + Sync + 'static {
    /// For the log.
    const NAME: &'static str;
    const PREFIX: &'static str;

    fn store(&self) -> &Store;

    /// There is more to tell.
    fn wake(&self) -> &Notify;

    /// A cluster was heard of: whoever waits to try it again need not wait longer.
    fn heard(&self) -> &Sender<Id>;

    /// Tells a cluster what waits for it, and notes it. Returns how much that was, or the first failure.
    fn tell(&self, cluster: Id) -> impl Future<Output = Result<usize, CallError>> + Send;
}

pub(crate) async fn run<L: Lane>(lane: L, shutdown: CancellationToken) {
    let lane = Arc::new(lane);
    let mut workers = JoinSet::new();
    let mut busy = HashMap::new();
    loop {
        match lane.store().branches(L::PREFIX).await {
            Ok(clusters) => {
                for cluster in clusters.iter().filter_map(|id| id.parse().ok()) {
                    busy.entry(cluster).or_insert_with(|| {
                        workers.spawn(tell(Arc::clone(&lane), cluster, shutdown.clone())).id()
                    });
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "what clusters have to be told could not be read")
            }
        }
        tokio::select! {
            () = lane.wake().notified() => {}
            Some(ended) = workers.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "a worker failed");
                        error.id()
                    }
                };
                busy.retain(|_, task| *task != id);
            }
            () = shutdown.cancelled() => break,
        }
    }
    while workers.join_next().await.is_some() {}
}

/// Tells one cluster all that there is, then ends.
async fn tell<L: Lane>(lane: Arc<L>, cluster: Id, shutdown: CancellationToken) {
    let mut pause = PAUSE_MIN;
    let mut failing = false;
    let mut heard = lane.heard().subscribe();
    while !shutdown.is_cancelled() {
        match lane.tell(cluster).await {
            Ok(0) => return,
            Ok(_) => {
                if failing {
                    tracing::info!(%cluster, lane = L::NAME, "cluster can be told again");
                }
                (pause, failing) = (PAUSE_MIN, false);
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%cluster, lane = L::NAME, error = %chain(&error), "cluster could not be told, trying again");
                }
                failing = true;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = is_heard(&mut heard, cluster) => {}
                    () = shutdown.cancelled() => return,
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Ends when the cluster registers or reports. It may still refuse, so this also waits the shortest pause.
async fn is_heard(heard: &mut Receiver<Id>, cluster: Id) {
    tokio::time::sleep(PAUSE_MIN).await;
    loop {
        match heard.recv().await {
            Ok(id) if id != cluster => {}
            // Heard, or so much was heard that it may have been among it.
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The cluster and what it has to be told. Of a cluster that is not known, everything is forgotten.
pub(crate) async fn waiting<T: DeserializeOwned>(
    store: &Store,
    prefix: &str,
    cluster: Id,
) -> Result<(Option<Cluster>, Vec<(String, Entry<T>)>), StoreError> {
    let entries = store.list::<T>(&format!("{prefix}{cluster}/")).await?;
    let known = cluster::known(store, cluster).await?;
    if known.is_none() {
        all_told(store, entries).await?;
        return Ok((None, Vec::new()));
    }
    Ok((known, entries))
}

/// As [`told`], of several things.
pub(crate) async fn all_told<T>(store: &Store, told: Vec<(String, Entry<T>)>) -> Result<(), StoreError> {
    let forget = |transaction: Transaction, (key, entry): &(String, Entry<T>)| {
        transaction.expect(key, Some(entry.revision)).delete(key)
    };
    for some in told.chunks(NOTED_TOGETHER) {
        match store.commit(some.iter().fold(Transaction::new(), forget)).await {
            Err(StoreError::Conflict { .. }) => {
                for (key, entry) in some {
                    self::told(store, key, entry).await?;
                }
            }
            other => other?,
        }
    }
    Ok(())
}

/// Deletes what was told, unless it was replaced meanwhile: then that has to be told next.
async fn told<T>(store: &Store, key: &str, entry: &Entry<T>) -> Result<(), StoreError> {
    match store.commit(Transaction::new().expect(key, Some(entry.revision)).delete(key)).await {
        Err(StoreError::Conflict { .. }) => Ok(()),
        other => other,
    }
}
