//! The life of one instance: a state machine without socket or store, and with the time as an argument. Only what it
//! shows is stamped with the wall clock.
//!
//! ```text
//!             place             named by its worker
//!   Waiting ----------> Placed ---------------------> Up ----> Completed   (one_shot)
//!      ^                  |                            |
//!      +--- after a pause +---- failed, or its worker is silent
//!
//!   any --undeploy--> Removing --gone--> (forgotten)
//! ```

mod detail;

use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::link::LinkOffer;
use protocol::outage::Reconcile;
use protocol::service::Instance as Document;
use protocol::status::Status;
use serde::{Deserialize, Serialize};

use super::decisions::{Attempts, WithoutPlace};

/// The pause after the first failure in a row, doubled with each further one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// An instance that ran for so long has left its earlier failures behind.
const STABLE: Duration = Duration::from_secs(60);
/// What has moved away from a worker, and so many of its reports in a row do not name, has ended there.
const DEPARTED_REPORTS: u32 = 5;
/// After how long without a sign a deployment is sent again to a worker that has stayed connected. Pulling an image
/// takes minutes, and Oakestra's worker takes a second request for a second instance; what a worker missed while it
/// was away it gets when it comes back.
const RESEND_FIRST: Duration = Duration::from_secs(120);
const RESEND_MAX: Duration = Duration::from_secs(480);

/// What must not be lost of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) service: Id,
    /// As clients read it, without measurements.
    pub(super) document: Document,
    /// It was asked to be removed.
    pub(super) removing: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Why it left its last worker.
    #[serde(default)]
    pub(super) left: Option<String>,
    pub(super) address: Option<Address>,
    /// It still serves at this worker, which it leaves when it runs at another one.
    #[serde(default)]
    pub(super) moving_from: Option<Id>,
    /// Where it is going to be reached, while it moves.
    #[serde(default)]
    pub(super) arriving: Option<Address>,
    /// Where it was before it moved, and what is under way there comes to its end.
    #[serde(default)]
    pub(super) departing: Option<Address>,
    /// The worker that it was replaced at because nobody heard of it, and that may have it back.
    #[serde(default)]
    pub(super) original: Option<Original>,
}

/// Where an instance was that its service would rather have than the one that took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Original {
    pub(super) worker: Id,
    pub(super) address: Option<Address>,
}

/// Where an instance is reached, as its worker's netmanager says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Address {
    pub(super) worker: Id,
    pub(super) namespace_ip: String,
    pub(super) namespace_ip_v6: String,
    pub(super) host_ip: String,
    pub(super) host_port: u16,
    #[serde(default, skip_serializing_if = "LinkOffer::is_empty")]
    pub(super) links: LinkOffer,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    /// On no worker: not before `until`, or until there is room when `no_room`.
    Waiting { until: Option<Instant>, no_room: bool },
    /// On a worker that has not shown it yet.
    Placed { worker: Id, resend_at: Instant, pause: Duration },
    /// Named by its worker, last at `named`.
    Up { worker: Id, since: Instant, named: Instant },
    /// Did what it had to do.
    Completed { worker: Option<Id> },
    /// Its worker was told to remove it; `reports` of the worker since then did not name it.
    Removing { worker: Id, told: Instant, named: Instant, reports: u32 },
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) record: Record,
    pub(super) phase: Phase,
    /// Where it failed last, so that another worker is tried where there is one.
    pub(super) failed_on: Option<Id>,
    pub(super) usage: Usage,
    /// Since when it has no processor time left, if it has none.
    pub(super) busy_since: Option<Instant>,
    pub(super) attempts: Attempts,
    /// What its detail says of why it gets no place, or no other one.
    refused: Option<WithoutPlace>,
    /// How many reports of the worker that it has moved away from have not named it.
    pub(super) departing_unnamed: u32,
}

/// What it used when it was last measured, as text like on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu_percent: Option<String>,
    pub(super) memory_percent: Option<String>,
    pub(super) disk: Option<String>,
    pub(super) logs: String,
}

impl Usage {
    /// MB that it takes up on disk, as far as it is known.
    pub(super) fn megabytes(&self) -> u64 {
        self.disk.as_ref().and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0) / 1_000_000
    }
}

impl Instance {
    /// A new one, on no worker yet.
    pub(super) fn new(service: Id, mut document: Document) -> Self {
        document.status = Status::ClusterScheduled;
        document.worker_id = None;
        let record = Record {
            service,
            document,
            removing: false,
            failures: 0,
            left: None,
            address: None,
            moving_from: None,
            arriving: None,
            departing: None,
            original: None,
        };
        Self {
            record,
            phase: Phase::Waiting { until: None, no_room: false },
            failed_on: None,
            usage: Usage::default(),
            attempts: Attempts::default(),
            busy_since: None,
            refused: None,
            departing_unnamed: 0,
        }
    }

    /// One that was read from the store. What its worker says will show whether it is still there; until then it is
    /// taken as it was.
    pub(super) fn restore(record: Record, now: Instant) -> Self {
        let document = &record.document;
        let phase = match (document.worker_id, document.status) {
            (worker, Status::Completed) if !record.removing => Phase::Completed { worker },
            (Some(worker), _) if record.removing => {
                Phase::Removing { worker, told: now, named: now, reports: 0 }
            }
            (Some(worker), Status::Created | Status::Running) => Phase::Up { worker, since: now, named: now },
            (Some(worker), _) => Phase::Placed { worker, resend_at: now + RESEND_FIRST, pause: RESEND_FIRST },
            (None, _) => Phase::Waiting { until: None, no_room: false },
        };
        Self {
            record,
            phase,
            failed_on: None,
            usage: Usage::default(),
            attempts: Attempts::default(),
            busy_since: None,
            refused: None,
            departing_unnamed: 0,
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.record.document.instance_number
    }

    pub(super) fn status(&self) -> Status {
        self.record.document.status
    }

    /// The worker it is on, in whatever state.
    pub(super) fn worker(&self) -> Option<Id> {
        match self.phase {
            Phase::Waiting { .. } => None,
            Phase::Placed { worker, .. } | Phase::Up { worker, .. } | Phase::Removing { worker, .. } => {
                Some(worker)
            }
            Phase::Completed { worker } => worker,
        }
    }

    /// The worker that is meant to keep it.
    pub(super) fn wanted_on(&self) -> Option<Id> {
        match self.phase {
            Phase::Placed { worker, .. } | Phase::Up { worker, .. } => Some(worker),
            Phase::Waiting { .. } | Phase::Completed { .. } | Phase::Removing { .. } => None,
        }
    }

    /// Its address, while it is where the address says.
    pub(super) fn address(&self) -> Option<&Address> {
        let serves_there = |address: &&Address| {
            let there = Some(address.worker);
            self.wanted_on() == there || (self.record.moving_from == there && !self.record.removing)
        };
        self.record.address.as_ref().filter(serves_there)
    }

    /// Its worker's netmanager says where it is reached, or that it is not any more. Says whether that is news.
    pub(super) fn reached_at(&mut self, worker: Id, address: Option<Address>) -> bool {
        if address.is_none() && self.is_departing_from(worker) {
            self.record.departing = None;
            return true;
        }
        let moves = self.record.moving_from.is_some_and(|from| from != worker);
        let known = if moves { &mut self.record.arriving } else { &mut self.record.address };
        std::mem::replace(known, address.clone()) != address
    }

    /// Whether it has moved away from this worker, which has not stopped it yet.
    pub(super) fn is_departing_from(&self, worker: Id) -> bool {
        self.record.departing.as_ref().is_some_and(|address| address.worker == worker)
    }

    /// One more report of this worker does not name it. Says whether that means that it has ended there.
    pub(super) fn is_unnamed_by(&mut self, worker: Id) -> bool {
        if !self.is_departing_from(worker) {
            return false;
        }
        self.departing_unnamed += 1;
        let has_ended = self.departing_unnamed > DEPARTED_REPORTS;
        if has_ended {
            self.record.departing = None;
        }
        has_ended
    }

    /// Lets it wait for another worker, and serve where it is until it runs there.
    pub(super) fn move_away(&mut self, from: Id, reason: &str) {
        self.record.moving_from = Some(from);
        self.record.arriving = None;
        self.leave(Status::ClusterScheduled, reason.to_owned(), None);
    }

    /// Others are led to where it has moved, and it serves no more where it was, but for what is under way.
    pub(super) fn left_for_good(&mut self) {
        if self.record.moving_from.take().is_some() {
            self.record.departing = self.record.address.take();
            self.departing_unnamed = 0;
            self.record.address = self.record.arriving.take();
        }
    }

    /// The worker that it moves away from, or has moved away from, is lost. Says whether that is one of these.
    pub(super) fn is_cut_off_from(&mut self, worker: Id) -> bool {
        let moves = self.record.moving_from == Some(worker);
        if moves {
            self.left_for_good();
        }
        let departs = self.is_departing_from(worker);
        if departs {
            self.record.departing = None;
        }
        moves || departs
    }

    /// Its address, while it is being stopped there.
    pub(super) fn leaving(&self) -> Option<&Address> {
        let Phase::Removing { worker, .. } = self.phase else { return None };
        self.record.address.as_ref().filter(|address| address.worker == worker)
    }

    /// What it wants of its worker is reserved there; not yet seen in the worker's own measurements.
    pub(super) fn unreported(&self) -> bool {
        !matches!(self.phase, Phase::Up { .. }) || self.status() != Status::Running
    }

    /// Whether it may be given a worker now.
    pub(super) fn placeable(&self, now: Instant, room: bool) -> bool {
        match self.phase {
            Phase::Waiting { until, no_room } => until.is_none_or(|until| until <= now) && (room || !no_room),
            _ => false,
        }
    }

    fn set(&mut self, status: Status, detail: impl Into<String>) {
        self.refused = None;
        self.record.document.status = status;
        self.record.document.status_detail = Some(detail.into());
        self.record.document.last_modified_timestamp = crate::clock::now();
    }

    pub(super) fn place(&mut self, worker: Id, host_ip: &str, host_port: u16, now: Instant) {
        self.phase = Phase::Placed { worker, resend_at: now + RESEND_FIRST, pause: RESEND_FIRST };
        self.record.document.worker_id = Some(worker);
        self.record.document.host_ip = Some(host_ip.to_owned());
        self.record.document.host_port = host_port;
        self.set(Status::NodeScheduled, self.after_what("Waiting for the worker to create it"));
    }

    /// Its worker, which has just come back, was told of it.
    pub(super) fn sent(&mut self, now: Instant) {
        if let Phase::Placed { resend_at, pause, .. } = &mut self.phase {
            *pause = RESEND_FIRST;
            *resend_at = now + *pause;
        }
    }

    /// Its worker, which was there all the time, was told of it again.
    pub(super) fn sent_again(&mut self, now: Instant) {
        if let Phase::Placed { resend_at, pause, .. } = &mut self.phase {
            *pause = (*pause * 2).min(RESEND_MAX);
            *resend_at = now + *pause;
        }
    }

    pub(super) fn resend_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Placed { resend_at, .. } if resend_at <= now)
    }

    /// Its worker does not have it (any more), and is to be told again.
    pub(super) fn place_again(&mut self, now: Instant) {
        if let Some(worker) = self.wanted_on() {
            self.phase = Phase::Placed { worker, resend_at: now + RESEND_FIRST, pause: RESEND_FIRST };
            self.set(Status::NodeScheduled, "Its worker came back without it, and is creating it again");
        }
    }

    /// `worker` says that the instance is there. Says whether anything changed that others want to know.
    pub(super) fn is_up(&mut self, worker: Id, status: Status, detail: &str, now: Instant) -> bool {
        let since = match self.phase {
            Phase::Up { since, worker: current, .. } if current == worker => since,
            Phase::Completed { .. } | Phase::Removing { .. } => return false,
            _ => now,
        };
        if status == Status::Running {
            if self.record.moving_from.is_some_and(|from| from != worker) {
                self.left_for_good();
            } else {
                // Where it was going to was lost, and where it was is good enough again.
                self.record.moving_from = None;
                self.record.arriving = None;
            }
        }
        let running = self.status() == Status::Running && matches!(self.phase, Phase::Up { .. });
        self.phase = Phase::Up { worker, since, named: now };
        self.record.document.worker_id = Some(worker);
        // A report of what was before may come late; an instance that runs has been created.
        if self.status() == status || (running && status == Status::Created) {
            return false;
        }
        self.set(status, self.after_what(detail));
        true
    }

    /// `worker` says that nothing has changed about it. Says whether that is how it is known; if not, it is to be looked at as
    /// if it were named anew.
    pub(super) fn is_still_up(&mut self, worker: Id, now: Instant) -> bool {
        let is_settled = self.status() == Status::Running && self.record.moving_from.is_none();
        match &mut self.phase {
            Phase::Up { worker: at, named, .. } if *at == worker && is_settled => {
                *named = now;
                true
            }
            _ => false,
        }
    }

    /// It ended, or its worker did. It waits for its next attempt, longer after each failure in a row.
    pub(super) fn fail(&mut self, status: Status, reason: &str, now: Instant) {
        if matches!(self.phase, Phase::Up { since, .. } if now.saturating_duration_since(since) >= STABLE) {
            self.record.failures = 0;
        }
        self.record.failures = self.record.failures.saturating_add(1);
        self.failed_on = self.wanted_on();
        let pause = pause(self.record.failures, self.record.service, self.number());
        let failures = self.record.failures;
        let detail = if failures == 1 {
            format!("{reason}; next attempt in {:.0} s", pause.as_secs_f64().max(1.0))
        } else {
            format!(
                "{reason}; failed {failures} times in a row, next attempt in {:.0} s",
                pause.as_secs_f64()
            )
        };
        self.record.left = Some(reason.to_owned());
        self.leave(status, detail, Some(now + pause));
    }

    /// Its worker is gone; through no fault of its own, so it need not wait. That worker may have it back later if the
    /// service wants the original.
    pub(super) fn lose_worker(&mut self, reason: String, reconcile: Reconcile) {
        let address = self.address().cloned();
        self.record.original = match reconcile {
            Reconcile::Original => self.wanted_on().map(|worker| Original { worker, address }),
            Reconcile::Newest => None,
        };
        self.record.left = Some(reason.clone());
        self.leave(Status::Failed, reason, None);
    }

    /// The worker that it was replaced at has come back and runs it: it is to move there from wherever it is now. Says
    /// whether it is.
    pub(super) fn is_reclaimed_by(&mut self, worker: Id) -> bool {
        let Some(now_on) = self.wanted_on().filter(|_| self.record.moving_from.is_none()) else {
            return false;
        };
        let Some(original) = self.record.original.take_if(|original| original.worker == worker) else {
            return false;
        };
        self.move_away(now_on, "Its first worker is back and still runs it");
        self.record.arriving = original.address;
        true
    }

    fn leave(&mut self, status: Status, detail: String, until: Option<Instant>) {
        self.phase = Phase::Waiting { until, no_room: false };
        self.record.document.worker_id = None;
        self.usage = Usage::default();
        self.set(status, detail);
    }

    pub(super) fn complete(&mut self, detail: &str) {
        self.phase = Phase::Completed { worker: self.worker() };
        self.record.address = None;
        self.set(Status::Completed, detail);
    }

    /// Asked to be removed. `None`: it is on no worker, so it is gone already.
    pub(super) fn remove(&mut self, now: Instant) -> Option<Id> {
        self.record.removing = true;
        let worker = match self.phase {
            Phase::Placed { worker, .. } | Phase::Up { worker, .. } => worker,
            Phase::Removing { worker, .. } => return Some(worker),
            Phase::Completed { worker: Some(worker) } => worker,
            Phase::Waiting { .. } | Phase::Completed { worker: None } => return None,
        };
        self.phase = Phase::Removing { worker, told: now, named: now, reports: 0 };
        self.record.document.status_detail = Some("Being removed".to_owned());
        Some(worker)
    }

    /// The document as clients read it, with the last measurements.
    pub(super) fn document(&self) -> Document {
        let Usage { cpu_percent, memory_percent, disk, logs } = self.usage.clone();
        Document { cpu_percent, memory_percent, disk, logs, ..self.record.document.clone() }
    }
}

/// 1 s, 2 s, 4 s, … up to 5 minutes, each shortened or lengthened by up to a quarter: by the instance's own number, so
/// that a hundred instances that failed together do not come back together, and no clock or dice is needed here.
fn pause(failures: u32, service: Id, number: u32) -> Duration {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let doublings = failures.saturating_sub(1).min(16);
    let pause = PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX);
    let mut hasher = DefaultHasher::new();
    (service, number, failures).hash(&mut hasher);
    let spread = u32::try_from(hasher.finish() % 501).unwrap_or(0);
    pause * (750 + spread) / 1000
}

#[cfg(test)]
mod tests;
