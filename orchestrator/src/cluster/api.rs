//! HTTP on 10100: workers join, the root deploys. Decodes, asks [`super::control`], encodes; decides nothing.

use std::num::NonZeroU32;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use protocol::cluster::ClusterStatus;
use protocol::decision::Decisions;
use protocol::id::Id;
use protocol::net::JobUpdate;
use protocol::node::{Node, Registered};
use protocol::service::{Instance, Service};
use tokio::sync::{mpsc, oneshot, watch};

use super::control::Command;
use super::state::Refused;
use crate::broker::Broker;
use crate::http::Peer;
use crate::parent::net_api::Listener;
use crate::parent::orders::{self, Taker};
use crate::parent::uplink::Link;
use crate::problem::{Problem, read};
use crate::wish::Wish;

/// The longest name that a host can have on Linux is 64 bytes, with its domain 255. It is logged, and goes up the tree.
const HOST_MAX: usize = 255;

/// What the handlers need.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) link: watch::Receiver<Link>,
    pub(super) cluster_name: String,
    pub(super) broker: Broker,
    /// Milliseconds: see [`Registered`].
    pub(super) alive_every: NonZeroU32,
}

pub(super) fn router(api: Api) -> Router {
    let orders = orders::router(Orders(api.commands.clone()));
    let own = Router::new()
        .route("/api/node/register", post(register))
        .route("/api/cluster/status", get(status))
        .with_state(api);
    orders.merge(own)
}

/// What the root wants, on the way to [`super::control`].
#[derive(Debug, Clone)]
pub(super) struct Orders(pub(super) mpsc::Sender<Command>);

async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.map_err(|_stopped| Problem::stopping())?;
    answer.await.map_err(|_stopped| Problem::stopping())
}

impl Taker for Orders {
    async fn deploy(&self, service: Service, instance: Instance) -> Result<(), Problem> {
        let (service, instance) = (Box::new(service), Box::new(instance));
        Ok(ask(&self.0, |reply| Command::Deploy { service, instance, reply }).await??)
    }

    async fn undeploy(&self, service: Id, number: Option<u32>) -> Result<(), Problem> {
        Ok(ask(&self.0, |reply| Command::Undeploy { service, number, reply }).await??)
    }

    async fn wish(&self, worker: Id, wish: Wish) -> Result<(), Problem> {
        Ok(ask(&self.0, |reply| Command::Wish { worker, wish, reply }).await??)
    }

    async fn delete_worker(&self, worker: Id) -> Result<(), Problem> {
        Ok(ask(&self.0, |reply| Command::DeleteWorker { worker, reply }).await??)
    }

    async fn why(&self, service: Id) -> Result<Option<Decisions>, Problem> {
        ask(&self.0, |reply| Command::Why { service, reply }).await
    }
}

impl Listener for Orders {
    async fn table_changed(&self, update: JobUpdate) -> Result<(), Problem> {
        self.0.send(Command::TableChanged(update)).await.map_err(|_stopped| Problem::stopping())
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::UnknownService(_) | Refused::UnknownInstance { .. } | Refused::UnknownWorker(_) => {
                StatusCode::NOT_FOUND
            }
            Refused::BeingRemoved { .. } | Refused::IsHeard { .. } | Refused::HearsNobody { .. } => {
                StatusCode::CONFLICT
            }
        };
        Self::new(status, refused.to_string())
    }
}

async fn register(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Result<Json<Registered>, Problem> {
    let mut node: Node = read(&body)?;
    node.host = node.host.trim().to_owned();
    if node.host.is_empty() {
        return Err(Problem::field("host", "a worker is known by its host name, which is blank"));
    }
    if node.host.len() > HOST_MAX || node.host.contains(char::is_control) {
        let expected =
            format!("expected a host name of at most {HOST_MAX} bytes, without control characters");
        return Err(Problem::field("host", expected));
    }
    if node.ip.is_empty() {
        node.ip = peer.0.ip().to_canonical().to_string();
    }
    let id = ask(&api.commands, |reply| Command::Register { node: Box::new(node), reply }).await?;
    let alive_every = Some(api.alive_every);
    Ok(Json(Registered { id, mqtt_broker_port: api.broker.port().to_string(), alive_every }))
}

async fn status(State(api): State<Api>) -> Json<ClusterStatus> {
    let link = *api.link.borrow();
    Json(ClusterStatus {
        cluster_name: api.cluster_name,
        cluster_id: link.id.map(|id| id.to_string()).unwrap_or_default(),
        connected_to_root: link.connected,
        connected_to_broker: api.broker.is_connected(),
    })
}
