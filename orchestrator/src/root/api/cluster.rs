//! Clusters, and what they report.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use protocol::cluster::{Cluster, TAKEN_HEADER};

use super::docs::Message;
use super::extract::{self, Named, Raw};
use super::schema;
use crate::root::Root;
use crate::root::failure::Failure;

/// All clusters that ever registered.
#[utoipa::path(get, path = "/api/clusters", tag = "cluster", responses((status = 200, body = Vec<schema::Cluster>)))]
pub(super) async fn list(State(root): State<Arc<Root>>) -> Result<Json<Vec<Cluster>>, Failure> {
    Ok(Json(root.cluster_documents().await?))
}

/// The clusters that were heard of in the last 30 seconds.
#[utoipa::path(get, path = "/api/clusters/active", tag = "cluster", responses((status = 200, body = Vec<schema::Cluster>)))]
pub(super) async fn list_active(State(root): State<Arc<Root>>) -> Result<Json<Vec<Cluster>>, Failure> {
    let mut clusters = root.cluster_documents().await?;
    clusters.retain(|cluster| cluster.active);
    Ok(Json(clusters))
}

/// A cluster reports its capacity and its instances. For clusters only. A header of the answer gives the number by which the
/// next report may continue this one, if it may; 409: it continues one that is not known.
#[utoipa::path(post, path = "/api/information/{id}", tag = "cluster", params(("id" = String, Path)),
    request_body(content = Object), responses((status = 200, body = String), (status = 409, description = "it continues a report that is not known")))]
pub(super) async fn report(
    State(root): State<Arc<Root>>,
    Named(id): Named<String>,
    Raw(report): Raw,
) -> Result<Response, Failure> {
    let number = root.take_report(extract::id(&id, "cluster")?, &report).await?;
    Ok(match number {
        Some(number) => ([(TAKEN_HEADER, number.to_string())], "ok").into_response(),
        None => "ok".into_response(),
    })
}

/// Gives a cluster nothing new. What runs there stays. Twice is once.
#[utoipa::path(post, path = "/v1/clusters/{id}/cordon", tag = "cluster", params(("id" = String, Path)),
    responses((status = 200, body = Message)))]
pub(super) async fn cordon(
    State(root): State<Arc<Root>>,
    Named(id): Named<String>,
) -> Result<Json<Message>, Failure> {
    root.hold_cluster(extract::id(&id, "cluster")?, true).await?;
    Ok(Message::json("The cluster gets nothing new."))
}

/// Lets a cluster have new instances again. Twice is once.
#[utoipa::path(post, path = "/v1/clusters/{id}/uncordon", tag = "cluster", params(("id" = String, Path)),
    responses((status = 200, body = Message)))]
pub(super) async fn uncordon(
    State(root): State<Arc<Root>>,
    Named(id): Named<String>,
) -> Result<Json<Message>, Failure> {
    root.hold_cluster(extract::id(&id, "cluster")?, false).await?;
    Ok(Message::json("The cluster gets new instances again."))
}
