//! Workers: Hypha's own part of the API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::cluster::Workers;

use super::docs::Message;
use super::extract::{self, Named};
use super::schema;
use crate::root::Root;
use crate::root::failure::Failure;
use crate::wish::Wish;

/// All workers, as their clusters last told of them.
#[utoipa::path(get, path = "/v1/workers", tag = "worker", responses((status = 200, body = schema::Workers)))]
pub(super) async fn list(State(root): State<Arc<Root>>) -> Result<Json<Workers>, Failure> {
    Ok(Json(root.workers().await?))
}

/// Places nothing new on a worker. What runs there stays. Twice is once.
#[utoipa::path(post, path = "/v1/workers/{id}/cordon", tag = "worker", params(("id" = String, Path)),
    responses((status = 200, body = Message), (status = 502, description = "its cluster was not reached or refused")))]
pub(super) async fn cordon(
    State(root): State<Arc<Root>>,
    Named(id): Named<String>,
) -> Result<Json<Message>, Failure> {
    root.pass_on(extract::id(&id, "worker")?, Wish::Cordon).await?;
    Ok(Message::json("The worker gets nothing new."))
}

/// Moves what runs on a worker to others, and places nothing new there. What fits nowhere else stays. Twice is once.
#[utoipa::path(post, path = "/v1/workers/{id}/drain", tag = "worker", params(("id" = String, Path)),
    responses((status = 200, body = Message), (status = 502, description = "its cluster was not reached or refused")))]
pub(super) async fn drain(
    State(root): State<Arc<Root>>,
    Named(id): Named<String>,
) -> Result<Json<Message>, Failure> {
    root.pass_on(extract::id(&id, "worker")?, Wish::Drain).await?;
    Ok(Message::json("What runs on the worker moves to others."))
}

/// Lets a worker have new instances again. Twice is once.
#[utoipa::path(post, path = "/v1/workers/{id}/uncordon", tag = "worker", params(("id" = String, Path)),
    responses((status = 200, body = Message), (status = 502, description = "its cluster was not reached or refused")))]
pub(super) async fn uncordon(
    State(root): State<Arc<Root>>,
    Named(id): Named<String>,
) -> Result<Json<Message>, Failure> {
    root.pass_on(extract::id(&id, "worker")?, Wish::Uncordon).await?;
    Ok(Message::json("The worker gets new instances again."))
}

/// Takes a worker that is gone for good out of its cluster: what it ran is placed elsewhere at once, and its addresses can be given
/// to others. Refused as long as it is heard from, since it would join again: drain and stop it first.
#[utoipa::path(delete, path = "/v1/workers/{id}", tag = "worker", params(("id" = String, Path)),
    responses((status = 200, body = Message), (status = 409, description = "it is heard from"),
        (status = 502, description = "its cluster was not reached or refused")))]
pub(super) async fn delete(
    State(root): State<Arc<Root>>,
    Named(id): Named<String>,
) -> Result<Json<Message>, Failure> {
    root.delete_worker(extract::id(&id, "worker")?).await?;
    Ok(Message::json("The worker is gone."))
}
