//! One JSON request over HTTP/1.1, to a TCP or a UNIX address. Both peers of this daemon, the cluster's API and
//! netmanager, want nothing more, and a request every few hours needs no pool.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// The longest answer that is read.
const ANSWER_MAX: usize = 1 << 20;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Endpoint {
    fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => f.write_str(&self.authority()),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why a request brought no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot connect to {endpoint}")]
    Connect {
        endpoint: Endpoint,
        #[source]
        source: io::Error,
    },
    #[error("no answer from {endpoint} within {} s", .after.as_secs())]
    Timeout { endpoint: Endpoint, after: Duration },
    #[error("{endpoint} broke off the exchange of {path}")]
    Exchange {
        endpoint: Endpoint,
        path: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server understood, and said no.
    #[error("{endpoint} answered {path} with {status}{}", explained(.body))]
    Refused { endpoint: Endpoint, path: &'static str, status: StatusCode, body: String },
}

fn explained(body: &str) -> String {
    let text = body.trim();
    if text.is_empty() { String::new() } else { format!(": {}", text.chars().take(300).collect::<String>()) }
}

/// Posts `body` and returns the body of the answer, whose status was 200 to 299.
///
/// # Errors
/// See [`HttpError`]; `deadline` covers connecting, asking and reading together.
pub async fn post<B: Serialize + Sync>(
    endpoint: &Endpoint,
    path: &'static str,
    body: &B,
    deadline: Duration,
) -> Result<Bytes, HttpError> {
    let exchange = |source| HttpError::Exchange { endpoint: endpoint.clone(), path, source };
    let body = serde_json::to_vec(body).map_err(|error| exchange(error.into()))?;
    let request = Request::post(path)
        .header(HOST, endpoint.authority())
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| exchange(error.into()))?;
    let answer = async {
        let (status, body) = connect_and_send(endpoint, request).await.map_err(|error| match error {
            Failure::Connect(source) => HttpError::Connect { endpoint: endpoint.clone(), source },
            Failure::Exchange(source) => exchange(source),
        })?;
        if status.is_success() {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        Err(HttpError::Refused { endpoint: endpoint.clone(), path, status, body })
    };
    tokio::time::timeout(deadline, answer)
        .await
        .unwrap_or_else(|_elapsed| Err(HttpError::Timeout { endpoint: endpoint.clone(), after: deadline }))
}

enum Failure {
    Connect(io::Error),
    Exchange(Box<dyn std::error::Error + Send + Sync>),
}

async fn connect_and_send(
    endpoint: &Endpoint,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Failure> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(Failure::Connect)?;
            stream.set_nodelay(true).map_err(Failure::Connect)?;
            send(stream, request).await
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(Failure::Connect)?;
            send(stream, request).await
        }
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::Exchange(error.into()))?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| Failure::Exchange(error.into()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(Failure::Exchange)?;
        Ok((status, body.to_bytes()))
    };
    // The connection ends when the exchange drops its sender, so this waits for no one. What it ends with is
    // of no interest once the answer is there, and part of the exchange's error when it is not.
    let (answer, _closed) = tokio::join!(exchange, connection);
    answer
}
