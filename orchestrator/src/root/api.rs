//! The REST API for people and their tools (port 10000): decode, authorise, call, encode; no decisions.
//!
//! Paths, bodies and ids are Oakestra's, so that its clients work unchanged. Each path answers with and without a
//! slash at its end: some clients leave it out and expect a redirect, which not all follow with a body.

mod application;
mod auth;
mod cluster;
mod docs;
mod extract;
mod guard;
mod organization;
mod overview;
mod respond;
pub(super) mod schema;
mod service;
mod stream;
mod user;
mod worker;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};

use super::Root;
use super::access::{ADMIN, ADMINISTRATORS, APPLICATIONS, EVERYBODY, INFRASTRUCTURE, Rule};
pub(super) use extract::Body;
pub(super) use respond::no_route;

use crate::children::report::REPORT_MAX;

/// What is served under one method and path, and for whom.
struct Endpoint {
    method: Method,
    path: &'static str,
    rule: Rule,
    handler: MethodRouter<Arc<Root>>,
}

/// The whole API: there is no other way to a handler, so none without a rule. The descriptions are checked against it.
#[rustfmt::skip]
fn endpoints() -> Vec<Endpoint> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const DELETE: Method = Method::DELETE;
    vec![
        endpoint(POST, "/api/auth/login", Rule::Anyone, auth::login),
        endpoint(POST, "/api/auth/refresh", Rule::Refresher, auth::refresh),
        endpoint(POST, "/api/auth/register", Rule::One(ADMINISTRATORS), auth::register),

        endpoint(GET, "/api/permission/{username}", Rule::SelfOr(ADMINISTRATORS), user::permission),
        endpoint(GET, "/api/user/{username}", Rule::SelfOr(ADMINISTRATORS), user::get),
        endpoint(PUT, "/api/user/{username}", Rule::One(ADMINISTRATORS), user::update),
        endpoint(DELETE, "/api/user/{username}", Rule::One(ADMINISTRATORS), user::delete),
        endpoint(POST, "/api/user/{username}", Rule::Self_, user::change_password),
        endpoint(POST, "/api/user", Rule::Anyone, user::ask_for_reset),
        endpoint(PUT, "/api/user", Rule::Anyone, user::reset),
        endpoint(GET, "/api/users", Rule::One(ADMINISTRATORS), user::list),
        endpoint(GET, "/api/users/{organization}", Rule::One(ADMINISTRATORS), user::list_of),

        endpoint(GET, "/api/organization", Rule::One(ADMINISTRATORS), organization::list),
        endpoint(POST, "/api/organization", Rule::One(ADMIN), organization::create),
        endpoint(PUT, "/api/organization/{organization}", Rule::One(ADMIN), organization::update),
        endpoint(DELETE, "/api/organization/{organization}", Rule::One(ADMIN), organization::delete),

        endpoint(POST, "/api/application", Rule::One(APPLICATIONS), application::create),
        endpoint(GET, "/api/application/{id}", Rule::One(APPLICATIONS), application::get),
        endpoint(PUT, "/api/application/{id}", Rule::One(APPLICATIONS), application::update),
        endpoint(DELETE, "/api/application/{id}", Rule::One(APPLICATIONS), application::delete),
        endpoint(GET, "/api/applications", Rule::One(APPLICATIONS), application::list),
        endpoint(GET, "/api/applications/{user}", Rule::One(APPLICATIONS), application::list_of),

        endpoint(POST, "/api/service", Rule::One(APPLICATIONS), service::create),
        endpoint(GET, "/api/service/{id}", Rule::One(APPLICATIONS), service::get),
        endpoint(PUT, "/api/service/{id}", Rule::One(APPLICATIONS), service::update),
        endpoint(DELETE, "/api/service/{id}", Rule::One(APPLICATIONS), service::delete),
        endpoint(GET, "/api/services", Rule::One(APPLICATIONS), service::list),
        endpoint(GET, "/api/services/{id}", Rule::One(APPLICATIONS), service::list_of),
        endpoint(POST, "/api/service/{id}/instance", Rule::One(APPLICATIONS), service::deploy),
        endpoint(DELETE, "/api/service/{id}/instance/{number}", Rule::One(APPLICATIONS), service::undeploy),

        endpoint(GET, "/api/clusters", Rule::Anyone, cluster::list),
        endpoint(GET, "/api/clusters/active", Rule::Anyone, cluster::list_active),
        endpoint(POST, "/api/information/{id}", Rule::Anyone, cluster::report)
            .reading_up_to(REPORT_MAX),

        endpoint(GET, "/v1/stream", Rule::One(EVERYBODY), stream::listen),
        endpoint(GET, "/v1/status", Rule::One(EVERYBODY), overview::status),
        endpoint(POST, "/v1/validate", Rule::One(APPLICATIONS), application::validate),
        endpoint(GET, "/v1/why/{id}", Rule::One(APPLICATIONS), service::why),
        endpoint(POST, "/v1/clusters/{id}/cordon", Rule::One(INFRASTRUCTURE), cluster::cordon),
        endpoint(POST, "/v1/clusters/{id}/uncordon", Rule::One(INFRASTRUCTURE), cluster::uncordon),
        endpoint(GET, "/v1/workers", Rule::One(EVERYBODY), worker::list),
        endpoint(DELETE, "/v1/workers/{id}", Rule::One(INFRASTRUCTURE), worker::delete),
        endpoint(POST, "/v1/workers/{id}/cordon", Rule::One(INFRASTRUCTURE), worker::cordon),
        endpoint(POST, "/v1/workers/{id}/drain", Rule::One(INFRASTRUCTURE), worker::drain),
        endpoint(POST, "/v1/workers/{id}/uncordon", Rule::One(INFRASTRUCTURE), worker::uncordon),
    ]
}

fn endpoint<H: Handler<T, Arc<Root>>, T: 'static>(
    method: Method,
    path: &'static str,
    rule: Rule,
    handler: H,
) -> Endpoint {
    let filter =
        MethodFilter::try_from(method.clone()).expect("the method is one of those that routers know");
    Endpoint { method, path, rule, handler: on(filter, handler) }
}

impl Endpoint {
    /// With another limit than bodies have elsewhere.
    fn reading_up_to(mut self, bytes: usize) -> Self {
        self.handler = self.handler.route_layer(DefaultBodyLimit::max(bytes));
        self
    }

    /// Guarded by its rule.
    fn guarded(self, root: &Arc<Root>) -> MethodRouter<Arc<Root>> {
        let state = (Arc::clone(root), self.rule);
        self.handler.route_layer(middleware::from_fn_with_state(state, guard::check))
    }
}

pub(super) fn router(root: Arc<Root>) -> Router {
    let router = endpoints().into_iter().fold(Router::new(), |router, endpoint| {
        let path = endpoint.path;
        let guarded = endpoint.guarded(&root);
        router.route(path, guarded.clone()).route(&format!("{path}/"), guarded)
    });
    router
        .route("/docs/openapi.json", get(docs::openapi))
        .route("/api/docs", get(docs::page))
        .route("/api/docs/", get(docs::page))
        .fallback(no_route)
        .method_not_allowed_fallback(respond::no_method)
        .layer(middleware::from_fn(cross_origin))
        .with_state(root)
}

/// Any origin may read: the dashboard is served from another port. There are no cookies to protect.
async fn cross_origin(request: axum::extract::Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response =
        if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    if preflight {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Authorization, Content-Type"),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}
