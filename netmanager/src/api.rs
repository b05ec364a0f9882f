//! The HTTP API for node-engine: Oakestra's paths and bodies, and a report for `netmanager status`.
//!
//! Decode, hand to the node, encode. A refusal is a status and one line of text that says what to do about it.

pub mod client;
mod listen;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, serve};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use self::listen::{ListenError, Socket, bind_loopback};
use crate::error::chain;
use crate::node::{Command, Refusal, Reply};

/// Our requests have less than a KiB; port mappings can be longer.
const LARGEST_BODY: usize = 64 << 10;

/// Where `netmanager status` asks.
pub const REPORT_PATH: &str = "/hypha/report";

type Node = mpsc::Sender<Command>;

/// The API on the UNIX socket, and on loopback TCP if that is wanted, until `stop`.
pub async fn run(node: Node, socket: Socket, loopback: Option<TcpListener>, stop: CancellationToken) {
    let router = router(node);
    let on_socket = serve(socket, router.clone()).with_graceful_shutdown(stop.clone().cancelled_owned());
    let on_loopback = async {
        match loopback {
            Some(listener) => serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await,
            None => Ok(()),
        }
    };
    // Serving ends only by the stop; errors of single connections end those connections.
    let (_on_socket, _on_loopback) = tokio::join!(on_socket.into_future(), on_loopback);
}

fn router(node: Node) -> Router {
    Router::new()
        .route("/register", post(register))
        .route("/container/deploy", post(attach))
        .route("/container/undeploy", post(detach))
        .route("/docker/undeploy", post(detach))
        .route(REPORT_PATH, get(report))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(node)
}

async fn register(State(node): State<Node>, body: Bytes) -> Result<StatusCode, Failure> {
    ask(&node, &body, Command::Register).await.map(|()| StatusCode::OK)
}

async fn attach(State(node): State<Node>, body: Bytes) -> Result<Response, Failure> {
    ask(&node, &body, Command::Attach).await.map(|attached| Json(attached).into_response())
}

async fn detach(State(node): State<Node>, body: Bytes) -> Result<StatusCode, Failure> {
    ask(&node, &body, Command::Detach).await.map(|()| StatusCode::OK)
}

async fn report(State(node): State<Node>) -> Result<Response, Failure> {
    let (reply, answer) = oneshot::channel();
    node.send(Command::Report(reply)).await.map_err(|_closed| Failure::Stopping)?;
    answer.await.map(|report| Json(report).into_response()).map_err(|_closed| Failure::Stopping)
}

async fn ask<B: DeserializeOwned, T>(
    node: &Node,
    body: &[u8],
    command: impl FnOnce(B, Reply<T>) -> Command,
) -> Result<T, Failure> {
    // The content type is not looked at: curl's default is not JSON's.
    let mut reader = serde_json::Deserializer::from_slice(body);
    let body = serde_path_to_error::deserialize(&mut reader).map_err(Failure::Body)?;
    let (reply, answer) = oneshot::channel();
    node.send(command(body, reply)).await.map_err(|_closed| Failure::Stopping)?;
    answer.await.map_err(|_closed| Failure::Stopping)?.map_err(Failure::Refused)
}

enum Failure {
    Body(serde_path_to_error::Error<serde_json::Error>),
    Refused(Refusal),
    Stopping,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Body(error) if error.path().iter().next().is_none() => {
                (StatusCode::BAD_REQUEST, error.inner().to_string())
            }
            Self::Body(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Self::Refused(refusal) => (status(&refusal), chain(&refusal)),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "netmanager is about to stop".to_owned()),
        };
        (status, text + "\n").into_response()
    }
}

fn status(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NotRegistered
        | Refusal::OtherId { .. }
        | Refusal::NoCluster
        | Refusal::Field { .. }
        | Refusal::Mappings(_) => StatusCode::BAD_REQUEST,
        Refusal::PortTaken { .. } | Refusal::PortInUse { .. } => StatusCode::CONFLICT,
        Refusal::Full => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::NoBlock { .. } => StatusCode::GATEWAY_TIMEOUT,
        Refusal::Links { .. } | Refusal::Datapath { .. } | Refusal::Rules(_) | Refusal::State(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
