//! Asking the running daemon, for the commands.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::{LOOK_PATH, REPORT_PATH, TRACE_PATH};
use crate::report::Report;

const DEADLINE: Duration = Duration::from_secs(5);
/// All flows of a node, one behind the other, are not longer.
const LARGEST_ANSWER: usize = 64 << 20;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What came of a question.
#[derive(Debug)]
pub(crate) enum Asked {
    Answer(serde_json::Value),
    /// What the question names is not there.
    NotFound(String),
    /// No daemon serves the socket.
    Nobody,
}

/// The daemon's report; `None` when no daemon serves the socket.
///
/// # Errors
/// When there is a daemon but it does not answer as expected.
pub async fn report(socket: &Path) -> Result<Option<Report>, Error> {
    let request = Request::get(REPORT_PATH).header("host", "localhost").body(Body::empty())?;
    match exchange(socket, request).await? {
        None => Ok(None),
        Some((StatusCode::OK, body)) => Ok(Some(serde_json::from_slice(&body)?)),
        Some((status, body)) => Err(unexpected(status, &body)),
    }
}

/// Asks a daemon that forwards packets itself about its tables.
///
/// # Errors
/// As [`report`].
pub(crate) async fn ask(socket: &Path, question: &impl Serialize) -> Result<Asked, Error> {
    let body = Body::from(serde_json::to_vec(question)?);
    let request = Request::post(LOOK_PATH).header("host", "localhost").body(body)?;
    match exchange(socket, request).await? {
        None => Ok(Asked::Nobody),
        Some((StatusCode::OK, body)) => Ok(Asked::Answer(serde_json::from_slice(&body)?)),
        Some((StatusCode::NOT_FOUND, body)) => {
            Ok(Asked::NotFound(String::from_utf8_lossy(&body).trim_end().to_owned()))
        }
        Some((status, body)) => Err(unexpected(status, &body)),
    }
}

/// What came of asking to be told.
#[derive(Debug)]
pub(crate) enum Watched {
    Lines(Lines),
    /// What the question names is not there.
    NotFound(String),
    /// No daemon serves the socket.
    Nobody,
}

/// What a daemon tells, line by line, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    begun: Vec<u8>,
    _connection: AbortOnDropHandle<()>,
}

impl Lines {
    /// The next one, without its end; nothing when the daemon has stopped. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<_> = self.begun.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            match self.body.frame().await {
                Some(frame) => self.begun.extend(frame?.into_data().unwrap_or_default()),
                None => return Ok(None),
            }
        }
    }
}

/// Asks a daemon that forwards packets itself to tell what becomes of them. Call within a tokio runtime.
///
/// # Errors
/// As [`report`], and when it tells somebody else already.
pub(crate) async fn watch(socket: &Path, question: &impl Serialize) -> Result<Watched, Error> {
    let Some(stream) = connect(socket).await? else { return Ok(Watched::Nobody) };
    let body = Body::from(serde_json::to_vec(question)?);
    let request = Request::post(TRACE_PATH).header("host", "localhost").body(body)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // How it ends, the body tells.
    let connection = AbortOnDropHandle::new(tokio::spawn(async { connection.await.unwrap_or_default() }));
    let response = tokio::time::timeout(DEADLINE, sender.send_request(request)).await??;
    let status = response.status();
    if status == StatusCode::OK {
        let body = response.into_body();
        return Ok(Watched::Lines(Lines { body, begun: Vec::new(), _connection: connection }));
    }
    let said = Limited::new(response.into_body(), LARGEST_ANSWER).collect();
    let said = tokio::time::timeout(DEADLINE, said).await??.to_bytes();
    if status == StatusCode::NOT_FOUND {
        return Ok(Watched::NotFound(String::from_utf8_lossy(&said).trim_end().to_owned()));
    }
    Err(unexpected(status, &said))
}

fn unexpected(status: StatusCode, body: &[u8]) -> Error {
    format!("{status}: {}", String::from_utf8_lossy(body).trim_end()).into()
}

/// Nothing if nobody serves the socket.
async fn connect(socket: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn exchange(socket: &Path, request: Request<Body>) -> Result<Option<(StatusCode, Bytes)>, Error> {
    let Some(stream) = connect(socket).await? else { return Ok(None) };
    tokio::time::timeout(DEADLINE, send(stream, request)).await?.map(Some)
}

async fn send(stream: UnixStream, request: Request<Body>) -> Result<(StatusCode, Bytes), Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await?.to_bytes();
        Ok((status, body))
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(ended.err().map_or_else(|| "the daemon hung up".into(), Into::into)),
    }
}
