//! Failures as clients read them: one shape for all.
//!
//! `{"code": 422, "status": "Unprocessable Entity", "message": "…", "errors": [{"path": "…", "message": "…"}]}`,
//! the last only where single fields are wrong. `code` and `status` are what Oakestra's framework answers.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::chain;
use crate::root::failure::{self, Failure};
use crate::sla::Violation;

/// Why something was not done.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Error)]
pub(super) struct ErrorBody<'a> {
    code: u16,
    status: &'static str,
    message: String,
    /// Only where single fields are wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Option<Vec<Violation>>)]
    errors: &'a [Violation],
}

fn answer(code: StatusCode, message: String, errors: &[Violation]) -> Response {
    let status = code.canonical_reason().unwrap_or_default();
    (code, Json(ErrorBody { code: code.as_u16(), status, message, errors })).into_response()
}

/// As [`answer`], with a header.
fn answer_with(code: StatusCode, message: String, name: HeaderName, value: HeaderValue) -> Response {
    let mut response = answer(code, message, &[]);
    response.headers_mut().insert(name, value);
    response
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = match &self {
            Self::Malformed(_) | Self::BadReset => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoToken | Self::Token(_) | Self::Credentials => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Cluster(_) => StatusCode::BAD_GATEWAY,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Pool(_) | Self::NoSubnet | Self::NoMail | Self::Listeners => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Store(error) if error.is_full() => StatusCode::INSUFFICIENT_STORAGE,
            Self::Store(error) if error.is_out_of_reach() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) | Self::Password(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match &self {
            Self::Store(error) if error.is_full() => {
                let full = "The disk of the root's --data-dir is full: nothing was changed.";
                answer(code, full.to_owned(), &[])
            }
            Self::Store(error) if error.is_out_of_reach() => {
                tracing::error!(error = %chain(&self), "request failed");
                answer(
                    code,
                    "The root does not reach its state in etcd, or another root leads now.".to_owned(),
                    &[],
                )
            }
            Self::Store(_) | Self::Password(_) => {
                tracing::error!(error = %chain(&self), "request failed");
                answer(code, "The root failed to carry it out; its log says why.".to_owned(), &[])
            }
            Self::TooMany(wait) => {
                answer_with(code, self.to_string(), header::RETRY_AFTER, failure::seconds(*wait).into())
            }
            _ if code == StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer");
                answer_with(code, self.to_string(), header::WWW_AUTHENTICATE, scheme)
            }
            Self::Invalid(violations) => answer(code, self.to_string(), violations),
            _ => answer(code, self.to_string(), &[]),
        }
    }
}

pub(in crate::root) async fn no_route(method: Method, uri: Uri) -> Response {
    answer(StatusCode::NOT_FOUND, format!("There is no {method} {}.", uri.path()), &[])
}

pub(super) async fn no_method(method: Method, uri: Uri) -> Response {
    answer(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}.", uri.path()), &[])
}
