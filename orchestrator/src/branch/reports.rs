//! HTTP on 10000: clusters report. Of a root's API this is all that a branch has.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use protocol::cluster::TAKEN_HEADER;
use protocol::id::Id;
use serde_json::json;

use super::control::Handle;
use super::state::Untaken;
use crate::children::report::{REPORT_MAX, Read};
use crate::problem::{Problem, no_route};

pub(super) fn router(handle: Handle) -> Router {
    let path = "/api/information/{id}";
    let report = post(report).layer(DefaultBodyLimit::max(REPORT_MAX));
    Router::new()
        .route(path, report.clone())
        .route(&format!("{path}/"), report)
        .fallback(no_route)
        .with_state(handle)
}

async fn report(
    State(handle): State<Handle>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found(format!("No cluster {id} has registered here since it was to."));
    let cluster: Id = id.parse().map_err(|_no_id| unknown())?;
    let read = Read::of(&body, &id).map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why))?;
    let offered = rand::random();
    match handle.ask(move |state, now| state.reported(cluster, read, offered, now)).await? {
        Ok(Some(number)) => Ok(([(TAKEN_HEADER, number.to_string())], "ok").into_response()),
        Ok(None) => Ok("ok".into_response()),
        Err(Untaken::Unregistered) => Err(unknown()),
        Err(Untaken::UnknownBase) => {
            let message = "The report that this one continues is not known here: report everything.";
            Ok((StatusCode::CONFLICT, Json(json!({ "message": message }))).into_response())
        }
    }
}
