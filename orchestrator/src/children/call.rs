//! Calls of clusters: one attempt each; who calls decides whether to try again.

use std::fmt::Display;
use std::time::Duration;

use protocol::decision::Decisions;
use protocol::id::Id;
use protocol::net::JobUpdate;
use protocol::service::Service;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;

use super::cluster::Cluster;
use crate::store::StoreError;
use crate::wish::Wish;

/// What a cluster is given to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A cluster closes a connection that is idle for 30 s; a command must not meet that.
const IDLE: Duration = Duration::from_secs(20);
/// What a cluster is given to take a notice.
const NOTICE_WITHIN: Duration = Duration::from_secs(2);
/// A person waits for it.
const WISH_WITHIN: Duration = Duration::from_secs(5);
const WHY_WITHIN: Duration = Duration::from_secs(3);

/// Why a cluster was not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("cluster {name} at {ip}:{port} cannot be reached")]
    Unreachable { name: String, ip: String, port: u16, source: reqwest::Error },
    #[error("cluster {name} answered {status}: {body}")]
    Refused { name: String, status: StatusCode, body: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("this one is stopping")]
    Stopping,
}

/// Clusters are reached where they registered from, whatever the environment says of proxies.
pub(crate) fn client() -> Result<Client, reqwest::Error> {
    Client::builder().timeout(ANSWER_WITHIN).pool_idle_timeout(IDLE).tcp_nodelay(true).no_proxy().build()
}

/// Gives a cluster this instance of the service, which the document has in its list.
pub(crate) async fn deploy(
    client: &Client,
    cluster: &Cluster,
    service: &Service,
    number: u32,
) -> Result<(), CallError> {
    let url = instance_url(cluster, service.id, &number);
    send(cluster, cluster.port, client.post(url).json(service)).await
}

/// Takes an instance back; `None`: all of the service. That there is none is as it should be.
pub(crate) async fn remove(
    client: &Client,
    cluster: &Cluster,
    service: Id,
    number: Option<u32>,
) -> Result<(), CallError> {
    let url = match number {
        Some(number) => instance_url(cluster, service, &number),
        None => instance_url(cluster, service, &-1),
    };
    match send(cluster, cluster.port, client.delete(url)).await {
        Err(CallError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
        sent => sent,
    }
}

fn instance_url(cluster: &Cluster, service: Id, number: &dyn Display) -> String {
    format!("http://{}/api/service/{service}/{number}", cluster.authority())
}

/// Says that a table changed. Who does not know the service holds no table that could be wrong.
pub(crate) async fn notice(client: &Client, cluster: &Cluster, update: &JobUpdate) -> Result<(), CallError> {
    let url = format!("http://{}/api/net/job/update", cluster.net_authority());
    let request = client.post(&url).timeout(NOTICE_WITHIN).json(update);
    match send(cluster, cluster.net_port, request).await {
        Err(CallError::Refused { status, .. }) if status.is_client_error() => Ok(()),
        sent => sent,
    }
}

async fn send(cluster: &Cluster, port: u16, request: RequestBuilder) -> Result<(), CallError> {
    let unreachable = |source: reqwest::Error| CallError::Unreachable {
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
    Err(CallError::Refused { name: cluster.name.clone(), status, body })
}

/// Why a cluster has not done to a worker what an operator wants, for people.
#[derive(Debug)]
pub(crate) enum Declined {
    /// The worker is in a state in which it must not be.
    Conflict(String),
    Otherwise(String),
}

/// Passes a wish on to the worker's cluster, which has kept it then.
pub(crate) async fn wish(client: &Client, cluster: &Cluster, worker: Id, wish: Wish) -> Result<(), Declined> {
    let url = format!("http://{}/api/worker/{worker}/{}", cluster.authority(), wish.verb());
    // There is no state of a worker in which it may not be said.
    of_worker(cluster, client.post(url))
        .await
        .map_err(|(Declined::Conflict(why) | Declined::Otherwise(why))| Declined::Otherwise(why))
}

/// Has the worker's cluster forget it, since it is gone for good.
pub(crate) async fn delete_worker(client: &Client, cluster: &Cluster, worker: Id) -> Result<(), Declined> {
    let url = format!("http://{}/api/worker/{worker}", cluster.authority());
    of_worker(cluster, client.delete(url)).await
}

async fn of_worker(cluster: &Cluster, request: RequestBuilder) -> Result<(), Declined> {
    let Cluster { name, .. } = cluster;
    let response = request.timeout(WISH_WITHIN).send().await.map_err(|error| {
        let why = unanswered(&error);
        Declined::Otherwise(format!("Cluster {name} at {} {why}.", cluster.authority()))
    })?;
    match response.status() {
        status if status.is_success() => Ok(()),
        StatusCode::NOT_FOUND => {
            Err(Declined::Otherwise(format!("Cluster {name} does not know that worker (any more).")))
        }
        StatusCode::CONFLICT => {
            let why = response.json::<Refusal>().await.map(|refusal| refusal.message).unwrap_or_default();
            let why: String = why.chars().take(300).collect();
            Err(Declined::Conflict(format!("Cluster {name}: {why}.")))
        }
        status => Err(Declined::Otherwise(format!("Cluster {name} answered {status}."))),
    }
}

/// What a cluster says against it.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// What a cluster decided about a service, or why that is not to be had, for people.
pub(crate) async fn why(client: &Client, cluster: &Cluster, service: Id) -> Result<Decisions, String> {
    let url = format!("http://{}/v1/why/{service}", cluster.authority());
    let sent = client.get(url).timeout(WHY_WITHIN).send().await;
    let answer = sent.map_err(|error| format!("cluster {} {}", cluster.name, unanswered(&error)))?;
    match answer.status() {
        status if status.is_success() => {
            let unreadable = |_error| format!("cluster {} does not say how it decided", cluster.name);
            answer.json().await.map_err(unreadable)
        }
        // It does not know the service yet, or it is one of Oakestra's.
        StatusCode::NOT_FOUND => Err(format!("cluster {} has nothing to say of it", cluster.name)),
        status => Err(format!("cluster {} answered {status}", cluster.name)),
    }
}

/// What a cluster did that a request got no answer from, for people.
fn unanswered(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() { "does not answer" } else { "cannot be reached" }
}
