//! The lane of commands: tells clusters what they are to run, and to run no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use protocol::id::Id;
use protocol::service::Service;
use protocol::status::Status;
use tokio::sync::broadcast::Sender;
use tokio::sync::{Notify, Semaphore};

use super::command::{Command, CommandKind};
use super::record::Record;
use super::{Root, key};
use crate::children::call::{self, CallError};
use crate::children::cluster::Cluster;
use crate::children::lane::{self, Lane};
use crate::error::chain;
use crate::store::{Entry, Store, StoreError};

/// Commands that a cluster is sent at the same time: it makes durable together what comes together.
const AT_ONCE: usize = 64;

/// What clusters are to run, and to run no more.
pub(super) struct Commands(pub(super) Arc<Root>);

impl Lane for Commands {
    const NAME: &'static str = "commands";
    const PREFIX: &'static str = key::COMMANDS;

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn wake(&self) -> &Notify {
        &self.0.commands
    }

    fn heard(&self) -> &Sender<Id> {
        &self.0.heard
    }

    async fn tell(&self, cluster: Id) -> Result<usize, CallError> {
        self.0.send_commands(cluster).await
    }
}

impl Root {
    /// Sends the commands that wait for a cluster; returns how many, or the first failure.
    pub(super) async fn send_commands(&self, cluster: Id) -> Result<usize, CallError> {
        let (cluster, entries) = lane::waiting::<Command>(&self.store, key::COMMANDS, cluster).await?;
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
    ) -> Result<(), CallError> {
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
        lane::all_told(&self.store, done).await?;
        outcome
    }

    async fn send_command(
        &self,
        cluster: &Cluster,
        command: &Command,
        record: Option<&Record>,
    ) -> Result<(), CallError> {
        let Command { service, kind } = command;
        match kind {
            CommandKind::Deploy(number) => {
                // None: removed since. The command would have been replaced, had the cluster been told of it before.
                let document = record.and_then(|record| for_cluster(record, *number, cluster.id));
                let Some(document) = document else { return Ok(()) };
                let sent = call::deploy(&self.client, cluster, &document, *number).await;
                if let Err(error) = &sent {
                    self.explain_wait(*service, *number, error).await?;
                }
                sent
            }
            CommandKind::Remove(number) => call::remove(&self.client, cluster, *service, Some(*number)).await,
            CommandKind::RemoveAll => call::remove(&self.client, cluster, *service, None).await,
        }
    }

    /// Says at the instance why it does not get on.
    async fn explain_wait(&self, service: Id, number: u32, error: &CallError) -> Result<(), StoreError> {
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
}

/// A service as a cluster is sent it: with this instance only. `None`: the instance is not this cluster's.
fn for_cluster(record: &Record, number: u32, cluster: Id) -> Option<Service> {
    let instance = record.instance(number).filter(|_| is_of(record, number, cluster))?;
    Some(record.document_with(vec![instance.document()]))
}

fn is_of(record: &Record, number: u32, cluster: Id) -> bool {
    record.instance(number).is_some_and(|instance| instance.cluster_id == Some(cluster))
}
