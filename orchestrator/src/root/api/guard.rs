//! Stands before every route and admits whom its rule admits. Handlers find the caller that it has let in.

use std::sync::Arc;

use axum::RequestExt;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::root::Root;
use crate::root::access::{Caller, Rule};
use crate::root::failure::Failure;

/// The name of the part of a path that names a user.
pub(super) const USER: &str = "username";

/// The refresh token that a request shows. Not checked yet.
#[derive(Clone)]
pub(super) struct RefreshToken(pub(super) String);

pub(super) async fn check(
    State((root, rule)): State<(Arc<Root>, Rule)>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&root, rule, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

async fn admit(root: &Root, rule: Rule, request: &mut Request) -> Result<(), Failure> {
    if !rule.needs_token() {
        return Ok(());
    }
    let token = bearer(request.headers())?.to_owned();
    if rule == Rule::Refresher {
        request.extensions_mut().insert(RefreshToken(token));
        return Ok(());
    }
    let caller = root.caller(&token).await?;
    // A path that cannot be read names nobody.
    let parameters = request.extract_parts::<RawPathParams>().await.ok();
    let named = parameters.iter().flatten().find(|(name, _)| *name == USER).map(|(_, value)| value);
    rule.check(&caller, named)?;
    request.extensions_mut().insert(caller);
    Ok(())
}

pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Failure> {
    let value = headers.get(header::AUTHORIZATION).ok_or(Failure::NoToken)?;
    let (scheme, token) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Failure::NoToken)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(Failure::NoToken) }
}

impl FromRequestParts<Arc<Root>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _root: &Arc<Root>) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or(Failure::NoToken)
    }
}

impl FromRequestParts<Arc<Root>> for RefreshToken {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _root: &Arc<Root>) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or(Failure::NoToken)
    }
}
