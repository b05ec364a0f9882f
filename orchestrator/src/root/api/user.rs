//! Users.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use protocol::id::Id;
use serde::{Deserialize, Serialize};

use super::extract::{self, Body, Named, check_text};
use crate::http::Peer;
use crate::root::Root;
use crate::root::access::Caller;
use crate::root::account::{Change, Document};
use crate::root::failure::Failure;
use crate::root::password::Password;
use crate::root::role::{self, Role, Roles};
use crate::root::user::User;

pub(super) const EMAIL_MAX: usize = 254;
pub(super) const DATE_MAX: usize = 64;

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Permissions {
    #[schema(value_type = Vec<Role>)]
    roles: Roles,
}

/// What is to become different of a user; what is left out stays.
#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct UserChange {
    /// Only to be that of the path.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    #[schema(max_length = 254)]
    email: Option<String>,
    /// In the caller's organization.
    #[serde(default, deserialize_with = "role::written_or_none")]
    #[schema(value_type = Option<Vec<Role>>)]
    roles: Option<Roles>,
    /// Ends all logins of the user. An empty one is none.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    password: Option<Password>,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PasswordChange {
    old_password: Password,
    #[schema(min_length = 8, max_length = 256)]
    new_password: Password,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct ResetRequest {
    username: String,
    /// Not used: the link leads to the dashboard of the root's settings, and nowhere that a request names.
    #[serde(default, rename = "domain")]
    _domain: Option<String>,
}

#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct Reset {
    /// The last part of the link.
    token: String,
    #[schema(min_length = 8, max_length = 256)]
    password: Password,
}

/// `{}`.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Nothing {}

impl Root {
    /// The user, if the caller may see them.
    async fn user_for(&self, caller: &Caller, name: &str) -> Result<User, Failure> {
        let user = self.user(&extract::user(name)?).await?;
        user.filter(|user| caller.may_see(user)).ok_or_else(|| Failure::no_user(extract::shortened(name)))
    }

    /// The user, if the caller may change them.
    async fn user_to_change(&self, caller: &Caller, name: &str) -> Result<User, Failure> {
        let user = self.user_for(caller, name).await?;
        if caller.may_change(&user) {
            Ok(user)
        } else {
            Err(Failure::Forbidden("the user has rights beyond your organization"))
        }
    }

    /// All whom the caller may see, with their roles in this organization.
    async fn users_for(
        &self,
        caller: &Caller,
        organization: Id,
        is_wanted: impl Fn(&User) -> bool,
    ) -> Result<Vec<Document>, Failure> {
        let users = self.users().await?;
        let wanted = users.iter().filter(|user| caller.may_see(user) && is_wanted(user));
        Ok(wanted.map(|user| user.document(organization)).collect())
    }
}

/// The roles of a user in the caller's organization.
#[utoipa::path(get, path = "/api/permission/{username}", tag = "user",
    params(("username" = String, Path)), responses((status = 200, body = Permissions)))]
pub(super) async fn permission(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(name): Named<String>,
) -> Result<Json<Permissions>, Failure> {
    let user = root.user_for(&caller, &name).await?;
    let roles = user.memberships.get(&caller.organization).cloned().unwrap_or_default();
    Ok(Json(Permissions { roles }))
}

/// A user.
#[utoipa::path(get, path = "/api/user/{username}", tag = "user",
    params(("username" = String, Path)), responses((status = 200, body = Document)))]
pub(super) async fn get(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(name): Named<String>,
) -> Result<Json<Document>, Failure> {
    Ok(Json(root.user_for(&caller, &name).await?.document(caller.organization)))
}

/// Change mail address, roles or password of a user.
#[utoipa::path(put, path = "/api/user/{username}", tag = "user", request_body = UserChange,
    params(("username" = String, Path)),
    responses((status = 200, body = String, content_type = "application/json"), (status = 409, description = "the user Admin keeps the role Admin")))]
pub(super) async fn update(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(name): Named<String>,
    Body(change): Body<UserChange>,
) -> Result<Json<&'static str>, Failure> {
    let user = root.user_to_change(&caller, &name).await?;
    let UserChange { name: written, email, roles, password } = change;
    if written.is_some_and(|written| written != user.name.as_str()) {
        return Err(Failure::Malformed("name: a user cannot be renamed.".to_owned()));
    }
    check_text("email", email.as_deref().unwrap_or_default(), EMAIL_MAX)?;
    if let Some(roles) = &roles {
        caller.may_grant(roles)?;
    }
    let roles = roles.map(|roles| (caller.organization, roles));
    let password = password.filter(|password| !password.is_empty());
    root.change_user(&user.name, Change { email, roles, password }).await?;
    tracing::info!(by = %caller.name, user = %user.name, "user changed");
    Ok(Json("ok"))
}

/// Delete a user. The answer is the users who are left.
#[utoipa::path(delete, path = "/api/user/{username}", tag = "user",
    params(("username" = String, Path)),
    responses((status = 200, body = Vec<Document>), (status = 409, description = "the user has applications, or is Admin")))]
pub(super) async fn delete(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(name): Named<String>,
) -> Result<Json<Vec<Document>>, Failure> {
    let user = root.user_to_change(&caller, &name).await?;
    root.delete_user(&user.name).await?;
    tracing::info!(by = %caller.name, user = %user.name, "user deleted");
    Ok(Json(root.users_for(&caller, caller.organization, |_| true).await?))
}

/// Change the own password. Ends all logins of the user.
#[utoipa::path(post, path = "/api/user/{username}", tag = "user", request_body = PasswordChange,
    params(("username" = String, Path)),
    responses((status = 200, body = Nothing), (status = 429, description = "too many failed tries")))]
pub(super) async fn change_password(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    caller: Caller,
    Body(change): Body<PasswordChange>,
) -> Result<Json<Nothing>, Failure> {
    root.attempts.begin(caller.name.as_str(), peer).map_err(Failure::TooMany)?;
    if root.verified(caller.name.as_str(), change.old_password).await?.is_none() {
        return Err(Failure::Malformed("The old password is wrong.".to_owned()));
    }
    root.attempts.succeeded(caller.name.as_str(), peer);
    root.set_password(&caller.name, change.new_password).await?;
    Ok(Json(Nothing {}))
}

/// Ask for a link by which a forgotten password is replaced. The answer is the same whether there is such a user.
#[utoipa::path(post, path = "/api/user", tag = "user", request_body = ResetRequest,
    responses((status = 200, body = Nothing), (status = 429, description = "too many mails"),
        (status = 503, description = "this root sends no mail")))]
pub(super) async fn ask_for_reset(
    State(root): State<Arc<Root>>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<ResetRequest>,
) -> Result<Json<Nothing>, Failure> {
    root.ask_for_reset(&request.username, peer)?;
    Ok(Json(Nothing {}))
}

/// Set a new password by the link that came by mail.
#[utoipa::path(put, path = "/api/user", tag = "user", request_body = Reset,
    responses((status = 200, body = Nothing)))]
pub(super) async fn reset(
    State(root): State<Arc<Root>>,
    Body(reset): Body<Reset>,
) -> Result<Json<Nothing>, Failure> {
    root.reset_password(&reset.token, reset.password).await?;
    Ok(Json(Nothing {}))
}

/// All users whom the caller may see, with their roles in the caller's organization.
#[utoipa::path(get, path = "/api/users", tag = "user", responses((status = 200, body = Vec<Document>)))]
pub(super) async fn list(
    State(root): State<Arc<Root>>,
    caller: Caller,
) -> Result<Json<Vec<Document>>, Failure> {
    Ok(Json(root.users_for(&caller, caller.organization, |_| true).await?))
}

/// The users of an organization, with their roles in it.
#[utoipa::path(get, path = "/api/users/{organization}", tag = "user",
    params(("organization" = String, Path)), responses((status = 200, body = Vec<Document>)))]
pub(super) async fn list_of(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(organization): Named<String>,
) -> Result<Json<Vec<Document>>, Failure> {
    let id = extract::id(&organization, "organization")?;
    let is_there = root.organization(id).await?.is_some();
    if !is_there || !caller.may_see_organization(id) {
        return Err(Failure::no_organization(id));
    }
    Ok(Json(root.users_for(&caller, id, |user| user.memberships.contains_key(&id)).await?))
}
