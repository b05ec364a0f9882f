//! What handlers take out of a request: a JSON body, who asks, an id in the path.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header;
use axum::http::request::Parts;
use protocol::id::Id;
use serde::de::DeserializeOwned;

use crate::root::Root;
use crate::root::failure::Failure;
use crate::root::token::{Claims, Kind};

/// A JSON body, whatever its content type says: Oakestra's parts do not always say it.
pub(in crate::root) struct Body<T>(pub(in crate::root) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        serde_json::from_slice(&bytes).map(Body).map_err(|error| malformed(&error))
    }
}

fn unread(rejection: BytesRejection) -> Failure {
    let status = axum::response::IntoResponse::into_response(rejection).status();
    if status == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        Failure::TooLarge
    } else {
        Failure::Malformed("The body ended early.".to_owned())
    }
}

/// serde_json's words end with the position.
fn malformed(error: &serde_json::Error) -> Failure {
    let what = if error.is_data() {
        "The body does not have the expected form"
    } else {
        "The body is not valid JSON"
    };
    Failure::Malformed(format!("{what}: {error}."))
}

/// Who asks: the claims of a good access token.
pub(super) struct Caller(pub(super) Claims);

impl FromRequestParts<Arc<Root>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, root: &Arc<Root>) -> Result<Self, Failure> {
        Ok(Self(root.tokens.check(bearer(parts)?, Kind::Access)?))
    }
}

impl Caller {
    pub(super) fn is_admin(&self) -> bool {
        self.0.roles.iter().any(|role| role == "Admin")
    }

    /// # Errors
    /// When what is asked for belongs to somebody else.
    pub(super) fn must_own(&self, owner: &str) -> Result<(), Failure> {
        if self.is_admin() || self.0.sub == owner {
            Ok(())
        } else {
            Err(Failure::Forbidden("it belongs to another user"))
        }
    }
}

/// An admin who asks.
pub(super) struct Admin;

impl FromRequestParts<Arc<Root>> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, root: &Arc<Root>) -> Result<Self, Failure> {
        let caller = Caller::from_request_parts(parts, root).await?;
        if caller.is_admin() { Ok(Self) } else { Err(Failure::Forbidden("the role Admin is needed")) }
    }
}

/// The claims of a good refresh token.
pub(super) struct Refresher(pub(super) Claims);

impl FromRequestParts<Arc<Root>> for Refresher {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, root: &Arc<Root>) -> Result<Self, Failure> {
        Ok(Self(root.tokens.check(bearer(parts)?, Kind::Refresh)?))
    }
}

fn bearer(parts: &Parts) -> Result<&str, Failure> {
    let value = parts.headers.get(header::AUTHORIZATION).ok_or(Failure::NoToken)?;
    let (scheme, token) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Failure::NoToken)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(Failure::NoToken) }
}

/// Reads an id of the path. One that cannot be is not found, like one that is not there.
pub(super) fn id(path: &Path<String>, kind: &'static str) -> Result<Id, Failure> {
    path.parse().map_err(|_invalid| Failure::NotFound { kind, id: path.chars().take(64).collect() })
}
