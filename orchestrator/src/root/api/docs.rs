//! The API described: as an OpenAPI document for tools, and as a page for people that needs nothing from the
//! internet.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::Json;
use axum::response::Html;
use serde::Serialize;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{application, auth, cluster, service};

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
    info(title = "Hypha root", description = "Applications, services, instances and clusters."),
    paths(
        auth::login, auth::refresh,
        application::create, application::get, application::delete, application::list, application::list_own,
        service::create, service::get, service::delete, service::list, service::list_of, service::deploy,
        service::undeploy,
        cluster::list, cluster::list_active, cluster::report,
    ),
    modifiers(&Token),
)]
struct Description;

struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi.components.get_or_insert_default().add_security_scheme("token", scheme);
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

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
    <meta name=viewport content='width=device-width'><title>Hypha root API</title>\
    <style>body{font:16px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}\
    code{font-weight:600}dt{margin-top:.8em}</style>\
    <h1>Hypha root API</h1>\
    <p>For tools: <a href=/docs/openapi.json>/docs/openapi.json</a>. Log in with <code>POST /api/auth/login</code>, \
    then send <code>Authorization: Bearer &lt;token&gt;</code>.<dl>";

fn render() -> String {
    let mut page = HEAD.to_owned();
    for (path, item) in &OPENAPI.paths.paths {
        for (method, operation) in operations(item) {
            let summary = operation.summary.as_deref().unwrap_or_default();
            let open = if operation.security.is_none() { " <em>No token needed.</em>" } else { "" };
            let _infallible = write!(page, "<dt><code>{method} {path}</code><dd>{summary}{open}");
        }
    }
    page.push_str("</dl></html>");
    page
}

fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}
