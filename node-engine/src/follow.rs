//! Follows containerd's events, through its restarts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::reconcile::Notice;
use crate::runtime::{Runtime, RuntimeError};
use crate::verdict::chain;

/// Passes events on until `shutdown`. After each interruption it says [`Notice::Connected`] first, so that the receiver
/// looks up what it has missed.
pub async fn follow(runtime: Arc<Runtime>, notices: mpsc::Sender<Notice>, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let follow = async {
        loop {
            let ended = follow_once(&runtime, &notices, &mut backoff).await;
            if notices.is_closed() {
                return;
            }
            if !backoff.is_failing() {
                let reason = match &ended {
                    Ok(()) => "containerd ended the connection".to_owned(),
                    Err(error) => chain(error),
                };
                tracing::warn!(socket = %runtime.socket().display(), reason, "containerd is away; running instances go on, new ones fail");
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow => {}
    }
}

async fn follow_once(
    runtime: &Runtime,
    notices: &mpsc::Sender<Notice>,
    backoff: &mut Backoff,
) -> Result<(), RuntimeError> {
    let mut events = runtime.events().await?;
    if notices.send(Notice::Connected).await.is_err() {
        return Ok(());
    }
    if backoff.succeeded() {
        tracing::info!("containerd is back");
    }
    while let Some(event) = events.next().await? {
        if notices.send(Notice::Event(event)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
