//! Failures as clients read them: one shape for all.
//!
//! `{"code": 422, "status": "Unprocessable Entity", "message": "…", "errors": [{"path": "…", "message": "…"}]}`,
//! the last only where single fields are wrong. `code` and `status` are what Oakestra's framework answers.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::root::failure::Failure;
use crate::sla::Violation;

#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    code: u16,
    status: &'static str,
    message: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
}

fn answer(code: StatusCode, message: String, errors: &[Violation]) -> Response {
    let status = code.canonical_reason().unwrap_or_default();
    (code, Json(ErrorBody { code: code.as_u16(), status, message, errors })).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoToken | Self::Token(_) | Self::Credentials => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Pool(_) | Self::NoSubnet => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if let Self::Store(error) = &self {
            tracing::error!(%error, "request failed");
            return answer(code, "The root's store failed; its log says why.".to_owned(), &[]);
        }
        let errors = if let Self::Invalid(violations) = &self { violations.as_slice() } else { &[] };
        answer(code, self.to_string(), errors)
    }
}

pub(in crate::root) async fn no_route(method: Method, uri: Uri) -> Response {
    answer(StatusCode::NOT_FOUND, format!("There is no {method} {}.", uri.path()), &[])
}

pub(super) async fn no_method(method: Method, uri: Uri) -> Response {
    answer(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}.", uri.path()), &[])
}
