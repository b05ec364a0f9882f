//! HTTP on 10110: the root says that tables changed.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{delete, post};
use axum::{Json, Router};
use protocol::name::ServiceName;
use protocol::net::{JobUpdate, NetDeployment, UpdateKind};
use serde_json::Value;
use tokio::sync::mpsc;

use super::api::{no_route, ok, read};
use super::control::Command;
use super::problem::Problem;

pub(super) fn router(commands: mpsc::Sender<Command>) -> Router {
    Router::new()
        .route("/api/net/deployment", post(deployment))
        .route("/api/net/deployment/{job_name}", delete(undeployment))
        .route("/api/net/job/update", post(update))
        .fallback(no_route)
        .with_state(commands)
}

async fn deployment(
    State(commands): State<mpsc::Sender<Command>>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let NetDeployment { job_name } = read(&body)?;
    changed(&commands, job_name, UpdateKind::Deployment).await
}

async fn undeployment(
    State(commands): State<mpsc::Sender<Command>>,
    Path(job_name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let job_name =
        job_name.parse().map_err(|error| Problem::not_found(format!("no such service: {error}")))?;
    changed(&commands, job_name, UpdateKind::Undeployment).await
}

async fn changed(
    commands: &mpsc::Sender<Command>,
    job_name: ServiceName,
    kind: UpdateKind,
) -> Result<Json<Value>, Problem> {
    tell(commands, JobUpdate { job_name, instance_number: -1, kind }).await
}

async fn update(State(commands): State<mpsc::Sender<Command>>, body: Bytes) -> Result<Json<Value>, Problem> {
    let update: JobUpdate = read(&body)?;
    if update.instance_number < -1 || u32::try_from(update.instance_number.max(0)).is_err() {
        return Err(Problem::field("instance_number", "expected the number of an instance, or -1 for all"));
    }
    tell(&commands, update).await
}

async fn tell(commands: &mpsc::Sender<Command>, update: JobUpdate) -> Result<Json<Value>, Problem> {
    commands.send(Command::TableChanged(update)).await.map_err(|_stopped| Problem::stopping())?;
    Ok(ok())
}
