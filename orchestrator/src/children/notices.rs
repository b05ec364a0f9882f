//! The lane of notices: tables that have changed, for the clusters that have them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::JobUpdate;
use reqwest::Client;
use tokio::sync::Notify;
use tokio::sync::broadcast::Sender;

use super::call::{self, CallError};
use super::cluster::Cluster;
use super::key;
use super::lane::{self, Lane};
use crate::store::{Entry, Store};

/// Services about which a cluster is sent notices at the same time.
const AT_ONCE: usize = 16;

/// Whose notices these are: its store, and how it says that there is more.
pub(crate) struct Notices {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) wake: Arc<Notify>,
    pub(crate) heard: Sender<Id>,
}

impl Lane for Notices {
    const NAME: &'static str = "notices";
    const PREFIX: &'static str = key::NOTICES;

    fn store(&self) -> &Store {
        &self.store
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }

    fn heard(&self) -> &Sender<Id> {
        &self.heard
    }

    /// Those of one service in turn, up to the first failure: what is under way then is sent again. What is done with is noted
    /// together.
    async fn tell(&self, cluster: Id) -> Result<usize, CallError> {
        let (cluster, entries) = lane::waiting::<JobUpdate>(&self.store, key::NOTICES, cluster).await?;
        let Some(cluster) = cluster else { return Ok(0) };
        let mut by_service: BTreeMap<ServiceName, Vec<(String, Entry<JobUpdate>)>> = BTreeMap::new();
        for (key, entry) in entries {
            by_service.entry(entry.value.job_name.clone()).or_default().push((key, entry));
        }
        let mut sent = futures::stream::iter(by_service.into_values())
            .map(|notices| self.send(&cluster, notices))
            .buffer_unordered(AT_ONCE);
        let (mut told, mut outcome) = (Vec::new(), Ok(()));
        while let Some((done, failed)) = sent.next().await {
            told.extend(done);
            if failed.is_err() {
                outcome = failed;
                break;
            }
        }
        drop(sent);
        let count = told.len();
        lane::all_told(&self.store, told).await?;
        outcome.map(|()| count)
    }
}

impl Notices {
    /// Sends the notices about one service, up to the first failure. Gives those that were taken.
    async fn send(
        &self,
        cluster: &Cluster,
        notices: Vec<(String, Entry<JobUpdate>)>,
    ) -> (Vec<(String, Entry<JobUpdate>)>, Result<(), CallError>) {
        let mut done = Vec::new();
        for (key, entry) in notices {
            if let Err(error) = call::notice(&self.client, cluster, &entry.value).await {
                return (done, Err(error));
            }
            done.push((key, entry));
        }
        (done, Ok(()))
    }
}
