//! Who of several leads: the one whose lease is on the key.

use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, Error, LeaseClient, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Etcd, Leader, Led, Secret};
use crate::store::{Store, StoreError};

/// How long one leads who is not heard of. The least that etcd gives is 2 s.
const LEASE: Duration = Duration::from_secs(3);
/// Between two words to etcd that one still leads.
const PERIOD: Duration = Duration::from_millis(800);
/// Between two looks whether somebody leads.
const LOOK: Duration = Duration::from_millis(400);

/// That one leads. Given up when it is dropped, at the latest when the lease has run out.
#[derive(Debug)]
pub struct Leadership {
    lost: CancellationToken,
    _hold: DropGuard,
    keeping: tokio::task::JoinHandle<()>,
    secret: Secret,
}

impl Etcd {
    /// Waits until nobody else leads, then leads. `own` is what others are told of it; `told`, who leads meanwhile.
    ///
    /// # Errors
    /// When etcd is out of reach, or does not take it.
    pub async fn lead(
        &self,
        own: &Leader,
        told: &watch::Sender<Option<Leader>>,
    ) -> Result<(Store, Leadership), StoreError> {
        let failed = |source| StoreError::Etcd { what: "ask etcd for the lead".to_owned(), source };
        let mut waits_for = None;
        loop {
            let found = self.get(self.leader()).await.map_err(failed)?;
            let leads = found.as_ref().map(|leads| Leader::read(leads.value_str().unwrap_or_default()));
            // One where this one is itself has ended, and its lease has not: nobody serves there.
            let passed_to = leads.clone().filter(|leads| leads.at != own.at);
            told.send_if_modified(|known| {
                let is_another = *known != passed_to;
                *known = passed_to;
                is_another
            });
            match leads {
                Some(other) => {
                    if waits_for.as_ref() != Some(&other) {
                        tracing::info!(leads = %other.name, "another one leads; this one takes over when that is gone");
                        waits_for = Some(other);
                    }
                    tokio::time::sleep(LOOK).await;
                }
                None => {
                    if let Some(led) = self.try_to_lead(own).await.map_err(failed)? {
                        return Ok(led);
                    }
                }
            }
        }
    }

    /// Nothing: somebody else was faster.
    async fn try_to_lead(&self, own: &Leader) -> Result<Option<(Store, Leadership)>, Error> {
        let mut lease = self.lease.clone();
        let granted = Instant::now();
        let seconds = i64::try_from(LEASE.as_secs()).unwrap_or(i64::MAX);
        let id = lease.grant(seconds, None).await?.id();
        let nobody = Compare::create_revision(self.leader(), CompareOp::Equal, 0);
        let value = serde_json::to_string(own).unwrap_or_else(|_never| own.name.clone());
        let put = TxnOp::put(self.leader(), value, Some(PutOptions::new().with_lease(id)));
        let mut answer = self.kv.clone().txn(Txn::new().when([nobody]).and_then([put])).await?;
        if !answer.succeeded() {
            lease.revoke(id).await?;
            return Ok(None);
        }
        let since = answer.take_header().map_or(0, |header| header.revision());
        let (lost, held) = (CancellationToken::new(), CancellationToken::new());
        let keeping = tokio::spawn(keep(lease, id, granted, lost.clone(), held.clone()));
        let secret = own.secret.clone();
        let leadership = Leadership { lost, _hold: held.drop_guard(), keeping, secret };
        Ok(Some((Store::led(Led { etcd: self.clone(), since }), leadership)))
    }
}

/// Waits until somebody else may lead: for ever, where there is nobody else.
pub async fn lost(leadership: Option<&Leadership>) {
    match leadership {
        Some(leadership) => leadership.lost().await,
        None => std::future::pending().await,
    }
}

impl Leadership {
    /// Which those know who pass connections on to this one.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Waits until somebody else may lead.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Lets somebody else lead at once.
    pub async fn give_up(self) {
        let Self { _hold: hold, keeping, .. } = self;
        drop(hold);
        // It ends by itself, whatever etcd says.
        let _panicked = keeping.await;
    }
}

/// Says again and again that one still leads, until that is given up or was not heard for too long.
async fn keep(
    mut lease: LeaseClient,
    id: i64,
    granted: Instant,
    lost: CancellationToken,
    held: CancellationToken,
) {
    let mut until = granted + LEASE;
    let mut word = None;
    loop {
        let said = Instant::now();
        let outcome = tokio::select! {
            outcome = say(&mut lease, id, &mut word) => outcome,
            () = tokio::time::sleep_until(until) => break,
            () = held.cancelled() => {
                let _it_runs_out = lease.revoke(id).await;
                return;
            }
        };
        match outcome {
            Ok(true) => until = said + LEASE,
            // It has run out already.
            Ok(false) => break,
            Err(error) => {
                tracing::debug!(%error, "etcd was not told that this root leads");
                word = None;
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until((said + PERIOD).min(until)) => {}
            () = held.cancelled() => {}
        }
    }
    lost.cancel();
}

/// Whether the lease lives on.
async fn say(
    lease: &mut LeaseClient,
    id: i64,
    word: &mut Option<(LeaseKeeper, LeaseKeepAliveStream)>,
) -> Result<bool, Error> {
    if word.is_none() {
        *word = Some(lease.keep_alive(id).await?);
    }
    let Some((keeper, answers)) = word else { return Ok(true) };
    keeper.keep_alive().await?;
    match answers.message().await? {
        Some(answer) => Ok(answer.ttl() > 0),
        None => {
            *word = None;
            Ok(true)
        }
    }
}
