//! The connection to the root: registers, reports, and begins again after every outage.
//!
//! A root that was restarted, or that lost its disk, is no special case: whenever a report fails, the cluster
//! registers again, under its name, and then says everything again.

use std::sync::Arc;
use std::time::Duration;

use protocol::id::Id;
use reqwest::StatusCode;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::control::Command;
use super::root_client::{Introduction, RootClient, RootError};
use super::state::Scope;
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
pub(super) struct Link {
    /// The last id the root gave.
    pub(super) id: Option<Id>,
    pub(super) connected: bool,
}

#[derive(Debug)]
pub(super) struct Uplink {
    pub(super) root: RootClient,
    pub(super) introduction: Introduction,
    pub(super) link: watch::Sender<Link>,
    /// There is something to report.
    pub(super) news: Arc<Notify>,
    pub(super) commands: mpsc::Sender<Command>,
}

impl Uplink {
    pub(super) async fn run(self, shutdown: CancellationToken) {
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
                    if self.commands.send(Command::RootIsBack { id }).await.is_err() {
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
    async fn report_until_failure(&self, id: Id, backoff: &mut Backoff) -> Option<RootError> {
        let (mut scope, mut all_told) = (Scope::All, Instant::now());
        loop {
            let begun = Instant::now();
            if begun.duration_since(all_told) >= ALL_EVERY {
                scope = Scope::All;
            }
            let (reply, summary) = oneshot::channel();
            self.commands.send(Command::Summary { scope, reply }).await.ok()?;
            let summary = summary.await.ok()?;
            let sent = Instant::now();
            if scope == Scope::All {
                all_told = sent;
            }
            scope = match self.root.report(id, &summary.report).await {
                Ok(taken) => taken.map_or(Scope::All, Scope::Since),
                // It was told since what it does not know: it was restarted, or has heard of another one in between.
                Err(RootError::Refused { status: StatusCode::CONFLICT, .. }) if scope != Scope::All => {
                    scope = Scope::All;
                    continue;
                }
                Err(error) => return Some(error),
            };
            backoff.succeeded();
            let pause = GATHER.max(begun.elapsed() * SHARE);
            if summary.departed > 0 {
                self.commands.send(Command::Reported { departed: summary.departed }).await.ok()?;
            }
            match tokio::time::timeout(REPORT_EVERY, self.news.notified()).await {
                Ok(()) => tokio::time::sleep_until(sent + pause).await,
                Err(_no_news) => {}
            }
        }
    }
}
