//! The REST API for people and their tools (port 10000): decode, authorise, call, encode; no decisions.
//!
//! Paths, bodies and ids are Oakestra's, so that its clients work unchanged. Each path answers with and without a
//! slash at its end: some clients leave it out and expect a redirect, which not all follow with a body.

mod application;
mod auth;
mod cluster;
mod docs;
mod extract;
mod respond;
mod service;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};

use super::Root;
pub(super) use extract::Body;
pub(super) use respond::no_route;

/// A report carries the histories of all instances of a cluster: Oakestra's are some 10 KB for each.
const REPORT_MAX: usize = 16 << 20;

pub(super) fn router(root: Arc<Root>) -> Router {
    let report = post(cluster::report).layer(DefaultBodyLimit::max(REPORT_MAX));
    let routes: [(&str, MethodRouter<Arc<Root>>); 15] = [
        ("/api/auth/login", post(auth::login)),
        ("/api/auth/refresh", post(auth::refresh)),
        ("/api/application", post(application::create)),
        ("/api/application/{id}", get(application::get).delete(application::delete)),
        ("/api/applications", get(application::list)),
        ("/api/applications/{user}", get(application::list_own)),
        ("/api/service", post(service::create)),
        ("/api/service/{id}", get(service::get).delete(service::delete)),
        ("/api/services", get(service::list)),
        ("/api/services/{application}", get(service::list_of)),
        ("/api/service/{id}/instance", post(service::deploy)),
        ("/api/service/{id}/instance/{number}", delete(service::undeploy)),
        ("/api/clusters", get(cluster::list)),
        ("/api/clusters/active", get(cluster::list_active)),
        ("/api/information/{id}", report),
    ];
    let router = routes.into_iter().fold(Router::new(), |router, (path, methods)| {
        router.route(path, methods.clone()).route(&format!("{path}/"), methods)
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
