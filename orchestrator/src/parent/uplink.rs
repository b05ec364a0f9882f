//! The connection to the root: registers, reports, and begins again after every outage.
//!
//! A root that was restarted, or that lost its disk, is no special case: whenever a report fails, the cluster (or branch)
//! registers again, under its name, and then says everything again.

use std::sync::Arc;
use std::time::Duration;

use protocol::id::Id;
use reqwest::StatusCode;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Introduction, ParentClient, ParentError};
use super::summary::{Scope, Summary};
use crate::backoff::Backoff;
use crate::error::chain;

/// Without news. Oakestra's own.
const REPORT_EVERY: Duration = Duration::from_secs(15);
/// News go at once, and what comes within this time of the last report goes together.
const GATHER: Duration = Duration::from_millis(100);
/// Where reports take longer than that, they take one part in so many of the time.
const SHARE: u32 = 4;
/// A root that keeps what it was told is told of changes. So often it is told everything all the same, so that nothing that
/// went wrong stays so.
const ALL_EVERY: Duration = Duration::from_secs(300);

/// Whether the root knows us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// The last id the root gave.
    pub(crate) id: Option<Id>,
    pub(crate) connected: bool,
}

/// Whose registration and reports these are. `None`: it stops.
pub(crate) trait Reporter: Send + Sync {
    /// It is registered, under this id, for the first time or again.
    fn registered(&self, id: Id) -> impl Future<Output = Option<()>> + Send;

    fn summary(&self, scope: Scope) -> impl Future<Output = Option<Summary>> + Send;

    /// So much of what a summary said of instances that are gone is known above.
    fn reported(&self, departed: usize) -> impl Future<Output = Option<()>> + Send;
}

#[derive(Debug)]
pub(crate) struct Uplink<R> {
    pub(crate) root: ParentClient,
    pub(crate) introduction: Introduction,
    pub(crate) link: watch::Sender<Link>,
    /// There is something to report.
    pub(crate) news: Arc<Notify>,
    pub(crate) reporter: R,
}

impl<R: Reporter> Uplink<R> {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.stay_connected() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn stay_connected(&self) {
        let mut backoff = Backoff::new();
        loop {
            match self.root.register(&self.introduction).await {
                Ok(id) => {
                    tracing::info!(cluster = %id, name = %self.introduction.name, "registered at the root");
                    let _previous = self.link.send_replace(Link { id: Some(id), connected: true });
                    if self.reporter.registered(id).await.is_none() {
                        return;
                    }
                    let Some(error) = self.report_until_failure(id, &mut backoff).await else {
                        return;
                    };
                    tracing::warn!(error = %chain(&error), "the root does not take reports; registering again");
                    self.link.send_modify(|link| link.connected = false);
                }
                Err(error) => backoff.failed(
                    || tracing::warn!(error = %chain(&error), "not registered at the root; trying on"),
                ),
            }
            backoff.wait().await;
        }
    }

    /// Returns what went wrong; nothing when the cluster stops.
    async fn report_until_failure(&self, id: Id, backoff: &mut Backoff) -> Option<ParentError> {
        let (mut scope, mut all_told) = (Scope::All, Instant::now());
        loop {
            let begun = Instant::now();
            if begun.duration_since(all_told) >= ALL_EVERY {
                scope = Scope::All;
            }
            let summary = self.reporter.summary(scope).await?;
            let sent = Instant::now();
            if scope == Scope::All {
                all_told = sent;
            }
            scope = match self.root.report(id, &summary.report).await {
                Ok(taken) => taken.map_or(Scope::All, Scope::Since),
                // It was told since what it does not know: it was restarted, or has heard of another one in between.
                Err(ParentError::Refused { status: StatusCode::CONFLICT, .. }) if scope != Scope::All => {
                    scope = Scope::All;
                    continue;
                }
                Err(error) => return Some(error),
            };
            backoff.succeeded();
            let pause = GATHER.max(begun.elapsed() * SHARE);
            if summary.departed > 0 {
                self.reporter.reported(summary.departed).await?;
            }
            match tokio::time::timeout(REPORT_EVERY, self.news.notified()).await {
                Ok(()) => tokio::time::sleep_until(sent + pause).await,
                Err(_no_news) => {}
            }
        }
    }
}
