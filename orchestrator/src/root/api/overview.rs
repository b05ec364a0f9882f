//! The whole at a glance: Hypha's own part of the API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::overview::Overview;

use super::schema;
use crate::root::Root;
use crate::root::access::Caller;
use crate::root::failure::Failure;

/// Everything in numbers, and what somebody may have to act on, as far as the caller may see it.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, body = schema::Overview)))]
pub(super) async fn status(State(root): State<Arc<Root>>, caller: Caller) -> Result<Json<Overview>, Failure> {
    Ok(Json(root.overview(&caller).await?))
}
