//! HTTP on 10110: the one above says that tables changed.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{delete, post};
use axum::{Json, Router};
use protocol::name::ServiceName;
use protocol::net::{JobUpdate, NetDeployment, UpdateKind};
use serde_json::Value;

use crate::problem::{Problem, no_route, ok, read};

/// Who is told. It answers when it has kept it.
pub(crate) trait Listener: Clone + Send + Sync + 'static {
    fn table_changed(&self, update: JobUpdate) -> impl Future<Output = Result<(), Problem>> + Send;
}

pub(crate) fn router<L: Listener>(listener: L) -> Router {
    Router::new()
        .route("/api/net/deployment", post(deployment::<L>))
        .route("/api/net/deployment/{job_name}", delete(undeployment::<L>))
        .route("/api/net/job/update", post(update::<L>))
        .fallback(no_route)
        .with_state(listener)
}

async fn deployment<L: Listener>(State(listener): State<L>, body: Bytes) -> Result<Json<Value>, Problem> {
    let NetDeployment { job_name } = read(&body)?;
    changed(&listener, job_name, UpdateKind::Deployment).await
}

async fn undeployment<L: Listener>(
    State(listener): State<L>,
    Path(job_name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let job_name =
        job_name.parse().map_err(|error| Problem::not_found(format!("no such service: {error}")))?;
    changed(&listener, job_name, UpdateKind::Undeployment).await
}

async fn changed<L: Listener>(
    listener: &L,
    job_name: ServiceName,
    kind: UpdateKind,
) -> Result<Json<Value>, Problem> {
    tell(listener, JobUpdate { job_name, instance_number: -1, kind }).await
}

async fn update<L: Listener>(State(listener): State<L>, body: Bytes) -> Result<Json<Value>, Problem> {
    let update: JobUpdate = read(&body)?;
    if update.instance_number < -1 || u32::try_from(update.instance_number.max(0)).is_err() {
        return Err(Problem::field("instance_number", "expected the number of an instance, or -1 for all"));
    }
    tell(&listener, update).await
}

async fn tell<L: Listener>(listener: &L, update: JobUpdate) -> Result<Json<Value>, Problem> {
    listener.table_changed(update).await?;
    Ok(ok())
}
