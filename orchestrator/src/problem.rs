//! What callers of cluster and branch are told: that it is done, or why not, in one JSON shape that names the field.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    message: String,
    field: Option<&'static str>,
}

impl Problem {
    /// The request names something that is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The body is not what was expected.
    pub(crate) fn body(error: &serde_json::Error) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("body: {error}"))
    }

    pub(crate) fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), field: None }
    }

    /// The daemon is stopping.
    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "this one is stopping")
    }
}

/// Reads a body, whatever its content type is called: Oakestra's parts do not always say it.
pub(crate) fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::body(&error))
}

pub(crate) async fn no_route() -> Problem {
    Problem::not_found("nothing is served under this path")
}

pub(crate) fn ok() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `{"code", "status", "message"}`, as Oakestra's framework has it, and `field` where one is to blame.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "code": self.status.as_u16(),
            "status": self.status.canonical_reason().unwrap_or_default(),
            "message": self.message,
        });
        if let Some(field) = self.field {
            body["field"] = field.into();
        }
        (self.status, Json(body)).into_response()
    }
}
