//! HTTP on 10100, as far as the one above speaks there: instances to run and to remove, what operators want of workers, and
//! why instances are where they are. Decodes, asks, encodes; decides nothing.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use protocol::decision::Decisions;
use protocol::id::Id;
use protocol::service::{Instance, Service};
use serde_json::Value;

use crate::problem::{Problem, no_route, ok, read};
use crate::wish::Wish;

/// Who takes orders. What it has answered is not lost.
pub(crate) trait Taker: Clone + Send + Sync + 'static {
    /// Runs an instance of the service, whose document comes without its instances. Twice is once.
    fn deploy(
        &self,
        service: Service,
        instance: Instance,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Removes an instance, or all of the service.
    fn undeploy(&self, service: Id, number: Option<u32>) -> impl Future<Output = Result<(), Problem>> + Send;

    fn wish(&self, worker: Id, wish: Wish) -> impl Future<Output = Result<(), Problem>> + Send;

    /// A worker is gone for good; refused of one that is heard.
    fn delete_worker(&self, worker: Id) -> impl Future<Output = Result<(), Problem>> + Send;

    /// `None`: there is no such service here.
    fn why(&self, service: Id) -> impl Future<Output = Result<Option<Decisions>, Problem>> + Send;
}

pub(crate) fn router<T: Taker>(taker: T) -> Router {
    Router::new()
        .route("/api/service/{job_id}/{number}", post(deploy::<T>).delete(undeploy::<T>))
        .route("/api/worker/{id}", delete(delete_worker::<T>))
        .route("/api/worker/{id}/cordon", post(cordon::<T>))
        .route("/api/worker/{id}/drain", post(drain::<T>))
        .route("/api/worker/{id}/uncordon", post(uncordon::<T>))
        .route("/v1/why/{job_id}", get(why::<T>))
        .fallback(no_route)
        .with_state(taker)
}

async fn deploy<T: Taker>(
    State(taker): State<T>,
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
    let mut instances = std::mem::take(&mut service.instance_list).into_iter();
    let Some(instance) = instances.find(|instance| instance.instance_number == number) else {
        return Err(Problem::field(
            "instance_list",
            format!("instance {number} of the path is not in the list"),
        ));
    };
    taker.deploy(service, instance).await?;
    Ok(ok())
}

async fn undeploy<T: Taker>(
    State(taker): State<T>,
    Path((job_id, number)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let service = service_id(&job_id)?;
    let number = match number.as_str() {
        "-1" => None,
        text => Some(text.parse().map_err(|_no_number| {
            Problem::not_found(format!("no instance {text:?}: expected its number, or -1 for all"))
        })?),
    };
    taker.undeploy(service, number).await?;
    Ok(ok())
}

async fn cordon<T: Taker>(State(taker): State<T>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    wish(&taker, &id, Wish::Cordon).await
}

async fn drain<T: Taker>(State(taker): State<T>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    wish(&taker, &id, Wish::Drain).await
}

async fn uncordon<T: Taker>(State(taker): State<T>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    wish(&taker, &id, Wish::Uncordon).await
}

async fn wish<T: Taker>(taker: &T, id: &str, wish: Wish) -> Result<Json<Value>, Problem> {
    taker.wish(worker_id(id)?, wish).await?;
    Ok(ok())
}

async fn delete_worker<T: Taker>(
    State(taker): State<T>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    taker.delete_worker(worker_id(&id)?).await?;
    Ok(ok())
}

async fn why<T: Taker>(
    State(taker): State<T>,
    Path(job_id): Path<String>,
) -> Result<Json<Decisions>, Problem> {
    let service = service_id(&job_id)?;
    let unknown = || Problem::not_found(format!("no service {service} here"));
    taker.why(service).await?.map(Json).ok_or_else(unknown)
}

fn worker_id(text: &str) -> Result<Id, Problem> {
    text.parse().map_err(|error| Problem::not_found(format!("no such worker: {error}")))
}

fn service_id(text: &str) -> Result<Id, Problem> {
    text.parse().map_err(|error| Problem::not_found(format!("no such service: {error}")))
}
