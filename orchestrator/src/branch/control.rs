//! The one task that owns the branch's [`State`]. Who wants something of it sends a question; those that wait are asked together,
//! what follows is made durable with one sync, and then all are answered.

use std::sync::Arc;
use std::time::Duration;

use protocol::id::Id;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::state::{Effects, State};
use crate::clock::{self, Moment};
use crate::store::{Store, StoreError, Transaction};

/// Questions that wait. A full queue slows down the connections they come from.
const QUEUE: usize = 4096;
/// Questions that are asked together at most.
const BATCH: usize = 256;
/// Values that are kept in one transaction at most: etcd takes no more.
const KEPT_TOGETHER: usize = 1000;
const TICK: Duration = Duration::from_secs(1);

/// Asks the state; returns how to answer, once everything is durable.
type Question = Box<dyn FnOnce(&mut State, Moment) -> Box<dyn FnOnce() + Send> + Send>;

/// The task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the branch is stopping")]
pub(super) struct Stopping;

/// How the state is asked. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Handle(mpsc::Sender<Question>);

impl Handle {
    /// Asks, or changes, the state. What was changed is durable when this returns.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut State, Moment) -> T + Send + 'static,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |state, now| {
            let value = question(state, now);
            Box::new(move || {
                if reply.send(value).is_err() {
                    tracing::debug!("nobody waits for the answer any more");
                }
            })
        });
        self.0.send(question).await.map_err(|_stopped| Stopping)?;
        answer.await.map_err(|_stopped| Stopping)
    }
}

/// Who is to act on what the state has decided.
#[derive(Debug, Clone)]
pub(super) struct Wakes {
    pub(super) commands: Arc<Notify>,
    pub(super) notices: Arc<Notify>,
    pub(super) report: Arc<Notify>,
    pub(super) heard: broadcast::Sender<Id>,
}

#[derive(Debug)]
pub(super) struct Control {
    state: State,
    store: Store,
    wakes: Wakes,
    questions: mpsc::Receiver<Question>,
}

impl Control {
    pub(super) fn new(state: State, store: Store, wakes: Wakes) -> (Self, Handle) {
        let (sender, questions) = mpsc::channel(QUEUE);
        (Self { state, store, wakes, questions }, Handle(sender))
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// When something could not be made durable: what is in memory is then ahead of what a restart would find, so the process
    /// should end.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut answers = Vec::new();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(question) = self.questions.recv() => {
                    answers.push(question(&mut self.state, clock::moment()));
                }
                _ = ticks.tick() => self.state.tick(clock::moment()),
            }
            while answers.len() < BATCH
                && let Ok(question) = self.questions.try_recv()
            {
                answers.push(question(&mut self.state, clock::moment()));
            }
            self.state.place_waiting(clock::moment());
            let effects = self.state.take_effects();
            self.perform(effects).await?;
            for answer in answers {
                answer();
            }
        }
    }

    async fn perform(&self, effects: Effects) -> Result<(), StoreError> {
        let Effects { keep, commands, notices, heard, report } = effects;
        // Backwards: instances come before the commands about them, should it end between two transactions.
        let keep: Vec<_> = keep.iter().rev().collect();
        for together in keep.chunks(KEPT_TOGETHER) {
            let transaction =
                together.iter().fold(Transaction::new(), |transaction, (key, value)| match value {
                    Some(value) => transaction.put(key, value),
                    None => transaction.delete(key),
                });
            self.store.commit(transaction).await?;
        }
        for cluster in heard {
            let _nobody_waits = self.wakes.heard.send(cluster);
        }
        for (is_due, wake) in
            [(commands, &self.wakes.commands), (notices, &self.wakes.notices), (report, &self.wakes.report)]
        {
            if is_due {
                wake.notify_one();
            }
        }
        Ok(())
    }
}
