//! Daemons whose state was out of reach come back by themselves.

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::chain;
use crate::store::StoreError;

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// An error of a daemon that may not be one a moment later.
pub(crate) trait Passing: Error {
    /// Its state cannot be reached, or another one leads.
    fn is_out_of_reach(&self) -> bool;
}

/// Runs a daemon, and again when that ends since its state is out of reach. Whoever starts it is told at once: only what has
/// served, which it says by the flag, or has lost the lead before it came to that, comes back.
pub(crate) async fn come_back<E: Passing + 'static>(
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
            Err(error)
                if (has_served && error.is_out_of_reach() || has_lost_the_lead(&error))
                    && !shutdown.is_cancelled() =>
            {
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

/// Who had the lead has reached its state: a machine that is busy while it starts is no reason to stay away.
fn has_lost_the_lead(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .any(|error| matches!(error.downcast_ref(), Some(StoreError::Deposed)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio_util::sync::CancellationToken;

    use super::{Passing, StoreError, come_back};

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("prepare")]
        Prepare(#[from] StoreError),
    }

    impl Passing for Failure {
        fn is_out_of_reach(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn who_loses_the_lead_before_it_serves_comes_back_and_who_finds_no_state_does_not() {
        let closed = || StoreError::Pem { path: "ca".into(), source: io::ErrorKind::NotFound.into() };
        for (first, runs) in [(StoreError::Deposed, 2), (closed(), 1)] {
            let (mut first, mut count) = (Some(first), 0);
            let shutdown = CancellationToken::new();
            let outcome = come_back(&shutdown, async |_serves| {
                count += 1;
                first.take().map_or(Ok(()), |error| Err(Failure::from(error)))
            });
            let outcome = outcome.await;
            assert_eq!((outcome.is_ok(), count), (runs == 2, runs));
        }
    }
}
