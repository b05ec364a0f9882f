//! Tells clusters what they have yet to be told: commands (deploy, remove) and notices (a table changed).
//!
//! Each kind has its lane, and each cluster in a lane its own worker, so that a slow or absent cluster keeps nobody
//! else waiting and a slow deploy no table update. A worker lives while there is something to tell its cluster.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::JobUpdate;
use protocol::service::Service;
use protocol::status::Status;
use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::command::{Command, CommandKind};
use super::record::Record;
use super::{Root, key};
use crate::error::chain;
use crate::store::{Entry, StoreError, Transaction};

/// Commands that a cluster is sent at the same time: it makes durable together what comes together.
const AT_ONCE: usize = 64;
/// Services about which a cluster is sent notices at the same time.
const NOTICES_AT_ONCE: usize = 16;
/// What was told is noted in transactions of so many.
const NOTED_TOGETHER: usize = 256;
/// The first and the longest pause before a cluster that could not be told is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What a cluster is given to take a notice.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Commands,
    Notices,
}

/// Why a cluster was not told.
#[derive(Debug, thiserror::Error)]
pub(super) enum DispatchError {
    #[error("cluster {name} at {ip}:{port} cannot be reached")]
    Unreachable { name: String, ip: String, port: u16, source: reqwest::Error },
    #[error("cluster {name} answered {status}: {body}")]
    Refused { name: String, status: StatusCode, body: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) async fn run(root: Arc<Root>, lane: Lane, shutdown: CancellationToken) {
    let (prefix, wake) = match lane {
        Lane::Commands => (key::COMMANDS, &root.commands),
        Lane::Notices => (key::NOTICES, &root.notices),
    };
    let mut workers = JoinSet::new();
    let mut busy = HashMap::new();
    loop {
        match root.store.branches(prefix).await {
            Ok(clusters) => {
                for cluster in clusters.iter().filter_map(|id| id.parse().ok()) {
                    busy.entry(cluster).or_insert_with(|| {
                        workers.spawn(tell(root.clone(), lane, cluster, shutdown.clone())).id()
                    });
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "what clusters have to be told could not be read")
            }
        }
        tokio::select! {
            () = wake.notified() => {}
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
async fn tell(root: Arc<Root>, lane: Lane, cluster: Id, shutdown: CancellationToken) {
    let mut pause = PAUSE_MIN;
    let mut failing = false;
    let mut heard = root.heard.subscribe();
    while !shutdown.is_cancelled() {
        let outcome = match lane {
            Lane::Commands => root.send_commands(cluster).await,
            Lane::Notices => root.send_notices(cluster).await,
        };
        match outcome {
            Ok(0) => return,
            Ok(_) => {
                if failing {
                    tracing::info!(%cluster, ?lane, "cluster can be told again");
                }
                (pause, failing) = (PAUSE_MIN, false);
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%cluster, ?lane, error = %chain(&error), "cluster could not be told, trying again");
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
async fn is_heard(heard: &mut tokio::sync::broadcast::Receiver<Id>, cluster: Id) {
    tokio::time::sleep(PAUSE_MIN).await;
    loop {
        match heard.recv().await {
            Ok(id) if id != cluster => {}
            // Heard, or so much was heard that it may have been among it.
            Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => return,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Root {
    /// Sends the commands that wait for a cluster; returns how many, or the first failure.
    pub(super) async fn send_commands(&self, cluster: Id) -> Result<usize, DispatchError> {
        let (cluster, entries) = self.waiting::<Command>(key::COMMANDS, cluster).await?;
        let Some(cluster) = cluster else { return Ok(0) };
        let count = entries.len();
        let mut by_service: BTreeMap<Id, Vec<(String, Entry<Command>)>> = BTreeMap::new();
        for (key, entry) in entries {
            by_service.entry(entry.value.service).or_default().push((key, entry));
        }
        let slots = Semaphore::new(AT_ONCE);
        let mut sent = futures::stream::iter(by_service)
            .map(|(service, commands)| self.send_commands_of(&cluster, service, commands, &slots))
            .buffer_unordered(AT_ONCE);
        let mut outcome = Ok(count);
        while let Some(one) = sent.next().await {
            if let Err(error) = one {
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    /// Sends the commands about one service, each in a slot of its own; of its description and of what is done with there is
    /// one look and one note for all of them.
    async fn send_commands_of(
        &self,
        cluster: &Cluster,
        service: Id,
        commands: Vec<(String, Entry<Command>)>,
        slots: &Semaphore,
    ) -> Result<(), DispatchError> {
        let has_all = |record: &Record| {
            commands.iter().all(|(_, entry)| match entry.value.kind {
                CommandKind::Deploy(number) => is_of(record, number, cluster.id),
                CommandKind::Remove(_) | CommandKind::RemoveAll => true,
            })
        };
        let mut record = self.service(service).await?;
        if !record.as_deref().is_some_and(has_all) {
            record = self.settled_service(service).await?;
        }
        let sending = commands.into_iter().map(|(key, entry)| async {
            let _slot = slots.acquire().await;
            self.send_command(cluster, &entry.value, record.as_deref()).await.map(|()| (key, entry))
        });
        let (mut done, mut outcome) = (Vec::new(), Ok(()));
        for one in futures::future::join_all(sending).await {
            match one {
                Ok(told) => done.push(told),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.all_told(done).await?;
        outcome
    }

    async fn send_command(
        &self,
        cluster: &Cluster,
        command: &Command,
        record: Option<&Record>,
    ) -> Result<(), DispatchError> {
        let Command { service, kind } = command;
        let url = |number: &dyn std::fmt::Display| {
            format!("http://{}/api/service/{service}/{number}", cluster.authority())
        };
        let sent = match kind {
            CommandKind::Deploy(number) => {
                match record.and_then(|record| for_cluster(record, *number, cluster.id)) {
                    // Removed since: the command would have been replaced, had the cluster been told of it before.
                    None => Ok(()),
                    Some(document) => {
                        let request = self.client.post(url(number)).json(&document);
                        self.send(cluster, cluster.port, request).await
                    }
                }
            }
            CommandKind::Remove(number) => {
                self.send(cluster, cluster.port, self.client.delete(url(number))).await
            }
            CommandKind::RemoveAll => self.send(cluster, cluster.port, self.client.delete(url(&-1))).await,
        };
        match (sent, kind) {
            // There is nothing to remove: all is as it should be.
            (
                Err(DispatchError::Refused { status: StatusCode::NOT_FOUND, .. }),
                CommandKind::Remove(_) | CommandKind::RemoveAll,
            ) => Ok(()),
            (Err(error), CommandKind::Deploy(number)) => {
                self.explain_wait(*service, *number, &error).await?;
                Err(error)
            }
            (sent, _) => sent,
        }
    }

    /// Says at the instance why it does not get on.
    async fn explain_wait(&self, service: Id, number: u32, error: &DispatchError) -> Result<(), StoreError> {
        let detail = format!("Trying again: {}.", chain(error));
        self.change_service(service, |record, transaction| {
            if record.instance(number).is_some_and(|instance| instance.status == Status::ClusterScheduled) {
                record.explain(number, Status::ClusterScheduled, &detail);
            }
            (transaction, ())
        })
        .await?;
        Ok(())
    }

    /// Sends the notices that wait for a cluster, those of one service in turn, up to the first failure: what is under way then
    /// is sent again. What is done with is noted together.
    async fn send_notices(&self, cluster: Id) -> Result<usize, DispatchError> {
        let (cluster, entries) = self.waiting::<JobUpdate>(key::NOTICES, cluster).await?;
        let Some(cluster) = cluster else { return Ok(0) };
        let mut by_service: BTreeMap<ServiceName, Vec<(String, Entry<JobUpdate>)>> = BTreeMap::new();
        for (key, entry) in entries {
            by_service.entry(entry.value.job_name.clone()).or_default().push((key, entry));
        }
        let mut sent = futures::stream::iter(by_service.into_values())
            .map(|notices| self.send_notices_of(&cluster, notices))
            .buffer_unordered(NOTICES_AT_ONCE);
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
        self.all_told(told).await?;
        outcome.map(|()| count)
    }

    /// Sends the notices about one service, up to the first failure. Gives those that were taken.
    async fn send_notices_of(
        &self,
        cluster: &Cluster,
        notices: Vec<(String, Entry<JobUpdate>)>,
    ) -> (Vec<(String, Entry<JobUpdate>)>, Result<(), DispatchError>) {
        let url = format!("http://{}/api/net/job/update", cluster.net_authority());
        let mut done = Vec::new();
        for (key, entry) in notices {
            let request = self.client.post(&url).timeout(NOTICE_TIMEOUT).json(&entry.value);
            match self.send(cluster, cluster.net_port, request).await {
                // It does not know the service: it holds no table that could be wrong.
                Err(DispatchError::Refused { status, .. }) if status.is_client_error() => {}
                Err(error) => return (done, Err(error)),
                Ok(()) => {}
            }
            done.push((key, entry));
        }
        (done, Ok(()))
    }

    /// The cluster and what it has to be told. Of a cluster that is not known, everything is forgotten.
    async fn waiting<T: DeserializeOwned>(
        &self,
        prefix: &str,
        cluster: Id,
    ) -> Result<(Option<Cluster>, Vec<(String, Entry<T>)>), StoreError> {
        let entries = self.store.list::<T>(&format!("{prefix}{cluster}/")).await?;
        let known = self.cluster(cluster).await?;
        if known.is_none() {
            self.all_told(entries).await?;
            return Ok((None, Vec::new()));
        }
        Ok((known, entries))
    }

    async fn send(
        &self,
        cluster: &Cluster,
        port: u16,
        request: reqwest::RequestBuilder,
    ) -> Result<(), DispatchError> {
        let unreachable = |source: reqwest::Error| DispatchError::Unreachable {
            name: cluster.name.clone(),
            ip: cluster.ip.clone(),
            port,
            source: source.without_url(),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body = response.text().await.unwrap_or_default();
        let body = body.chars().take(200).collect();
        Err(DispatchError::Refused { name: cluster.name.clone(), status, body })
    }

    /// As [`Self::told`], of several things.
    async fn all_told<T>(&self, told: Vec<(String, Entry<T>)>) -> Result<(), StoreError> {
        let forget = |transaction: Transaction, (key, entry): &(String, Entry<T>)| {
            transaction.expect(key, Some(entry.revision)).delete(key)
        };
        for told in told.chunks(NOTED_TOGETHER) {
            match self.store.commit(told.iter().fold(Transaction::new(), forget)).await {
                Err(StoreError::Conflict { .. }) => {
                    for (key, entry) in told {
                        self.told(key, entry).await?;
                    }
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Deletes what was told, unless it was replaced meanwhile: then that has to be told next.
    async fn told<T>(&self, key: &str, entry: &Entry<T>) -> Result<(), StoreError> {
        match self.store.commit(Transaction::new().expect(key, Some(entry.revision)).delete(key)).await {
            Err(StoreError::Conflict { .. }) => Ok(()),
            other => other,
        }
    }
}

/// A service as a cluster is sent it: with this instance only. `None`: the instance is not this cluster's.
fn for_cluster(record: &Record, number: u32, cluster: Id) -> Option<Service> {
    let instance = record.instance(number).filter(|_| is_of(record, number, cluster))?;
    Some(record.document_with(vec![instance.document()]))
}

fn is_of(record: &Record, number: u32, cluster: Id) -> bool {
    record.instance(number).is_some_and(|instance| instance.cluster_id == Some(cluster))
}
