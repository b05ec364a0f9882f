//! Tells the root where instances are, until it has taken it. Of one instance only the latest word counts.

use std::collections::BTreeMap;

use protocol::id::Id;
use protocol::net::{NetDeployStatus, NetInstance};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::error::chain;
use crate::parent::client::{ParentClient, ParentError};

/// Services of which the root is told at the same time: what it keeps of them is made durable together.
const AT_ONCE: usize = 32;

#[derive(Debug)]
pub(super) struct Announcer {
    pub(super) root: ParentClient,
    pub(super) announcements: mpsc::UnboundedReceiver<(Id, NetInstance)>,
}

impl Announcer {
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.announce() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn announce(&mut self) {
        let mut pending: BTreeMap<Id, BTreeMap<u32, NetInstance>> = BTreeMap::new();
        let mut backoff = Backoff::new();
        loop {
            if pending.is_empty() {
                match self.announcements.recv().await {
                    Some(announcement) => add(&mut pending, announcement),
                    None => return,
                }
            }
            while let Ok(announcement) = self.announcements.try_recv() {
                add(&mut pending, announcement);
            }
            let telling = pending.iter().take(AT_ONCE).map(|(service, instances)| {
                let instances = instances.values().cloned().collect();
                self.tell(NetDeployStatus { job_id: *service, instances })
            });
            let mut failure = None;
            for told in futures::future::join_all(telling).await {
                match told {
                    Ok(service) => drop(pending.remove(&service)),
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                None => backoff.succeeded(),
                Some(error) => {
                    backoff.failed(|| tracing::warn!(error = %chain(&error), "the root was not told where instances are; trying on"));
                    backoff.wait().await;
                }
            }
        }
    }

    /// Gives the service of which nothing has to be told any more.
    async fn tell(&self, status: NetDeployStatus) -> Result<Id, ParentError> {
        match self.root.deploy_status(&status).await {
            // Removed at the root meanwhile; after a registration everything is said again anyway.
            Err(ParentError::Unknown { .. }) => {
                tracing::debug!(service = %status.job_id, "the root knows no such service");
            }
            told => told?,
        }
        Ok(status.job_id)
    }
}

fn add(pending: &mut BTreeMap<Id, BTreeMap<u32, NetInstance>>, (service, instance): (Id, NetInstance)) {
    pending.entry(service).or_default().insert(instance.instance_number, instance);
}
