//! Service addresses, for clusters (port 10099), as a root has them. Nothing of this is the branch's own: questions go to the one
//! above, under the branch's name, and the branch remembers who asked.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::{NetCluster, NetDeployStatus, NodeItself, Subnet};
use serde_json::Value;

use super::control::Handle;
use super::key;
use crate::children::cluster::{self, NoCaller};
use crate::children::dotted::dotted;
use crate::error::chain;
use crate::http::Peer;
use crate::parent::client::{ParentClient, ParentError};
use crate::parent::subject::Subject;
use crate::problem::{Problem, no_route, ok, read};
use crate::registration::CLUSTER_HEADER;
use crate::store::{Store, StoreError, Transaction};

/// What the handlers need.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) handle: Handle,
    pub(super) store: Store,
    pub(super) parent: ParentClient,
}

pub(super) fn router(net: Arc<Net>) -> Router {
    Router::new()
        .route("/api/net/cluster", post(announce))
        .route("/api/net/subnet", get(subnet))
        .route("/api/net/subnet/{address}", delete(subnet_back))
        .route("/api/net/service/{name}/instances", get(by_name))
        .route("/api/net/service/ip/{address}/instances", get(by_address))
        .route("/api/net/service/net_deploy_status", post(settle))
        .route("/api/net/node/{address}", get(node))
        .route("/api/net/interest/{name}", delete(lose_interest))
        .fallback(no_route)
        .with_state(net)
}

/// A cluster of Oakestra's says where it is told of changed tables.
async fn announce(State(net): State<Arc<Net>>, body: Bytes) -> Result<Json<Value>, Problem> {
    let body: NetCluster = read(&body)?;
    let address: IpAddr = body
        .cluster_address
        .parse()
        .map_err(|_invalid| Problem::field("cluster_address", "expected an IP address"))?;
    let (ip, port) = (address.to_canonical().to_string(), body.cluster_port);
    let unknown = || Problem::not_found(format!("no cluster {}", body.cluster_id));
    cluster::move_net(&net.store, body.cluster_id, ip, port).await?;
    let moved = cluster::known(&net.store, body.cluster_id).await?.ok_or_else(unknown)?;
    net.handle.ask(move |state, _| state.cluster_moved(moved)).await?;
    Ok(ok())
}

/// A block for a worker. Only what a known cluster has got can be given back.
async fn subnet(
    State(net): State<Arc<Net>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Subnet>, Problem> {
    let to = match cluster::callers(&net.store, &headers, peer).await {
        Ok(callers) => <[Id; 1]>::try_from(callers).ok().map(|[one]| one),
        Err(NoCaller::Unknown(_)) => None,
        Err(NoCaller::Store(error)) => return Err(error.into()),
    };
    let subnet = net.parent.subnet().await?;
    if let Some(cluster) = to {
        net.store.put(&key::subnet(subnet.subnet_addr), &cluster).await?;
    }
    Ok(Json(subnet))
}

/// The dots of the address are written as `_`.
async fn subnet_back(
    State(net): State<Arc<Net>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    let callers = cluster::callers(&net.store, &headers, peer).await?;
    let unknown = || Problem::not_found(format!("no block {text} of this cluster"));
    let address: Ipv4Addr = dotted(&text).ok_or_else(unknown)?;
    let key = key::subnet(address);
    let owner = net.store.get::<Id>(&key).await?;
    let owner = owner.filter(|owner| callers.contains(&owner.value)).ok_or_else(unknown)?;
    net.parent.return_subnet(address).await?;
    match net.store.commit(Transaction::new().expect(&key, Some(owner.revision)).delete(&key)).await {
        // The one above has given it to another cluster of ours meanwhile.
        Err(StoreError::Conflict { .. }) => {}
        other => other?,
    }
    Ok(ok())
}

/// The dots of the name are written as `_`.
async fn by_name(
    State(net): State<Arc<Net>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let subject = dotted(&name).map(Subject::Name).ok_or_else(|| no_service(&name))?;
    net.table(&subject, &headers, peer).await
}

/// The dots of the address are written as `_`.
async fn by_address(
    State(net): State<Arc<Net>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    let subject = dotted(&text).map(Subject::Address).ok_or_else(|| no_service(&text))?;
    net.table(&subject, &headers, peer).await
}

/// A node of one of the clusters here, or of one elsewhere. The dots of the address are written as `_`.
async fn node(
    State(net): State<Arc<Net>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(text): Path<String>,
) -> Result<Json<NodeItself>, Problem> {
    cluster::callers(&net.store, &headers, peer).await?;
    let unknown = || Problem::not_found(format!("no node with address {text}"));
    let address: IpAddr = dotted(&text).ok_or_else(unknown)?;
    let here = net.handle.ask(move |state, _| state.node_itself(address)).await?;
    match here {
        Some(itself) => Ok(Json(itself)),
        None => net.parent.node(address).await?.map(Json).ok_or_else(unknown),
    }
}

/// Where instances are, as far as the cluster has them. When the one above has it, the other clusters here are told.
async fn settle(
    State(net): State<Arc<Net>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let mut status: NetDeployStatus = read(&body)?;
    let callers = cluster::callers(&net.store, &headers, peer).await?;
    let (service, asking) = (status.job_id, callers.clone());
    let theirs = net.handle.ask(move |state, _| state.theirs(service, &asking)).await?;
    let (name, theirs) = theirs.ok_or_else(|| no_service(&service.to_string()))?;
    status.instances.retain(|instance| theirs.contains(&instance.instance_number));
    if status.instances.is_empty() {
        return Ok(ok());
    }
    let own = net.handle.ask(|state, _| state.id()).await?;
    status.instances.iter_mut().for_each(|instance| instance.cluster_id = own);
    net.parent.deploy_status(&status).await.map_err(unsaid)?;
    let numbers = status.instances.iter().map(|instance| instance.instance_number).collect();
    // One of ours needs no notice of what it says itself. One of Oakestra's waits for it.
    let knows = if headers.contains_key(CLUSTER_HEADER) { callers } else { Vec::new() };
    net.handle.ask(move |state, _| state.settled(&name, &numbers, &knows)).await?;
    Ok(ok())
}

async fn lose_interest(
    State(net): State<Arc<Net>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(text): Path<String>,
) -> Result<Json<Value>, Problem> {
    let name: ServiceName = dotted(&text).ok_or_else(|| no_service(&text))?;
    let callers = cluster::callers(&net.store, &headers, peer).await?;
    let lost = name.clone();
    if net.handle.ask(move |state, _| state.disinterested(&lost, &callers)).await? {
        return Ok(ok());
    }
    net.parent.drop_interest(&name).await?;
    let lost = name.clone();
    if net.handle.ask(move |state, _| state.has_interested(&lost)).await? {
        // Somebody has asked meanwhile, whom the one above may have forgotten with this.
        net.parent.table::<Value>(&Subject::Name(name)).await?;
    }
    Ok(ok())
}

impl Net {
    /// A service's table as the one above has it; whoever asks is told of changes from now on.
    async fn table(
        &self,
        subject: &Subject,
        headers: &HeaderMap,
        peer: Peer,
    ) -> Result<Json<Value>, Problem> {
        let callers = cluster::callers(&self.store, headers, peer).await?;
        loop {
            let table: Option<Value> = self.parent.table(subject).await?;
            let table = table.ok_or_else(|| no_service(&subject.to_string()))?;
            let name = table["job_name"].as_str().and_then(|name| name.parse::<ServiceName>().ok());
            let Some(name) = name else {
                return Err(Problem::new(StatusCode::BAD_GATEWAY, "the table from above has no job_name"));
            };
            let asking = callers.clone();
            // What has changed before it was noted who is to be told has to be asked for.
            if !self.handle.ask(move |state, _| state.interested(&name, &asking)).await? {
                return Ok(Json(table));
            }
        }
    }
}

fn no_service(text: &str) -> Problem {
    Problem::not_found(format!("no service {text}"))
}

/// A service that is not known above is not known; any other failure is none of the cluster's, and may pass.
fn unsaid(error: ParentError) -> Problem {
    match error {
        ParentError::Unknown { status: StatusCode::NOT_FOUND, .. } => Problem::not_found(chain(&error)),
        error => error.into(),
    }
}

impl From<ParentError> for Problem {
    fn from(error: ParentError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("not had from above: {}", chain(&error)))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %chain(&error), "a request failed at the store");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the branch's store failed")
    }
}

impl From<NoCaller> for Problem {
    fn from(error: NoCaller) -> Self {
        match error {
            NoCaller::Unknown(who) => Self::new(StatusCode::BAD_REQUEST, who),
            NoCaller::Store(error) => error.into(),
        }
    }
}
