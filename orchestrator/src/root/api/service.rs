//! Services and their instances.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::decision::Why;
use protocol::id::{ExtendedId, Id};
use protocol::sla::{Microservice, VERSION};
use serde_json::{Value, json};

use super::docs::Message;
use super::extract::{self, Body, Named};
use super::schema;
use crate::clock;
use crate::root::Root;
use crate::root::access::Caller;
use crate::root::application::Application;
use crate::root::failure::Failure;
use crate::root::pool::Given;
use crate::root::record::Record;
use crate::sla::{self, Violation};

impl Root {
    /// A service as clients read it: what is stored, with what was last observed.
    pub(in crate::root) fn document(&self, record: &Record) -> Value {
        let mut service = record.document();
        {
            let (live, now) = (self.live(), clock::moment());
            for instance in &mut service.instance_list {
                live.complete(service.id, instance, now);
            }
        }
        let id = ExtendedId::from(service.id);
        let mut document = serde_json::to_value(service).unwrap_or_default();
        document["_id"] = json!(id);
        document
    }

    /// The service, if the caller may use its application. One that this does not list is being made, or deleted.
    async fn service_for(&self, caller: &Caller, id: &str) -> Result<Arc<Record>, Failure> {
        let id = extract::id(id, "service")?;
        let record = self.service(id).await?.ok_or_else(|| Failure::no_service(id))?;
        let application = self.application(record.service.application_id).await?;
        let is_shown = |application: Application| {
            application.services.contains(&id) && self.may_use(caller, &application)
        };
        if application.is_some_and(is_shown) { Ok(record) } else { Err(Failure::no_service(id)) }
    }
}

/// Add the services of an SLA to the application that it names by `applicationID`. Nothing is started.
#[utoipa::path(post, path = "/api/service", tag = "service",
    request_body = schema::Sla,
    responses((status = 200, body = schema::Added), (status = 400),
        (status = 409), (status = 422)))]
pub(super) async fn create(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Body(document): Body<Value>,
) -> Result<Json<Value>, Failure> {
    let mut checked = root.check_sla(&document)?;
    let invalid = |path: &str, message: &str| {
        Failure::Invalid(vec![Violation::new(path.to_owned(), message.to_owned())])
    };
    if checked.applications.len() != 1 {
        return Err(invalid("applications", "expected the one application that the services are added to"));
    }
    let described = checked.applications.remove(0);
    if described.application_id.parse::<Id>().is_err() {
        let expected = "expected the id of an application: 24 hexadecimal digits";
        return Err(invalid("applications[0].applicationID", expected));
    }
    let application = root.application_for(&caller, &described.application_id).await?;
    root.check_addresses(&document)?;
    let made = root.add_services(application.id, described.microservices).await?;
    let deployed: Vec<_> = made
        .iter()
        .map(|record| json!({ "service_name": record.service.job_name, "status": "success" }))
        .collect();
    Ok(Json(json!({
        "job_id": made.last().map(|record| record.service.id),
        "deployed_services": deployed,
        "failed_services": [],
    })))
}

/// A service with its instances.
#[utoipa::path(get, path = "/api/service/{id}", tag = "service",
    params(("id" = String, Path)), responses((status = 200, body = schema::Service)))]
pub(super) async fn get(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Value>, Failure> {
    let record = root.service_for(&caller, &id).await?;
    Ok(Json(root.document(&record)))
}

/// Why the instances of a service are where they are, or nowhere: what each cluster lacks for one more, and how the clusters
/// decided.
#[utoipa::path(get, path = "/v1/why/{id}", tag = "service", params(("id" = String, Path)),
    responses((status = 200, body = schema::Why)))]
pub(super) async fn why(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Why>, Failure> {
    let record = root.service_for(&caller, &id).await?;
    Ok(Json(root.why(&record).await?))
}

/// Describe a service anew, by a whole SLA with this one service in it or by the service alone. Counts for instances
/// that are started from now on; name and addresses stay.
#[utoipa::path(put, path = "/api/service/{id}", tag = "service",
    request_body(content = Object, description = "SLA with one service, or the service alone"),
    params(("id" = String, Path)), responses((status = 200, body = Message),
        (status = 422, description = "the description is not valid: `errors` names each field")))]
pub(super) async fn update(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
    Body(document): Body<Value>,
) -> Result<Json<Message>, Failure> {
    let record = root.service_for(&caller, &id).await?;
    let is_whole = document.get("applications").is_some();
    let document = if is_whole { document } else { around(document) };
    let sla = the_service(document, record.service.id, root.given()).map_err(|violations| {
        let without_path = |violation: Violation| match violation.path.strip_prefix(THE_SERVICE) {
            Some(path) if !is_whole => Violation::new(path.to_owned(), violation.message),
            _ => violation,
        };
        Failure::Invalid(violations.into_iter().map(without_path).collect())
    })?;
    let path = if is_whole { THE_SERVICE } else { "" };
    root.change_description(record.service.id, &sla, path).await?;
    Ok(Message::json("ok"))
}

const THE_SERVICE: &str = "applications[0].microservices[0].";

/// An SLA with this service.
fn around(service: Value) -> Value {
    json!({
        "sla_version": VERSION, "customerID": "", "applications": [{
            "application_name": "x", "application_namespace": "x", "microservices": [service],
        }],
    })
}

/// The only service of an SLA. The service's own id may be there: reading it gives it.
fn the_service(mut document: Value, id: Id, given: Given) -> Result<Microservice, Vec<Violation>> {
    let service = document.pointer_mut("/applications/0/microservices/0").and_then(Value::as_object_mut);
    if let Some(service) = service
        && service.get("microserviceID").and_then(Value::as_str) == Some(id.to_string().as_str())
    {
        service.remove("microserviceID");
    }
    let checked = sla::check(&document, Some(given), &|_address| false)?;
    let mut services = checked.applications.into_iter().flat_map(|application| application.microservices);
    match (services.next(), services.next()) {
        (Some(service), None) => Ok(service),
        _ => Err(vec![Violation::new("applications".to_owned(), "expected the one service".to_owned())]),
    }
}

/// Delete a service with its instances.
#[utoipa::path(delete, path = "/api/service/{id}", tag = "service",
    params(("id" = String, Path)), responses((status = 200, body = Message)))]
pub(super) async fn delete(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Message>, Failure> {
    let record = root.service_for(&caller, &id).await?;
    root.delete_service(record.service.id).await?;
    Ok(Message::json("Job deleted"))
}

/// The services of all applications that the caller may use.
#[utoipa::path(get, path = "/api/services", tag = "service",
    responses((status = 200, body = Vec<schema::Service>)))]
pub(super) async fn list(State(root): State<Arc<Root>>, caller: Caller) -> Result<Json<Vec<Value>>, Failure> {
    let applications = root.applications().await?.into_iter();
    let visible = applications.filter(|one| root.may_use(&caller, one));
    let visible: HashSet<Id> = visible.flat_map(|application| application.services).collect();
    let records = root.services().await?.into_iter();
    let records = records.filter(|record| visible.contains(&record.service.id));
    Ok(Json(records.map(|record| root.document(&record)).collect()))
}

/// The services of an application.
#[utoipa::path(get, path = "/api/services/{id}", tag = "service",
    params(("id" = String, Path)),
    responses((status = 200, body = Vec<schema::Service>)))]
pub(super) async fn list_of(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Vec<Value>>, Failure> {
    let application = root.application_for(&caller, &id).await?;
    let mut documents = Vec::new();
    for service in application.services {
        documents.extend(root.service(service).await?.map(|record| root.document(&record)));
    }
    Ok(Json(documents))
}

/// Ask for one more instance. It is placed and started in the background.
#[utoipa::path(post, path = "/api/service/{id}/instance", tag = "service",
    params(("id" = String, Path)), responses((status = 200, body = schema::Started),
        (status = 404), (status = 503, description = "all service addresses are taken")))]
pub(super) async fn deploy(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named(id): Named<String>,
) -> Result<Json<Value>, Failure> {
    let record = root.service_for(&caller, &id).await?;
    let number = root.add_instance(record.service.id).await?;
    Ok(Json(json!({ "message": "ok", "instance_number": number })))
}

/// Remove an instance; -1 is all of them.
#[utoipa::path(delete, path = "/api/service/{id}/instance/{number}", tag = "service",
    params(("id" = String, Path), ("number" = i64, Path)),
    responses((status = 200, body = Message)))]
pub(super) async fn undeploy(
    State(root): State<Arc<Root>>,
    caller: Caller,
    Named((id, text)): Named<(String, String)>,
) -> Result<Json<Message>, Failure> {
    let record = root.service_for(&caller, &id).await?;
    let number = match text.parse::<i64>() {
        Ok(-1) => None,
        Ok(number) if u32::try_from(number).is_ok() => u32::try_from(number).ok(),
        _ => return Err(Failure::NotFound { kind: "instance", id: extract::shortened(&text) }),
    };
    root.remove_instances(record.service.id, number).await?;
    Ok(Message::json("ok"))
}
