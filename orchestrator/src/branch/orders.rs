//! HTTP on 10100 and 10110: what the one above says, as it says it to a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use futures::StreamExt;
use protocol::cluster::ClusterStatus;
use protocol::decision::Decisions;
use protocol::id::Id;
use protocol::net::JobUpdate;
use protocol::service::{Instance, Service};
use reqwest::Client;
use tokio::sync::watch;

use super::control::{Handle, Stopping};
use super::state::Unknown;
use crate::children::call::{self, Declined};
use crate::children::cluster::Cluster;
use crate::parent::net_api::Listener;
use crate::parent::orders::{self, Taker};
use crate::parent::uplink::Link;
use crate::problem::Problem;
use crate::wish::Wish;

/// Clusters that are asked at the same time.
const AT_ONCE: usize = 16;
/// What they are given to say how they decided: less than who is above waits, so that one of them that is away does not keep the
/// others' answers.
const WHY_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct Orders {
    pub(super) handle: Handle,
    pub(super) client: Client,
}

/// For who asks how the branch is.
#[derive(Debug, Clone)]
pub(super) struct Status {
    pub(super) name: String,
    pub(super) link: watch::Receiver<Link>,
}

pub(super) fn router(orders: Orders, status: Status) -> Router {
    let own = Router::new().route("/api/cluster/status", get(tell_status)).with_state(status);
    orders::router(orders).merge(own)
}

impl Orders {
    async fn cluster_of(&self, worker: Id) -> Result<Cluster, Problem> {
        let cluster = self.handle.ask(move |state, _| state.cluster_of_worker(worker)).await?;
        cluster.ok_or_else(|| Problem::not_found(format!("no worker {worker} in this branch")))
    }
}

impl Taker for Orders {
    async fn deploy(&self, service: Service, instance: Instance) -> Result<(), Problem> {
        Ok(self.handle.ask(move |state, _| state.deploy(service, instance)).await?)
    }

    async fn undeploy(&self, service: Id, number: Option<u32>) -> Result<(), Problem> {
        Ok(self.handle.ask(move |state, _| state.undeploy(service, number)).await??)
    }

    /// The worker's cluster keeps it.
    async fn wish(&self, worker: Id, wish: Wish) -> Result<(), Problem> {
        let cluster = self.cluster_of(worker).await?;
        call::wish(&self.client, &cluster, worker, wish).await?;
        Ok(self.handle.ask(move |state, _| state.heed(cluster.id, worker, wish)).await?)
    }

    async fn delete_worker(&self, worker: Id) -> Result<(), Problem> {
        let cluster = self.cluster_of(worker).await?;
        call::delete_worker(&self.client, &cluster, worker).await?;
        Ok(self.handle.ask(move |state, _| state.deleted(cluster.id, worker)).await?)
    }

    /// What the clusters decided that have the instances. Who cannot be asked says nothing.
    async fn why(&self, service: Id) -> Result<Option<Decisions>, Problem> {
        let Some(clusters) = self.handle.ask(move |state, _| state.clusters_of(service)).await? else {
            return Ok(None);
        };
        let answers: Vec<_> = futures::stream::iter(clusters)
            .map(async |(cluster, own)| {
                let asked = call::why(&self.client, &cluster, service);
                let answer = tokio::time::timeout(WHY_WITHIN, asked).await;
                (answer.unwrap_or_else(|_late| Err(format!("cluster {} does not answer", cluster.name))), own)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut instances = BTreeMap::new();
        for (answer, own) in answers {
            match answer {
                Ok(decisions) => instances
                    .extend(decisions.instances.into_iter().filter(|(number, _)| own.contains(number))),
                Err(why) => tracing::debug!(%service, why, "not told how it was placed"),
            }
        }
        Ok(Some(Decisions { instances }))
    }
}

impl Listener for Orders {
    async fn table_changed(&self, update: JobUpdate) -> Result<(), Problem> {
        Ok(self.handle.ask(move |state, _| state.table_changed(&update)).await?)
    }
}

async fn tell_status(State(status): State<Status>) -> Json<ClusterStatus> {
    let link = *status.link.borrow();
    Json(ClusterStatus {
        cluster_name: status.name,
        cluster_id: link.id.map(|id| id.to_string()).unwrap_or_default(),
        connected_to_root: link.connected,
        connected_to_broker: None,
    })
}

impl From<Declined> for Problem {
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::Conflict(why) => Self::new(StatusCode::CONFLICT, why),
            Declined::Otherwise(why) => Self::new(StatusCode::BAD_GATEWAY, why),
        }
    }
}

impl From<Stopping> for Problem {
    fn from(_stopping: Stopping) -> Self {
        Self::stopping()
    }
}

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Self {
        Self::not_found(unknown.to_string())
    }
}
