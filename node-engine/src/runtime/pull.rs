//! Bringing an image that is not here.
//!
//! containerd 1.6 leaves pulling to its clients. Its own client, `ctr`, comes with it everywhere and knows registries,
//! TLS, tokens and resuming; so it is asked, instead of a second such client living in this daemon's memory.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OwnedMutexGuard;

use super::client::NAMESPACE;
use super::error::RuntimeError;
use super::manifest::Platform;

/// A large image over a slow link; `ctr` itself gives up much earlier on a registry that cannot be reached.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Whether an image that is not here may be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pull {
    /// Fetch it from its registry.
    Missing,
    /// Images are only brought here by hand.
    Never,
}

/// Which images are being pulled: the instances of one service are often deployed together, and the image is wanted
/// once.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    by_image: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Pulls {
    /// Waits until nobody else pulls image `name`. Who gets the turn should look first whether it is there by now.
    pub(super) async fn turn(&self, name: &str) -> OwnedMutexGuard<()> {
        let image = {
            let mut by_image = self.by_image.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds or waits for any more.
            by_image.retain(|_, image| Arc::strong_count(image) > 1);
            Arc::clone(by_image.entry(name.to_owned()).or_default())
        };
        image.lock_owned().await
    }
}

/// Fetches image `name`; it is unpacked for `snapshotter` as it arrives.
///
/// # Errors
/// [`RuntimeError::ImageMissing`], with what the registry or the network said.
pub(super) async fn pull(
    socket: &Path,
    snapshotter: &str,
    name: &str,
    platform: &Platform,
) -> Result<(), RuntimeError> {
    tracing::info!(image = name, "pulling image");
    let mut outcome = run(socket, snapshotter, name, platform, false).await;
    if outcome.as_ref().is_err_and(|reason| reason.contains("server gave HTTP response to HTTPS client")) {
        outcome = run(socket, snapshotter, name, platform, true).await;
    }
    outcome.map_err(|reason| missing(socket, name, format!(", and pulling it failed: {reason}")))
}

/// The error of an image that is not here, with the way to bring it here.
pub(super) fn missing(socket: &Path, name: &str, pull: String) -> RuntimeError {
    let import = format!("ctr -a {} -n {NAMESPACE} image import FILE.tar", socket.display());
    RuntimeError::ImageMissing { image: name.to_owned(), pull, import }
}

async fn run(
    socket: &Path,
    snapshotter: &str,
    name: &str,
    platform: &Platform,
    plain_http: bool,
) -> Result<(), String> {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket).args(["--namespace", NAMESPACE, "images", "pull"]);
    command.args(["--snapshotter", snapshotter, "--platform", &platform.to_string()]);
    if plain_http {
        command.arg("--plain-http");
    }
    command.arg("--").arg(name).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(DEADLINE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(complaint(&output)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err("containerd's client `ctr`, which does it, is not installed".to_owned())
        }
        Ok(Err(error)) => Err(format!("cannot run ctr: {error}")),
        Err(_elapsed) => Err(format!("not done within {} min", DEADLINE.as_secs() / 60)),
    }
}

/// The last line that `ctr` wrote, without its own name in front.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("ctr gave no reason");
    line.trim().trim_start_matches("ctr: ").chars().take(400).collect()
}
