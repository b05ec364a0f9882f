//! HTTP on 10100: workers join, the root deploys. Decodes, asks [`super::control`], encodes; decides nothing.

use std::num::NonZeroU32;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use protocol::cluster::ClusterStatus;
use protocol::decision::Decisions;
use protocol::id::Id;
use protocol::node::{Node, Registered};
use protocol::service::Service;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::control::Command;
use super::problem::Problem;
use super::state::Wish;
use super::uplink::Link;
use crate::broker::Broker;
use crate::http::Peer;

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
    Router::new()
        .route("/api/node/register", post(register))
        .route("/api/service/{job_id}/{number}", post(deploy).delete(undeploy))
        .route("/api/worker/{id}", delete(delete_worker))
        .route("/api/worker/{id}/cordon", post(cordon))
        .route("/api/worker/{id}/drain", post(drain))
        .route("/api/worker/{id}/uncordon", post(uncordon))
        .route("/api/cluster/status", get(status))
        .route("/v1/why/{job_id}", get(why))
        .fallback(no_route)
        .with_state(api)
}

impl Api {
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_stopped| Problem::stopping())?;
        answer.await.map_err(|_stopped| Problem::stopping())
    }
}

/// Reads a body, whatever its content type is called: Oakestra's parts do not always say.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::body(&error))
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
    let id = api.ask(|reply| Command::Register { node: Box::new(node), reply }).await?;
    let alive_every = Some(api.alive_every);
    Ok(Json(Registered { id, mqtt_broker_port: api.broker.port().to_string(), alive_every }))
}

async fn deploy(
    State(api): State<Api>,
    Path((job_id, number)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let id = service_id(&job_id)?;
    let number: u32 = number
        .parse()
        .map_err(|_no_number| Problem::not_found(format!("no instance {number:?}: expected its number")))?;
    let mut service: Service = read(&body)?;
    if service.id != id {
        return Err(Problem::field(
            "_id",
            format!("the body is of service {}, the path of {id}", service.id),
        ));
    }
    let position = service.instance_list.iter().position(|instance| instance.instance_number == number);
    let Some(position) = position else {
        return Err(Problem::field(
            "instance_list",
            format!("instance {number} of the path is not in the list"),
        ));
    };
    let instance = Box::new(service.instance_list.swap_remove(position));
    api.ask(|reply| Command::Deploy { service: Box::new(service), instance, reply }).await??;
    Ok(ok())
}

async fn undeploy(
    State(api): State<Api>,
    Path((job_id, number)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let service = service_id(&job_id)?;
    let number = match number.as_str() {
        "-1" => None,
        text => Some(text.parse().map_err(|_no_number| {
            Problem::not_found(format!("no instance {text:?}: expected its number, or -1 for all"))
        })?),
    };
    api.ask(|reply| Command::Undeploy { service, number, reply }).await??;
    Ok(ok())
}

async fn cordon(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    wish(&api, &id, Wish::Cordon).await
}

async fn drain(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    wish(&api, &id, Wish::Drain).await
}

async fn uncordon(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    wish(&api, &id, Wish::Uncordon).await
}

async fn delete_worker(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let worker = worker_id(&id)?;
    api.ask(|reply| Command::DeleteWorker { worker, reply }).await??;
    Ok(ok())
}

async fn wish(api: &Api, id: &str, wish: Wish) -> Result<Json<Value>, Problem> {
    let worker = worker_id(id)?;
    api.ask(|reply| Command::Wish { worker, wish, reply }).await??;
    Ok(ok())
}

async fn why(State(api): State<Api>, Path(job_id): Path<String>) -> Result<Json<Decisions>, Problem> {
    let service = service_id(&job_id)?;
    let decisions = api.ask(|reply| Command::Why { service, reply }).await?;
    let unknown = || Problem::not_found(format!("no service {service} in this cluster"));
    decisions.map(Json).ok_or_else(unknown)
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

pub(super) async fn no_route() -> Problem {
    Problem::not_found("nothing is served under this path")
}

fn worker_id(text: &str) -> Result<Id, Problem> {
    text.parse().map_err(|error| Problem::not_found(format!("no such worker: {error}")))
}

fn service_id(text: &str) -> Result<Id, Problem> {
    text.parse().map_err(|error| Problem::not_found(format!("no such service: {error}")))
}

pub(super) fn ok() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}
