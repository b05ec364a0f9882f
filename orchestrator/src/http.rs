//! Serving HTTP: what every listener of the control plane promises, whatever it serves.
//!
//! - A client that sends nothing, or half a request, is cut off after [`HEAD_TIMEOUT`], and never keeps another waiting.
//! - A request that is not answered within [`REQUEST_TIMEOUT`], its body included, is answered with 408.
//! - A body is at most [`BODY_MAX`] long.
//! - Small answers leave at once (`TCP_NODELAY`).
//! - What a request asked for is carried out to its end, also when the client does not wait for the answer: half of it
//!   done, stored but not told to those concerned, would be worse than all.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::relay;
use crate::store::etcd::Secret;

/// The longest wait for the head of a request; also how long an idle connection is kept.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait for the rest of a request and for what is done about it.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Over HTTP/2 a connection may stay; whoever does not answer for so long is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Requests of one connection over HTTP/2 at a time, and those that are carried out for all of them.
const STREAMS: u32 = 16;
const HANDLERS: usize = 64;
/// The longest body that is read.
pub const BODY_MAX: usize = 1 << 20;
/// What requests in hand are given when the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the system refused a connection, as it does when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address} for {purpose} ({option}){}", hint(source))]
pub struct BindError {
    pub address: SocketAddr,
    /// What would have been served there.
    pub purpose: &'static str,
    /// The flag that sets the port.
    pub option: &'static str,
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": another process has this port, perhaps a second orchestrator",
        io::ErrorKind::PermissionDenied => ": ports below 1024 need the right to bind them",
        io::ErrorKind::AddrNotAvailable => ": this machine does not have that address",
        _ => "",
    }
}

/// Takes a port. `purpose` and `option` are for the error only.
///
/// # Errors
/// When the system refuses, with the flag that helps.
pub async fn bind(
    address: SocketAddr,
    purpose: &'static str,
    option: &'static str,
) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, purpose, option, source })
}

/// The address of the client, as an extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What is served.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) version: Version,
    /// Who knows it may pass connections of others on: see [`relay`].
    pub(crate) relays: Option<Secret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    /// As gRPC has it: without TLS, and without anything before.
    Http2,
}

impl From<Router> for Service {
    fn from(router: Router) -> Self {
        Self { router, version: Version::Http1, relays: None }
    }
}

/// Serves until `shutdown`, then lets the requests in hand end.
pub(crate) async fn serve(listener: TcpListener, service: impl Into<Service>, shutdown: CancellationToken) {
    let service: Service = service.into();
    let room = Arc::new(Semaphore::new(match service.version {
        Version::Http1 => Semaphore::MAX_PERMITS,
        Version::Http2 => HANDLERS,
    }));
    let limit = move |request, next| within_time(Arc::clone(&room), request, next);
    let router = service.router.layer(DefaultBodyLimit::max(BODY_MAX)).layer(middleware::from_fn(limit));
    let service = Service { router, ..service };
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (service, shutdown) = (service.clone(), shutdown.clone());
                connections.spawn(async move {
                    if let Err(error) = connection(stream, peer, service, shutdown).await {
                        tracing::debug!(%peer, error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(count = connections.len(), "requests were still in hand at the end");
    }
}

async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    service: Service,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let whose = relay::accept(&mut stream, peer, service.relays.as_ref());
    let peer = tokio::select! {
        peer = tokio::time::timeout(HEAD_TIMEOUT, whose) => peer??,
        () = shutdown.cancelled() => return Ok(()),
    };
    let stream = TokioIo::new(stream);
    match service.version {
        Version::Http1 => {
            let router = TowerToHyperService::new(service.router.layer(axum::Extension(Peer(peer))));
            let mut connection = std::pin::pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(stream, router)
            );
            tokio::select! {
                outcome = connection.as_mut() => return Ok(outcome?),
                () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            Ok(connection.await?)
        }
        Version::Http2 => {
            let asked = Arc::new(Notify::new());
            let router =
                service.router.layer(axum::Extension(Peer(peer))).layer(axum::Extension(asked.clone()));
            let mut connection = std::pin::pin!(
                http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .keep_alive_interval(KEEPALIVE)
                    .max_concurrent_streams(STREAMS)
                    .serve_connection(stream, TowerToHyperService::new(router))
            );
            tokio::select! {
                outcome = connection.as_mut() => return Ok(outcome?),
                () = idle(&asked) => {}
                () = shutdown.cancelled() => {}
            }
            connection.as_mut().graceful_shutdown();
            // One that has not even begun waits for its beginning.
            tokio::time::timeout(REQUEST_TIMEOUT, connection).await??;
            Ok(())
        }
    }
}

/// Waits until nothing was asked for [`HEAD_TIMEOUT`].
async fn idle(asked: &Notify) {
    while tokio::time::timeout(HEAD_TIMEOUT, asked.notified()).await.is_ok() {}
}

/// The handler is a task of its own, since hyper drops what belongs to a connection as soon as its client is gone.
/// One that waits for the rest of a body ends too, then: with the connection. Over HTTP/2 a client can leave requests as fast
/// as it makes them, so only so many are carried out at a time.
async fn within_time(room: Arc<Semaphore>, request: Request, next: Next) -> Response {
    if let Some(asked) = request.extensions().get::<Arc<Notify>>() {
        asked.notify_one();
    }
    let sorry = |status: StatusCode, message: &str| {
        (status, axum::Json(serde_json::json!({ "message": message }))).into_response()
    };
    let carried_out = async {
        let place = room.acquire_owned().await;
        tokio::spawn(async move {
            let _place = place;
            next.run(request).await
        })
        .await
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, carried_out).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::error!(%error, "request was not carried out");
            sorry(StatusCode::INTERNAL_SERVER_ERROR, "The request failed; the orchestrator's log says why.")
        }
        Err(_elapsed) => {
            sorry(StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive or to be answered.")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{Notify, Semaphore};
    use tokio_util::sync::CancellationToken;

    async fn client(router: Router) -> TcpStream {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(super::serve(listener, router, CancellationToken::new()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_request_is_carried_out_though_its_client_is_gone() {
        let (begun, may_go_on, done) =
            (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
        let parts = (Arc::clone(&begun), Arc::clone(&may_go_on), Arc::clone(&done));
        let handler = move || {
            let (begun, may_go_on, done) = parts.clone();
            async move {
                begun.notify_one();
                let _permit = may_go_on.acquire().await;
                done.notify_one();
            }
        };
        let stream = client(Router::new().route("/", post(handler))).await;
        begun.notified().await;
        drop(stream);
        // Long enough for the server to see the end of the connection.
        tokio::time::sleep(Duration::from_millis(100)).await;
        may_go_on.add_permits(1);
        tokio::time::timeout(Duration::from_secs(10), done.notified()).await.expect("carried out");
    }

    #[tokio::test]
    async fn a_panic_is_answered() {
        async fn panics() {
            panic!("on purpose");
        }
        let mut stream = client(Router::new().route("/", post(panics))).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 500");
    }
}
