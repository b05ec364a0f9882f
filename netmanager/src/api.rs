//! The HTTP API for node-engine: Oakestra's paths and bodies, and a report for `netmanager status`.
//!
//! Decode, hand to the node, encode. A refusal is a status and one line of text that says what to do about it.

pub mod client;
mod listen;

use std::path::PathBuf;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, serve};
use futures::{StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use self::listen::{ListenError, Socket, bind_loopback, bind_metrics};
use crate::commands::exit::NotFound;
use crate::commands::source::{self, Question};
use crate::commands::trace::{Feed, Wanted};
use crate::datapath::Programs;
use crate::error::chain;
use crate::names::Names;
use crate::node::{Command, Refusal, Reply};
use crate::report::Report;
use crate::state::Store;
use crate::{metrics, userspace};

/// Our requests have less than a KiB; port mappings can be longer.
const LARGEST_BODY: usize = 64 << 10;

/// Where `netmanager status` asks.
pub const REPORT_PATH: &str = "/hypha/report";

/// Where commands ask a daemon that forwards packets itself.
pub const LOOK_PATH: &str = "/hypha/look";

/// Where such a daemon tells of packets, one JSON object in each line, for as long as it is listened to.
pub const TRACE_PATH: &str = "/hypha/trace";

/// Where Prometheus asks.
pub const METRICS_PATH: &str = "/metrics";

type Node = mpsc::Sender<Command>;

/// Where the API is served beside the socket.
#[derive(Debug, Default)]
pub struct Tcp {
    pub loopback: Option<TcpListener>,
    /// The metrics alone.
    pub metrics: Option<TcpListener>,
}

/// The tables of a daemon that forwards packets itself, and the names of what is in them.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) tables: userspace::Reader,
    pub(crate) state_dir: PathBuf,
    /// Ends what is being told.
    pub(crate) stop: CancellationToken,
}

/// The API on the UNIX socket, and on TCP if that is wanted, until `stop`. Into the tables only the UNIX socket lets look,
/// which admits root only.
pub(crate) async fn run(node: Node, look: Option<Look>, socket: Socket, tcp: Tcp, stop: CancellationToken) {
    let (all, metrics) = (router(node.clone()), metrics_router(node));
    let on_socket = serve(socket, all.clone().merge(look_router(look)))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let on_tcp = |listener: Option<TcpListener>, router: Router| {
        let stop = stop.clone();
        async move {
            match listener {
                Some(listener) => {
                    serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
                }
                None => Ok(()),
            }
        }
    };
    // Serving ends only by the stop; errors of single connections end those connections.
    let (_on_socket, _on_loopback, _on_metrics) =
        tokio::join!(on_socket.into_future(), on_tcp(tcp.loopback, all), on_tcp(tcp.metrics, metrics));
}

fn router(node: Node) -> Router {
    Router::new()
        .route("/register", post(register))
        .route("/container/deploy", post(attach))
        .route("/container/undeploy", post(detach))
        .route("/docker/undeploy", post(detach))
        .route(REPORT_PATH, get(report))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(node.clone())
        .merge(metrics_router(node))
}

fn look_router(look: Option<Look>) -> Router {
    let routes = Router::new().route(LOOK_PATH, post(answer)).route(TRACE_PATH, post(trace));
    routes.layer(DefaultBodyLimit::max(LARGEST_BODY)).with_state(look)
}

fn metrics_router(node: Node) -> Router {
    Router::new().route(METRICS_PATH, get(scrape)).with_state(node)
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
    report_of(&node).await.map(|report| Json(report).into_response())
}

async fn scrape(State(node): State<Node>) -> Result<Response, Failure> {
    let report = report_of(&node).await?;
    let run_times = metrics::run_times(&report, &Programs::read());
    let text = metrics::encode(report, run_times).map_err(Failure::Text)?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn answer(State(look): State<Option<Look>>, body: Bytes) -> Result<Response, Failure> {
    let question: Question = decode(&body)?;
    let Look { tables, state_dir, .. } = look.ok_or(Failure::TablesElsewhere)?;
    let answered =
        tokio::task::spawn_blocking(move || source::answer(&tables, &Store::at(&state_dir), &question)).await;
    let answer = answered.map_err(|_panicked| Failure::Stopping)?.map_err(Failure::Look)?;
    Ok(Json(answer).into_response())
}

async fn trace(State(look): State<Option<Look>>, body: Bytes) -> Result<Response, Failure> {
    let wanted: Wanted = decode(&body)?;
    let Look { tables, state_dir, stop } = look.ok_or(Failure::TablesElsewhere)?;
    let names = Names::read(&Store::at(&state_dir)).map_err(|error| Failure::Look(error.into()))?;
    let feed = Feed::of_process(&tables, names, &wanted).map_err(Failure::Look)?;
    let feed = feed.ok_or(Failure::Watched)?;
    let lines = stream::unfold(feed, |mut feed| async {
        let line = feed.next().await.and_then(|told| Ok(serde_json::to_vec(&told)?));
        Some((line.map(|line| [line, vec![b'\n']].concat()), feed))
    });
    let lines = Body::from_stream(lines.take_until(stop.cancelled_owned()));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

async fn report_of(node: &Node) -> Result<Report, Failure> {
    let (reply, answer) = oneshot::channel();
    node.send(Command::Report(reply)).await.map_err(|_closed| Failure::Stopping)?;
    answer.await.map_err(|_closed| Failure::Stopping)
}

async fn ask<B: DeserializeOwned, T>(
    node: &Node,
    body: &[u8],
    command: impl FnOnce(B, Reply<T>) -> Command,
) -> Result<T, Failure> {
    let body = decode(body)?;
    let (reply, answer) = oneshot::channel();
    node.send(command(body, reply)).await.map_err(|_closed| Failure::Stopping)?;
    answer.await.map_err(|_closed| Failure::Stopping)?.map_err(Failure::Refused)
}

/// The content type is not looked at: curl's default is not JSON's.
fn decode<B: DeserializeOwned>(body: &[u8]) -> Result<B, Failure> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut reader).map_err(Failure::Body)
}

enum Failure {
    Body(serde_path_to_error::Error<serde_json::Error>),
    Refused(Refusal),
    Text(std::fmt::Error),
    /// Of a question about the tables.
    Look(anyhow::Error),
    TablesElsewhere,
    /// Somebody else is told of packets.
    Watched,
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
            Self::Text(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            Self::Look(error) if error.is::<NotFound>() => (StatusCode::NOT_FOUND, error.to_string()),
            Self::Look(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
            Self::TablesElsewhere => {
                (StatusCode::CONFLICT, "the tables are in the kernel: read them there".to_owned())
            }
            Self::Watched => {
                (StatusCode::CONFLICT, "somebody else traces on this node; one can at a time".to_owned())
            }
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
