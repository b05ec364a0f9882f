//! The API described: as an OpenAPI document for tools, and as a page for people that needs nothing from the
//! internet.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::Json;
use axum::http::Method;
use axum::response::Html;
use serde::Serialize;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::respond::ErrorBody;
use super::{application, auth, cluster, endpoints, organization, overview, service, stream, user, worker};
use crate::root::access::Rule;

/// `{"message": "…"}`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Message {
    message: &'static str,
}

impl Message {
    pub(super) fn json(message: &'static str) -> Json<Self> {
        Json(Self { message })
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Hypha root", description = "Users, applications, services, instances and clusters."),
    paths(
        auth::login, auth::refresh, auth::register,
        user::permission, user::get, user::update, user::delete, user::change_password,
        user::ask_for_reset, user::reset, user::list, user::list_of,
        organization::list, organization::create, organization::update, organization::delete,
        application::create, application::get, application::update, application::delete, application::list,
        application::list_of, application::validate,
        service::create, service::get, service::update, service::delete, service::list, service::list_of,
        service::deploy, service::undeploy, service::why,
        cluster::list, cluster::list_active, cluster::report, cluster::cordon, cluster::uncordon,
        overview::status, stream::listen,
        worker::list, worker::cordon, worker::drain, worker::uncordon, worker::delete,
    ),
    components(schemas(ErrorBody)),
    modifiers(&Refusals),
)]
struct Description;

/// Adds to each operation what the guard before it and the readers of its path and body may answer, so that no handler
/// has to say it.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi.components.get_or_insert_default().add_security_scheme(TOKEN, scheme);
        for endpoint in endpoints() {
            let operation = openapi.paths.paths.get_mut(endpoint.path);
            if let Some(operation) = operation.and_then(|item| operation_mut(item, &endpoint.method)) {
                describe(operation, endpoint.rule);
            }
        }
    }
}

const TOKEN: &str = "token";

fn describe(operation: &mut Operation, rule: Rule) {
    let mut refusals = Vec::new();
    if rule.needs_token() {
        let none: [&str; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new(TOKEN, none)]);
        refusals.push(("401", "no good token"));
    }
    if matches!(rule, Rule::One(_) | Rule::SelfOr(_) | Rule::Self_) {
        refusals.push(("403", "the token is good, but your roles do not allow it"));
    }
    if operation.parameters.is_some() {
        refusals.push(("404", "there is none, or it is not for you"));
    }
    if operation.request_body.is_some() {
        refusals.push(("400", "the body is no JSON, or not of the expected form"));
        refusals.push(("413", "the body is too large"));
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in refusals {
        let missing = || RefOr::T(ResponseBuilder::new().description(description).build());
        responses.entry(status.to_owned()).or_insert_with(missing);
    }
    // Whatever is refused is refused in one form.
    for (status, response) in responses {
        if let RefOr::T(response) = response
            && !status.starts_with('2')
        {
            let error = ContentBuilder::new().schema(Some(Ref::from_schema_name("Error"))).build();
            response.content = [("application/json".to_owned(), error)].into_iter().collect();
        }
    }
}

fn operation_mut<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Operation> {
    match *method {
        Method::GET => item.get.as_mut(),
        Method::POST => item.post.as_mut(),
        Method::PUT => item.put.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => None,
    }
}

static OPENAPI: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(Description::openapi);
static PAGE: LazyLock<String> = LazyLock::new(render);

pub(super) async fn openapi() -> Json<&'static utoipa::openapi::OpenApi> {
    Json(&OPENAPI)
}

pub(super) async fn page() -> Html<&'static str> {
    Html(&PAGE)
}

const HEAD: &str = include_str!("docs.html");
const SCRIPT: &str = include_str!("docs.js");

/// Also readable without its script, which adds what is needed to try an operation.
fn render() -> String {
    let mut page = HEAD.to_owned();
    for (path, item) in &OPENAPI.paths.paths {
        for (method, operation) in operations(item) {
            let summary = operation.summary.as_deref().unwrap_or_default();
            let open = if operation.security.is_none() { " <em>No token needed.</em>" } else { "" };
            let _infallible = write!(
                page,
                "<details data-method={method} data-path='{path}'>\
                 <summary><code>{method} {path}</code> {summary}{open}</summary></details>"
            );
        }
    }
    let _infallible = write!(page, "<script>{SCRIPT}</script></html>");
    page
}

fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{OPENAPI, PAGE, endpoints, operations};

    #[test]
    fn what_is_described_is_what_is_served() {
        let served: BTreeSet<_> =
            endpoints().iter().map(|endpoint| format!("{} {}", endpoint.method, endpoint.path)).collect();
        let described: BTreeSet<_> = OPENAPI
            .paths
            .paths
            .iter()
            .flat_map(|(path, item)| operations(item).map(move |(method, _)| format!("{method} {path}")))
            .collect();
        assert_eq!(served, described);
        assert_eq!(served.len(), endpoints().len(), "each once");
    }
    #[test]
    fn the_page_has_every_operation_and_needs_no_other_server() {
        for endpoint in endpoints() {
            let shown = format!("data-method={} data-path='{}'", endpoint.method, endpoint.path);
            assert!(PAGE.contains(&shown), "{shown}");
        }
        assert!(!PAGE.contains("://"), "an address of another server");
    }
}
