//! Logging in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::extract::{Body, Refresher};
use crate::clock;
use crate::root::account::User;
use crate::root::failure::Failure;
use crate::root::token::Kind;
use crate::root::{Root, key};

#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct Credentials {
    #[schema(example = "Admin")]
    username: String,
    password: String,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct LoggedIn {
    /// Good for ten minutes. Sent as `Authorization: Bearer <token>`.
    token: String,
    /// Good for seven days, for new tokens only.
    refresh_token: String,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Refreshed {
    token: String,
}

/// Log in.
#[utoipa::path(post, path = "/api/auth/login", tag = "auth", request_body = Credentials,
    responses((status = 200, body = LoggedIn), (status = 401, description = "user name or password is wrong")))]
pub(super) async fn login(
    State(root): State<Arc<Root>>,
    Body(credentials): Body<Credentials>,
) -> Result<Json<LoggedIn>, Failure> {
    let user = root
        .gate
        .log_in(&root.store, &credentials.username, credentials.password)
        .await?
        .ok_or(Failure::Credentials)?;
    Ok(Json(LoggedIn {
        token: issue(&root, Kind::Access, &user)?,
        refresh_token: issue(&root, Kind::Refresh, &user)?,
    }))
}

/// Get a new token for a refresh token.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "auth", security(("token" = [])),
    responses((status = 200, body = Refreshed), (status = 401, description = "no refresh token, or no longer good"),
        (status = 404, description = "the user is gone")))]
pub(super) async fn refresh(
    State(root): State<Arc<Root>>,
    Refresher(claims): Refresher,
) -> Result<Json<Refreshed>, Failure> {
    let user = root.store.get::<User>(&key::user(&claims.sub)).await?;
    let user = user.ok_or(Failure::NotFound { kind: "user", id: claims.sub })?.value;
    Ok(Json(Refreshed { token: issue(&root, Kind::Access, &user)? }))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole seconds of a clock after 1970"
)]
fn issue(root: &Root, kind: Kind, user: &User) -> Result<String, Failure> {
    let organization = user.organization.to_string();
    Ok(root.tokens.issue(kind, &user.name, &user.roles, &organization, clock::now() as u64)?)
}
