//! Forgets what has run out: revoked logins, links to set a password.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Root;
use super::failure::Failure;
use crate::error::chain;

/// What has run out is good for nothing, so it does no harm until then.
const EVERY: Duration = Duration::from_secs(60 * 60);

pub(super) async fn run(root: Arc<Root>, shutdown: CancellationToken) {
    loop {
        if let Err(error) = sweep(&root).await {
            tracing::warn!(error = %chain(&error), "what has run out could not be removed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn sweep(root: &Root) -> Result<(), Failure> {
    root.forget_families().await?;
    root.forget_resets().await
}
