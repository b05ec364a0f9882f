//! What handlers take out of a request: a JSON body, an id or a name in the path.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use protocol::id::Id;
use serde::de::DeserializeOwned;

use crate::root::failure::Failure;

/// A JSON body, whatever its content type says: Oakestra's parts do not always say it. None is a list, which serde would
/// take for an object whose keys are left out.
pub(in crate::root) struct Body<T>(pub(in crate::root) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let Raw(bytes) = Raw::from_request(request, state).await?;
        read(&bytes).map(Body)
    }
}

/// A body that is read later, by [`read`].
pub(super) struct Raw(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Bytes::from_request(request, state).await.map(Self).map_err(unread)
    }
}

/// Reads a JSON body, as [`Body`] does.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let is_list = body.trim_ascii_start().starts_with(b"[");
    match serde_json::from_slice(body) {
        Ok(_) if is_list => Err(Failure::Malformed("The body is a list: expected an object.".to_owned())),
        read => read.map_err(|error| malformed(&error)),
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

/// The variable parts of the path: one text, or a tuple of them.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let named = Path::<T>::from_request_parts(parts, state).await;
        named.map(|Path(named)| Self(named)).map_err(|_no_text| Failure::NotFound {
            kind: "object of the name",
            id: shortened(parts.uri.path()),
        })
    }
}

/// Reads an id of the path. One that cannot be is not found, like one that is not there.
pub(super) fn id(text: &str, kind: &'static str) -> Result<Id, Failure> {
    text.parse().map_err(|_invalid| Failure::NotFound { kind, id: shortened(text) })
}

/// Reads the name of a user likewise.
pub(super) fn user(text: &str) -> Result<crate::root::user::UserName, Failure> {
    text.try_into().map_err(|_invalid| Failure::no_user(shortened(text)))
}

/// # Errors
/// When a text is longer than is kept, or has invisible signs.
pub(super) fn check_text(field: &str, text: &str, max: usize) -> Result<(), Failure> {
    if text.len() <= max && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Failure::Malformed(format!("{field}: expected at most {max} bytes without control characters.")))
    }
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
