//! Asking the running daemon, for `netmanager status`.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::REPORT_PATH;
use crate::report::Report;

const DEADLINE: Duration = Duration::from_secs(5);
const LARGEST_REPORT: usize = 16 << 20;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The daemon's report; `None` when no daemon serves the socket.
///
/// # Errors
/// When there is a daemon but it does not answer as expected.
pub async fn report(socket: &Path) -> Result<Option<Report>, Error> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    tokio::time::timeout(DEADLINE, ask(stream)).await?.map(Some)
}

async fn ask(stream: UnixStream) -> Result<Report, Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(REPORT_PATH).header("host", "localhost").body(Body::empty())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_REPORT).collect().await?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body)?)
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(ended.err().map_or_else(|| "the daemon hung up".into(), Into::into)),
    }
}
