//! Applications.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::id::Id;
use protocol::validation::Validation;
use serde::Deserialize;
use serde_json::Value;

use super::docs::Message;
use super::extract::{self, Body, Named, check_text};
use super::schema;
use crate::root::Root;
use crate::root::access::Caller;
use crate::root::application::{Application, Document};
use crate::root::change::ApplicationChange;
use crate::root::failure::Failure;
use crate::sla::{self, DESCRIPTION_MAX, Violation};

impl Root {
    /// Checks an SLA against the rules alone: what is taken is another question.
    pub(super) fn check_sla(&self, document: &Value) -> Result<protocol::sla::Document, Failure> {
        sla::check(document, Some(self.given()), &|_address| false).map_err(Failure::Invalid)
    }

    /// Checks the addresses that an SLA asks for.
    pub(super) fn check_addresses(&self, document: &Value) -> Result<(), Failure> {
        let is_taken = |address| self.pool().is_taken(address);
        sla::check(document, Some(self.given()), &is_taken).map(drop).map_err(Failure::Invalid)
    }

    pub(in crate::root) fn may_use(&self, caller: &Caller, application: &Application) -> bool {
        caller.may_use(&application.owner, application.organization.unwrap_or(self.root_organization))
    }

    /// The application, if the caller may use it.
    pub(super) async fn application_for(&self, caller: &Caller, id: &str) -> Result<Application, Failure> {
        let id = extract::id(id, "application")?;
        let application = self.application(id).await?;
        application.filter(|one| self.may_use(caller, one)).ok_or_else(|| Failure::no_application(id))
    }

    /// The applications that the caller may use, of all owners or of one.
    async fn applications_for(&self, caller: &Caller, owner: Option<&str>) -> Result<Vec<Document>, Failure> {
        let applications = self.applications().await?.into_iter();
        let is_wanted =
            |one: &Application| self.may_use(caller, one) && owner.is_none_or(|owner| owner == one.owner);
        Ok(applications.filter(is_wanted).map(Document::from).collect())
    }
}

/// Create the applications of an SLA, with their services. Nothing is started.
#[utoipa::path(post, path = "/api/application", tag = "application",
    request_body = schema::Sla,
    responses((status = 200, body = Vec<schema::Application>, description = "all applications of the caller"),
        (status = 409, description = "the name is taken"),
        (status = 422, description = "the SLA is not valid: `errors` names each field"),
        (status = 503, description = "all service addresses are taken")))]
pub(super) async fn create(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Body(document): Body<Value>,
) -> Result<Json<Vec<Document>>, Failure> {
    let checked = root.check_sla(&document)?;
    // Whoever creates the same application twice is told that it exists, not that its addresses are taken: by itself.
    root.names_are_free(&checked).await?;
    root.check_addresses(&document)?;
    root.create_applications(&caller, checked).await?;
    Ok(Json(root.applications_for(&caller, Some(caller.name.as_str())).await?))
}

/// What would become of an SLA, were it handed in: what is wrong with it, and which clusters could take its services now. Changes
/// nothing.
#[utoipa::path(post, path = "/v1/validate", tag = "application", request_body = schema::Sla,
    responses((status = 200, body = schema::Validation)))]
pub(super) async fn validate(
    State(root): State<Arc<Root>>,
    Body(document): Body<Value>,
) -> Result<Json<Validation>, Failure> {
    Ok(Json(root.validate(&document).await?))
}

/// An application.
#[utoipa::path(get, path = "/api/application/{id}", tag = "application",
    params(("id" = String, Path)), responses((status = 200, body = schema::Application)))]
pub(super) async fn get(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Document>, Failure> {
    Ok(Json(root.application_for(&caller, &id).await?.into()))
}

/// What is to become different of an application; what is left out stays.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ApplicationChange)]
pub(super) struct Described {
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9]{1,30}$")]
    application_name: Option<String>,
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9]{1,30}$")]
    application_namespace: Option<String>,
    #[serde(default)]
    #[schema(max_length = 4096)]
    application_desc: Option<String>,
    /// Ids of services that it has, as reading it gives them. Services are added and deleted by themselves.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    microservices: Option<Vec<Id>>,
}

/// Change the description of an application, or its name while it has no services.
#[utoipa::path(put, path = "/api/application/{id}", tag = "application", request_body = Described,
    params(("id" = String, Path)), responses((status = 200, body = Message),
        (status = 409, description = "it has services, or the name is taken"),
        (status = 422, description = "`errors` names each field")))]
pub(super) async fn update(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
    Body(described): Body<Described>,
) -> Result<Json<Message>, Failure> {
    let application = root.application_for(&caller, &id).await?;
    let Described { application_name, application_namespace, application_desc, microservices } = described;
    let foreign = microservices.iter().flatten().find(|service| !application.services.contains(service));
    if let Some(foreign) = foreign {
        let message = format!("{foreign} is no service of this application: POST /api/service adds services");
        return Err(Failure::Invalid(vec![Violation::new("microservices".to_owned(), message)]));
    }
    check_text("application_desc", application_desc.as_deref().unwrap_or_default(), DESCRIPTION_MAX)?;
    let change = ApplicationChange {
        name: application_name,
        namespace: application_namespace,
        description: application_desc,
    };
    root.change_application(application.id, change).await?;
    Ok(Message::json("Application is updated"))
}

/// Delete an application with its services and their instances.
#[utoipa::path(delete, path = "/api/application/{id}", tag = "application",
    params(("id" = String, Path)), responses((status = 200, body = Message)))]
pub(super) async fn delete(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Message>, Failure> {
    let application = root.application_for(&caller, &id).await?;
    root.delete_application(application.id).await?;
    Ok(Message::json("Application Deleted"))
}

/// All applications that the caller may use: the own ones, for an organization's admin those of the organization, for
/// an Admin all.
#[utoipa::path(get, path = "/api/applications", tag = "application",
    responses((status = 200, body = Vec<schema::Application>)))]
pub(super) async fn list(
    State(root): State<Arc<Root>>,
    caller: Caller,
) -> Result<Json<Vec<Document>>, Failure> {
    Ok(Json(root.applications_for(&caller, None).await?))
}

/// The applications of a user, by name or id.
#[utoipa::path(get, path = "/api/applications/{user}", tag = "application",
    params(("user" = String, Path)), responses((status = 200, body = Vec<schema::Application>)))]
pub(super) async fn list_of(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(user): Named<String>,
) -> Result<Json<Vec<Document>>, Failure> {
    let users = root.users().await?;
    let named = users.iter().find(|one| one.name.as_str() == user || one.id.to_string() == user);
    let owner =
        named.filter(|one| caller.may_see(one)).ok_or_else(|| Failure::no_user(extract::shortened(&user)))?;
    Ok(Json(root.applications_for(&caller, Some(owner.name.as_str())).await?))
}
