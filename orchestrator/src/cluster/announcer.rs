//! Tells the root where instances are, until it has taken it. Of one instance only the latest word counts.

use std::collections::BTreeMap;

use protocol::id::Id;
use protocol::net::{NetDeployStatus, NetInstance};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::root_client::{RootClient, RootError};
use crate::backoff::Backoff;
use crate::error::chain;

#[derive(Debug)]
pub(super) struct Announcer {
    pub(super) root: RootClient,
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
            let Some((service, instances)) = pending.first_key_value() else {
                continue;
            };
            let status =
                NetDeployStatus { job_id: *service, instances: instances.values().cloned().collect() };
            match self.root.deploy_status(&status).await {
                Ok(()) => {
                    backoff.succeeded();
                    pending.remove(&status.job_id);
                }
                // Removed at the root meanwhile; after a registration everything is said again anyway.
                Err(RootError::Unknown { .. }) => {
                    tracing::debug!(service = %status.job_id, "the root knows no such service");
                    pending.remove(&status.job_id);
                }
                Err(error) => {
                    backoff.failed(|| tracing::warn!(error = %chain(&error), "the root was not told where instances are; trying on"));
                    backoff.wait().await;
                }
            }
        }
    }
}

fn add(pending: &mut BTreeMap<Id, BTreeMap<u32, NetInstance>>, (service, instance): (Id, NetInstance)) {
    pending.entry(service).or_default().insert(instance.instance_number, instance);
}
