//! The lane of commands: tells clusters what they are to run, and to run no more.

use futures::StreamExt;
use protocol::id::Id;
use reqwest::{Client, StatusCode};
use tokio::sync::Notify;
use tokio::sync::broadcast::Sender;

use super::control::{Handle, Stopping, Wakes};
use crate::children::call::{self, CallError};
use crate::children::cluster::Cluster;
use crate::children::command::{Command, CommandKind};
use crate::children::key;
use crate::children::lane::{self, Lane};
use crate::error::chain;
use crate::store::Store;

/// What a cluster is sent at the same time: it makes durable together what comes together.
const AT_ONCE: usize = 64;

/// What clusters are to run, and to run no more.
pub(super) struct Commands {
    pub(super) handle: Handle,
    pub(super) store: Store,
    pub(super) client: Client,
    pub(super) wakes: Wakes,
}

impl Lane for Commands {
    const NAME: &'static str = "commands";
    const PREFIX: &'static str = key::COMMANDS;

    fn store(&self) -> &Store {
        &self.store
    }

    fn wake(&self) -> &Notify {
        &self.wakes.commands
    }

    fn heard(&self) -> &Sender<Id> {
        &self.wakes.heard
    }

    async fn tell(&self, cluster: Id) -> Result<usize, CallError> {
        let (cluster, entries) = lane::waiting::<Command>(&self.store, Self::PREFIX, cluster).await?;
        let Some(cluster) = cluster else { return Ok(0) };
        let count = entries.len();
        let sending = entries.into_iter().map(|(key, entry)| {
            let cluster = &cluster;
            async move { self.send(cluster, &entry.value).await.map(|()| (key, entry)) }
        });
        let mut sent = futures::stream::iter(sending).buffer_unordered(AT_ONCE);
        let (mut told, mut outcome) = (Vec::new(), Ok(count));
        while let Some(one) = sent.next().await {
            match one {
                Ok(one) => told.push(one),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        lane::all_told(&self.store, told).await?;
        outcome
    }
}

impl Commands {
    async fn send(&self, cluster: &Cluster, command: &Command) -> Result<(), CallError> {
        let Command { service, kind } = *command;
        let number = match kind {
            CommandKind::Remove(number) => {
                return call::remove(&self.client, cluster, service, Some(number)).await;
            }
            CommandKind::RemoveAll => return call::remove(&self.client, cluster, service, None).await,
            CommandKind::Deploy(number) => number,
        };
        let id = cluster.id;
        let order = self.handle.ask(move |state, _| state.order(id, service, number)).await?;
        // It is not this cluster's any more.
        let Some(order) = order else { return Ok(()) };
        let sent = call::deploy(&self.client, cluster, &order, number).await;
        let Err(error) = sent else { return Ok(()) };
        if is_final(&error) {
            tracing::warn!(cluster = %cluster.name, service = %order.job_name, instance = number, error = %chain(&error), "cluster does not take an instance, another one is to");
            let why = format!("{}.", chain(&error));
            return Ok(self
                .handle
                .ask(move |state, now| state.refused(id, service, number, why, now))
                .await?);
        }
        let why = format!("Trying again: {}.", chain(&error));
        self.handle.ask(move |state, _| state.unreached(id, service, number, &why)).await?;
        Err(error)
    }
}

impl From<Stopping> for CallError {
    fn from(_stopping: Stopping) -> Self {
        Self::Stopping
    }
}

/// Whether a cluster does not want an instance, and will not a moment later: it is neither away, nor busy with that instance.
fn is_final(error: &CallError) -> bool {
    let CallError::Refused { status, .. } = error else { return false };
    let may_change = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::CONFLICT,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    !may_change.contains(status)
}
