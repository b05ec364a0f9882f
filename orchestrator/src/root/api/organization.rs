//! Organizations.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::id::Id;
use serde::Deserialize;

use super::docs::Message;
use super::extract::{self, Body, Named};
use crate::root::Root;
use crate::root::access::Caller;
use crate::root::failure::Failure;
use crate::root::organization::{Document, Member, OrganizationName};

/// An organization that is to be made.
#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct Founding {
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    name: OrganizationName,
    #[serde(default)]
    member: Vec<Member>,
}

/// What is to become different; what is left out stays.
#[derive(Deserialize, utoipa::ToSchema)]
pub(super) struct OrganizationChange {
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    name: Option<OrganizationName>,
    /// All members: who is left out is one no longer.
    #[serde(default)]
    member: Option<Vec<Member>>,
}

/// All organizations that the caller may see, with their members.
#[utoipa::path(get, path = "/api/organization", tag = "organization",
    responses((status = 200, body = Vec<Document>)))]
pub(super) async fn list(
    State(root): State<Arc<Root>>,
    caller: Caller,
) -> Result<Json<Vec<Document>>, Failure> {
    let users = root.users().await?;
    let organizations = root.organizations().await?.into_iter();
    let visible = organizations.filter(|organization| caller.may_see_organization(organization.id));
    Ok(Json(visible.map(|organization| organization.with_members(&users)).collect()))
}

/// Make an organization. The answer is its id.
#[utoipa::path(post, path = "/api/organization", tag = "organization", request_body = Founding,
    responses((status = 200, body = String, content_type = "application/json"), (status = 404, description = "no such user"),
        (status = 409, description = "the name is taken")))]
pub(super) async fn create(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Body(founding): Body<Founding>,
) -> Result<Json<Id>, Failure> {
    let id = root.create_organization(founding.name, founding.member).await?;
    tracing::info!(by = %caller.name, organization = %id, "organization made");
    Ok(Json(id))
}

/// Change name or members of an organization.
#[utoipa::path(put, path = "/api/organization/{organization}", tag = "organization", request_body = OrganizationChange,
    params(("organization" = String, Path)),
    responses((status = 200, body = Message), (status = 409, description = "the name is taken")))]
pub(super) async fn update(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(organization): Named<String>,
    Body(change): Body<OrganizationChange>,
) -> Result<Json<Message>, Failure> {
    let id = extract::id(&organization, "organization")?;
    root.change_organization(id, change.name, change.member).await?;
    tracing::info!(by = %caller.name, organization = %id, "organization changed");
    Ok(Message::json("Organization is updated"))
}

/// Delete an organization. Its users stay, without their roles in it.
#[utoipa::path(delete, path = "/api/organization/{organization}", tag = "organization",
    params(("organization" = String, Path)),
    responses((status = 200, body = Message), (status = 409, description = "it has applications, or is root")))]
pub(super) async fn delete(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(organization): Named<String>,
) -> Result<Json<Message>, Failure> {
    let id = extract::id(&organization, "organization")?;
    root.delete_organization(id).await?;
    tracing::info!(by = %caller.name, organization = %id, "organization deleted");
    Ok(Message::json("Organization deleted"))
}
