//! What a caller is told when its request is refused: one JSON shape, that names the field.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::state::Refused;

#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    field: Option<&'static str>,
}

impl Problem {
    /// The request names something that is not there.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into(), field: None }
    }

    /// The body is not what was expected.
    pub(super) fn body(error: &serde_json::Error) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: format!("body: {error}"), field: None }
    }

    pub(super) fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), field: Some(field) }
    }

    /// The cluster is stopping.
    pub(super) fn stopping() -> Self {
        let message = "the cluster is stopping".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message, field: None }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::UnknownService(_) | Refused::UnknownInstance { .. } | Refused::UnknownWorker(_) => {
                StatusCode::NOT_FOUND
            }
            Refused::BeingRemoved { .. } | Refused::IsHeard { .. } | Refused::HearsNobody { .. } => {
                StatusCode::CONFLICT
            }
        };
        Self { status, message: refused.to_string(), field: None }
    }
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
