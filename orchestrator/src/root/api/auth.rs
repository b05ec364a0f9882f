//! Logging in, and making those who can.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;

use super::extract::{Body, check_text};
use super::guard::RefreshToken;
use crate::http::Peer;
use crate::root::Root;
use crate::root::access::Caller;
use crate::root::account::{Document, Newcomer};
use crate::root::failure::Failure;
use crate::root::password::Password;
use crate::root::role::{self, Role, Roles};
use crate::root::session::TokenPair;
use crate::root::user::UserName;

#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct Credentials {
    #[schema(example = "Admin")]
    username: String,
    password: Password,
    /// The organization to log in to; without it `root`, else the one that the user is in.
    #[serde(default)]
    organization_name: Option<String>,
}

/// A user who is to be made, in the caller's organization.
#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct Registration {
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
    name: UserName,
    #[schema(min_length = 8, max_length = 256)]
    password: Password,
    /// Where a link for a new password is sent.
    #[serde(default)]
    #[schema(max_length = 254)]
    email: String,
    /// Now, if it is left out.
    #[serde(default)]
    #[schema(max_length = 64)]
    created_at: Option<String>,
    #[serde(default, deserialize_with = "role::written")]
    #[schema(value_type = Vec<Role>)]
    roles: Roles,
}

/// Log in.
#[utoipa::path(post, path = "/api/auth/login", tag = "auth", request_body = Credentials,
    responses((status = 200, body = TokenPair), (status = 401, description = "user name or password is wrong"),
        (status = 403, description = "no member of the organization"),
        (status = 404, description = "no such organization"), (status = 429, description = "too many failed tries")))]
pub(super) async fn login(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    Body(credentials): Body<Credentials>,
) -> Result<Json<TokenPair>, Failure> {
    let Credentials { username, password, organization_name } = credentials;
    Ok(Json(root.log_in(&username, password, organization_name.as_deref(), peer).await?))
}

/// Get new tokens for a refresh token, which is good no longer then. Used twice, it ends all that came of its login.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "auth",
    responses((status = 200, body = TokenPair)))]
pub(super) async fn refresh(
    State(root): State<Arc<Root>>,
    RefreshToken(token): RefreshToken,
) -> Result<Json<TokenPair>, Failure> {
    Ok(Json(root.refresh(&token).await?))
}

/// Make a user in the caller's organization.
#[utoipa::path(post, path = "/api/auth/register", tag = "auth", request_body = Registration,
    responses((status = 200, body = Document), (status = 409, description = "the name is taken")))]
pub(super) async fn register(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Body(registration): Body<Registration>,
) -> Result<Json<Document>, Failure> {
    let Registration { name, password, email, created_at, roles } = registration;
    caller.may_grant(&roles)?;
    check_text("email", &email, super::user::EMAIL_MAX)?;
    check_text("created_at", created_at.as_deref().unwrap_or_default(), super::user::DATE_MAX)?;
    let organization = caller.organization;
    let user = root.create_user(Newcomer { name, password, email, created_at, organization, roles }).await?;
    tracing::info!(by = %caller.name, user = %user.name, "user made");
    Ok(Json(user.document(organization)))
}
