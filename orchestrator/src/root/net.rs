//! Service addresses, for clusters (port 10099): blocks for their workers, tables of services, and where instances
//! are reached. A cluster that asked for a service's table is told when it changes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::{NetCluster, NetDeployStatus, NetService, NodeItself, Subnet, UpdateKind};
use serde_json::json;

use super::api::Body;
use super::failure::Failure;
use super::instance::notify_others;
use super::record::Record;
use super::{Root, key};
use crate::children::cluster::{self, NoCaller};
use crate::children::dotted::dotted;
use crate::http::Peer;
use crate::registration::CLUSTER_HEADER;

/// Instances of one service that are settled in one transaction, with a notice for each cluster that has its table: etcd takes
/// so many operations and no more.
const TOGETHER: usize = 32;

pub(super) fn router(root: Arc<Root>) -> Router {
    Router::new()
        .route("/api/net/cluster", post(announce))
        .route("/api/net/subnet", get(subnet))
        .route("/api/net/subnet/{address}", delete(subnet_back))
        .route("/api/net/service/{name}/instances", get(by_name))
        .route("/api/net/service/ip/{address}/instances", get(by_address))
        .route("/api/net/service/net_deploy_status", post(settle))
        .route("/api/net/node/{address}", get(node))
        .route("/api/net/interest/{name}", delete(lose_interest))
        .fallback(super::api::no_route)
        .with_state(root)
}

/// A cluster's network port is part of its registration here; the call is answered for those who make it themselves.
/// The address becomes part of URLs that the root calls, so it has to be one.
async fn announce(State(root): State<Arc<Root>>, Body(body): Body<NetCluster>) -> Result<Response, Failure> {
    let address: IpAddr = body.cluster_address.parse().map_err(|_invalid| {
        let got: String = body.cluster_address.chars().take(64).collect();
        Failure::Malformed(format!("cluster_address: expected an IP address, got {got:?}."))
    })?;
    root.move_net(body.cluster_id, address.to_canonical(), body.cluster_port).await?;
    Ok(Json(json!({ "message": "ok" })).into_response())
}

/// A block for a worker. Oakestra gives one to anybody who asks, and so does this; only what a known cluster has got can be
/// given back.
async fn subnet(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Json<Subnet>, Failure> {
    let to = match root.callers(&headers, peer).await {
        Ok(callers) => <[Id; 1]>::try_from(callers).ok().map(|[one]| one),
        Err(Failure::Malformed(_)) => None,
        Err(failure) => return Err(failure),
    };
    Ok(Json(root.give_subnet(to).await?))
}

/// A worker is gone for good. Of Hypha's clusters. The dots of the address are written as `_`.
async fn subnet_back(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(text): Path<String>,
) -> Result<Response, Failure> {
    let callers = root.callers(&headers, peer).await?;
    let unknown = || Failure::NotFound { kind: "block of this cluster", id: text.clone() };
    let address: Ipv4Addr = dotted(&text).ok_or_else(unknown)?;
    root.take_subnet_back(address, &callers).await?;
    Ok(Json(json!({ "message": "ok" })).into_response())
}

/// The dots of the name are written as `_`.
async fn by_name(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let name: ServiceName = dotted(&name).ok_or_else(|| Failure::no_service(&name))?;
    let id = root.service_id(&name).await?.ok_or_else(|| Failure::no_service(&name))?;
    root.table(id, &headers, peer).await
}

/// The dots of the address are written as `_`.
async fn by_address(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(text): Path<String>,
) -> Result<Response, Failure> {
    let unknown = || Failure::NotFound { kind: "service with address", id: text.clone() };
    let address: IpAddr = dotted(&text).ok_or_else(unknown)?;
    let id = root.owner_of(address).await?.ok_or_else(unknown)?;
    root.table(id, &headers, peer).await
}

/// Where the processes of a node are reached that speak to services under this NsIP. Of Hypha's clusters: see
/// [`protocol::net::NodeItself`]. The dots of the address are written as `_`.
async fn node(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(text): Path<String>,
) -> Result<Json<NodeItself>, Failure> {
    root.callers(&headers, peer).await?;
    let unknown = || Failure::NotFound { kind: "node with address", id: text.clone() };
    let address: IpAddr = dotted(&text).ok_or_else(unknown)?;
    root.live().node_itself(address).cloned().map(Json).ok_or_else(unknown)
}

async fn settle(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Body(body): Body<NetDeployStatus>,
) -> Result<Response, Failure> {
    let callers = root.callers(&headers, peer).await?;
    // One of ours needs no notice of what it says itself. One of Oakestra's waits for it.
    let knows = if headers.contains_key(CLUSTER_HEADER) { callers.as_slice() } else { &[] };
    if root.service(body.job_id).await?.is_none() {
        return Err(Failure::no_service(body.job_id));
    }
    for instances in body.instances.chunks(TOGETHER) {
        root.change_service(body.job_id, |record, mut transaction| {
            for instance in instances {
                if record.settle(instance, &callers) {
                    let number = instance.instance_number.into();
                    transaction = notify_others(record, number, UpdateKind::Deployment, knows, transaction);
                }
            }
            (transaction, ())
        })
        .await?
        .ok_or_else(|| Failure::no_service(body.job_id))?;
        root.notices.notify_one();
    }
    Ok(Json(json!({ "message": "ok" })).into_response())
}

async fn lose_interest(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let name: ServiceName = dotted(&name).ok_or_else(|| Failure::no_service(&name))?;
    let callers = root.callers(&headers, peer).await?;
    if let Some(id) = root.service_id(&name).await? {
        root.change_service(id, |record, transaction| {
            record.interested.retain(|cluster| !callers.contains(cluster));
            (transaction, ())
        })
        .await?;
    }
    Ok(Json(json!({ "message": "ok" })).into_response())
}

impl Root {
    async fn move_net(&self, id: Id, address: IpAddr, port: u16) -> Result<(), Failure> {
        let moved = cluster::move_net(&self.store, id, address.to_string(), port).await?;
        if moved { Ok(()) } else { Err(Failure::no_cluster(id)) }
    }

    async fn service_id(&self, name: &ServiceName) -> Result<Option<Id>, Failure> {
        Ok(self.store.get::<Id>(&key::service_name(name)).await?.map(|entry| entry.value))
    }

    /// The service that has this address, for itself or for an instance.
    pub(super) async fn owner_of(&self, address: IpAddr) -> Result<Option<Id>, Failure> {
        if let Some(entry) = self.store.get::<Id>(&key::address(address)).await? {
            return Ok(Some(entry.value));
        }
        // An IPv6 address that the root gave out goes with an IPv4 address and is not stored itself.
        let IpAddr::V6(v6) = address else { return Ok(None) };
        let ([first, second, ..], [.., third, fourth]) = (self.plan.services().first().octets(), v6.octets());
        let v4 = Ipv4Addr::new(first, second, third, fourth);
        let Some(entry) = self.store.get::<Id>(&key::address(v4.into())).await? else { return Ok(None) };
        let record = self.service(entry.value).await?;
        Ok(record.filter(|record| record.has_v6(&v6.to_string())).map(|record| record.service.id))
    }

    /// The clusters that a request may come from: the one that it names, or all that registered from its address.
    async fn callers(&self, headers: &HeaderMap, peer: Peer) -> Result<Vec<Id>, Failure> {
        cluster::callers(&self.store, headers, peer).await.map_err(|error| match error {
            NoCaller::Unknown(who) => Failure::Malformed(who),
            NoCaller::Store(error) => error.into(),
        })
    }

    /// A service's table; whoever asks is told of changes from now on.
    async fn table(&self, id: Id, headers: &HeaderMap, peer: Peer) -> Result<Response, Failure> {
        let callers = self.callers(headers, peer).await?;
        let known = self.service(id).await?.ok_or_else(|| Failure::no_service(id))?;
        if callers.iter().all(|caller| known.interested.contains(caller)) {
            return Ok(Json(table(&known)).into_response());
        }
        let table = self
            .change_service(id, |record, transaction| {
                record.interested.extend(&callers);
                (transaction, table(record))
            })
            .await?
            .ok_or_else(|| Failure::no_service(id))?;
        Ok(Json(table).into_response())
    }
}

/// The names of the service stand beside its table, as Oakestra has them.
fn table(record: &Record) -> serde_json::Value {
    let service = &record.service;
    let table = NetService {
        id: service.id,
        job_name: service.job_name.clone(),
        service_ip_list: record.service_ips(),
        instance_list: record.instances().map(|instance| instance.place.clone()).collect(),
    };
    let mut table = serde_json::to_value(table).unwrap_or_default();
    table["applicationID"] = json!(service.application_id);
    table["microserviceID"] = json!(service.id);
    table["app_name"] = json!(service.app_name);
    table["app_ns"] = json!(service.app_ns);
    table["service_name"] = json!(service.service_name);
    table["service_ns"] = json!(service.service_ns);
    table
}
