//! Applications.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::Value;

use super::docs::Message;
use super::extract::{self, Admin, Body, Caller};
use crate::root::Root;
use crate::root::application::Document;
use crate::root::failure::Failure;
use crate::sla;

impl Root {
    /// Checks an SLA against the rules alone: what is taken is another question.
    pub(super) fn check_sla(document: &Value) -> Result<protocol::sla::Document, Failure> {
        sla::check(document, &|_address| false).map_err(Failure::Invalid)
    }

    /// Checks the addresses that an SLA asks for.
    pub(super) fn check_addresses(&self, document: &Value) -> Result<(), Failure> {
        sla::check(document, &|address| self.pool().is_taken(address)).map(drop).map_err(Failure::Invalid)
    }

    async fn documents(&self, owner: Option<&str>) -> Result<Vec<Document>, Failure> {
        let applications = self.applications().await?;
        let own = |name: &str| owner.is_none_or(|owner| owner == name);
        Ok(applications.into_iter().filter(|one| own(&one.owner)).map(Document::from).collect())
    }
}

/// Create the applications of an SLA, with their services. Nothing is started.
#[utoipa::path(post, path = "/api/application", tag = "application", security(("token" = [])),
    request_body(content = Object, description = "SLA, version v2.0"),
    responses((status = 200, body = Vec<Object>, description = "all applications of the caller"),
        (status = 400, description = "no JSON"), (status = 401), (status = 409, description = "the name is taken"),
        (status = 422, description = "the SLA is not valid: `errors` names each field")))]
pub(super) async fn create(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Body(document): Body<Value>,
) -> Result<Json<Vec<Document>>, Failure> {
    let checked = Root::check_sla(&document)?;
    // Whoever creates the same application twice is told that it exists, not that its addresses are taken: by itself.
    root.names_are_free(&checked).await?;
    root.check_addresses(&document)?;
    let user = caller.0.sub;
    root.create_applications(&user, checked).await?;
    Ok(Json(root.documents(Some(&user)).await?))
}

/// An application.
#[utoipa::path(get, path = "/api/application/{id}", tag = "application", security(("token" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Object), (status = 401), (status = 403), (status = 404)))]
pub(super) async fn get(
    State(root): State<Arc<Root>>,
    caller: Caller,
    path: Path<String>,
) -> Result<Json<Document>, Failure> {
    let id = extract::id(&path, "application")?;
    let application = root.application(id).await?.ok_or_else(|| Failure::no_application(id))?;
    caller.must_own(&application.owner)?;
    Ok(Json(application.into()))
}

/// Delete an application with its services and their instances.
#[utoipa::path(delete, path = "/api/application/{id}", tag = "application", security(("token" = [])),
    params(("id" = String, Path)), responses((status = 200, body = Message), (status = 401), (status = 403), (status = 404)))]
pub(super) async fn delete(
    State(root): State<Arc<Root>>,
    caller: Caller,
    path: Path<String>,
) -> Result<Json<Message>, Failure> {
    let id = extract::id(&path, "application")?;
    let application = root.application(id).await?.ok_or_else(|| Failure::no_application(id))?;
    caller.must_own(&application.owner)?;
    root.delete_application(id).await?;
    Ok(Message::json("Application Deleted"))
}

/// All applications of all users.
#[utoipa::path(get, path = "/api/applications", tag = "application", security(("token" = [])),
    responses((status = 200, body = Vec<Object>), (status = 401), (status = 403)))]
pub(super) async fn list(
    State(root): State<Arc<Root>>,
    _admin: Admin,
) -> Result<Json<Vec<Document>>, Failure> {
    Ok(Json(root.documents(None).await?))
}

/// The caller's applications.
#[utoipa::path(get, path = "/api/applications/{user}", tag = "application", security(("token" = [])),
    params(("user" = String, Path)), responses((status = 200, body = Vec<Object>), (status = 401), (status = 403)))]
pub(super) async fn list_own(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Json<Vec<Document>>, Failure> {
    caller.must_own(&user)?;
    Ok(Json(root.documents(Some(&user)).await?))
}
