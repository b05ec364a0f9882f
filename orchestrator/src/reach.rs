//! Daemons whose state was out of reach come back by themselves.

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::chain;

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// An error of a daemon that may not be one a moment later.
pub(crate) trait Passing: Error {
    /// Its state cannot be reached, or another one leads.
    fn is_out_of_reach(&self) -> bool;
}

/// Runs a daemon, and again when that ends since its state is out of reach. Whoever starts it is told at once: only what has
/// served, which it says by the flag, comes back.
pub(crate) async fn come_back<E: Passing>(
    shutdown: &CancellationToken,
    mut run: impl AsyncFnMut(&AtomicBool) -> Result<(), E>,
) -> Result<(), E> {
    let (mut has_served, mut is_told) = (false, false);
    loop {
        let serves = AtomicBool::new(false);
        let outcome = run(&serves).await;
        if serves.into_inner() {
            (has_served, is_told) = (true, false);
        }
        match outcome {
            Err(error) if has_served && error.is_out_of_reach() && !shutdown.is_cancelled() => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(error = %chain(&error), "it does not serve; trying on");
                }
            }
            done => return done,
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
            return Ok(());
        }
    }
}
