//! Drives every instance through its state machine: one loop that owns all states, with the jobs beside it.
//!
//! The loop never waits for a job. So a container that takes its time to stop, an image that is being pulled and a
//! netmanager that does not answer each hold up one instance only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use protocol::name::InstanceName;
use protocol::status::Status;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::assignment::Assignment;
use crate::instance::{Event, Job, Next, State, Transition, step};
use crate::lifecycle::Lifecycle;
use crate::process;
use crate::recovery::{Missed, Observed, examine, missed};
use crate::report::Live;
use crate::runtime::{Known, Runtime, RuntimeError, RuntimeEvent, Task};
use crate::state::Record;
use crate::verdict::chain;

/// What the cluster asks for.
#[derive(Debug)]
pub enum Command {
    Deploy(Assignment),
    Delete(InstanceName),
    /// A deployment that cannot be carried out at all, and why.
    Refuse(InstanceName, String),
}

/// What containerd tells.
#[derive(Debug)]
pub enum Notice {
    /// Events come from now on; what happened before must be looked up.
    Connected,
    Event(RuntimeEvent),
}

/// What became of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChange {
    pub name: InstanceName,
    pub status: Status,
    pub detail: String,
}

/// A job in hand is finished after the order to stop, if it does not take longer than this: half a container is no state
/// to leave behind, but nothing is worth blocking a shutdown.
const FINISH_WITHIN: Duration = Duration::from_secs(8);

/// containerd answered the events but not the question what there is: ask again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What a task of the loop brings back.
#[derive(Debug)]
enum Outcome {
    /// A job or a timer of an instance.
    Instance(InstanceName, Event),
    Looked(Look),
    LookAgain,
}

/// What containerd has, and what was expected when it was asked: process ids of running instances. An instance that
/// was started while the answer was on its way is not among them, and not taken for a missing one.
#[derive(Debug)]
struct Look {
    expected: HashMap<InstanceName, u32>,
    found: Result<Vec<(Known, Option<Task>)>, RuntimeError>,
}

/// The loop's own state.
#[derive(Debug)]
pub struct Reconciler {
    lifecycle: Arc<Lifecycle>,
    runtime: Arc<Runtime>,
    boot_id: String,
    instances: HashMap<InstanceName, State>,
    /// What a former run left, until containerd was asked what has become of it.
    records: Option<HashMap<InstanceName, Record>>,
    work: JoinSet<Outcome>,
    /// What each job is for, in case that it panics.
    jobs: HashMap<Id, (InstanceName, Job)>,
    /// Takes back the start of an instance that is in hand.
    starts: HashMap<InstanceName, CancellationToken>,
    changes: mpsc::UnboundedSender<StatusChange>,
    live: watch::Sender<Vec<Live>>,
}

impl Reconciler {
    #[must_use]
    pub fn new(
        lifecycle: Arc<Lifecycle>,
        runtime: Arc<Runtime>,
        boot_id: String,
        records: Vec<Record>,
        changes: mpsc::UnboundedSender<StatusChange>,
        live: watch::Sender<Vec<Live>>,
    ) -> Self {
        let records: HashMap<_, _> =
            records.into_iter().map(|record| (record.assignment.name.clone(), record)).collect();
        let unexamined = |record: &Record| State::Unexamined {
            assignment: Arc::new(record.assignment.clone()),
            next: Next::Nothing,
        };
        Self {
            lifecycle,
            runtime,
            boot_id,
            instances: records.iter().map(|(name, record)| (name.clone(), unexamined(record))).collect(),
            records: Some(records),
            work: JoinSet::new(),
            jobs: HashMap::new(),
            starts: HashMap::new(),
            changes,
            live,
        }
    }

    /// Runs until `shutdown`. Containers keep running after it.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut notices: mpsc::Receiver<Notice>,
        shutdown: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(command) = commands.recv() => self.obey(command),
                Some(notice) = notices.recv() => self.heed(notice),
                Some(done) = self.work.join_next_with_id() => self.conclude(done, true),
            }
        }
        let finish = async {
            while !self.jobs.is_empty() {
                let Some(done) = self.work.join_next_with_id().await else { break };
                self.conclude(done, false);
            }
        };
        if tokio::time::timeout(FINISH_WITHIN, finish).await.is_err() {
            tracing::warn!("stopped in the middle of a job; the next run will clear up");
        }
        self.work.shutdown().await;
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Deploy(assignment) => {
                let name = assignment.name.clone();
                tracing::info!(instance = %name, image = assignment.image, "deploy");
                self.apply(&name, Event::Deploy(Arc::new(assignment)), true);
            }
            Command::Delete(name) => {
                tracing::info!(instance = %name, "delete");
                if let Some(start) = self.starts.get(&name) {
                    start.cancel();
                }
                self.apply(&name, Event::Delete, true);
            }
            Command::Refuse(name, reason) => {
                self.report(&name, Status::Failed, reason);
            }
        }
    }

    fn heed(&mut self, notice: Notice) {
        match notice {
            Notice::Connected => self.look(),
            Notice::Event(RuntimeEvent::Exited { name, pid, code, at }) => {
                self.apply(&name, Event::Exited { pid, code, at }, true);
            }
            Notice::Event(RuntimeEvent::OutOfMemory { name }) => {
                self.apply(&name, Event::OutOfMemory, true);
            }
        }
    }

    fn conclude(&mut self, done: Result<(Id, Outcome), JoinError>, more: bool) {
        match done {
            Ok((id, outcome)) => {
                if let Some((name, Job::Start(..))) = self.jobs.remove(&id) {
                    self.starts.remove(&name);
                }
                match outcome {
                    Outcome::Instance(name, event) => self.apply(&name, event, more),
                    Outcome::Looked(look) => self.take_in(look),
                    Outcome::LookAgain => self.look(),
                }
            }
            Err(error) => {
                let Some((name, job)) = self.jobs.remove(&error.id()) else { return };
                tracing::error!(instance = %name, ?job, %error, "job ended in a panic");
                let event = match job {
                    Job::Start(..) => Event::StartFailed {
                        reason: "internal error of node-engine; its log has more".to_owned(),
                        undone: false,
                    },
                    Job::LastWords => Event::LastWords(String::new()),
                    Job::Stop => Event::StopFailed { reason: error.to_string() },
                    Job::Remove => Event::RemoveFailed { reason: error.to_string() },
                };
                self.apply(&name, event, more);
            }
        }
    }

    /// Lets `event` happen to the instance. Without `more`, jobs and timers that follow are left to the next run.
    fn apply(&mut self, name: &InstanceName, event: Event, more: bool) {
        let before = self.instances.remove(name);
        tracing::trace!(instance = %name, ?event, ?before, "event");
        tell_failure(name, before.as_ref(), &event);
        let Transition { state, reports, job, retry } = step(before, event);
        if let Some(state) = state {
            self.instances.insert(name.clone(), state);
        }
        for (status, detail) in reports {
            self.report(name, status, detail);
        }
        self.publish_live();
        if !more {
            return;
        }
        if let Some(job) = job {
            self.begin(name, job);
        }
        if let Some(delay) = retry {
            let name = name.clone();
            self.work.spawn(async move {
                tokio::time::sleep(delay).await;
                Outcome::Instance(name, Event::Retry)
            });
        }
    }

    fn begin(&mut self, name: &InstanceName, job: Job) {
        let cancel = CancellationToken::new();
        self.starts.remove(name);
        if matches!(job, Job::Start(..)) {
            self.starts.insert(name.clone(), cancel.clone());
        }
        let task = {
            let (lifecycle, name, job) = (Arc::clone(&self.lifecycle), name.clone(), job.clone());
            self.work.spawn(async move {
                let event = lifecycle.run(&name, job, &cancel).await;
                Outcome::Instance(name, event)
            })
        };
        self.jobs.insert(task.id(), (name.clone(), job));
    }

    fn report(&self, name: &InstanceName, status: Status, detail: String) {
        let word = status.as_str();
        match status {
            Status::Failed | Status::Dead => {
                tracing::warn!(instance = %name, status = word, detail, "status")
            }
            _ => tracing::info!(instance = %name, status = word, detail, "status"),
        }
        // Nobody listens only when the daemon is about to end.
        self.changes.send(StatusChange { name: name.clone(), status, detail }).ok();
    }

    fn publish_live(&self) {
        // What is being stopped runs still: who leaves it out says that it is gone.
        let before = self.live.borrow().clone();
        let live = self.instances.iter().filter_map(|(name, state)| match state {
            State::Running { pid, .. } => {
                Some(Live { name: name.clone(), pid: *pid, log: self.runtime.log_path(name) })
            }
            State::Stopping { .. } => before.iter().find(|live| live.name == *name).cloned(),
            _ => None,
        });
        let mut live: Vec<Live> = live.collect();
        live.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        self.live.send_if_modified(|present| {
            let changed = *present != live;
            *present = live;
            changed
        });
    }

    fn look(&mut self) {
        let running = |(name, state): (&InstanceName, &State)| match state {
            State::Running { pid, .. } => Some((name.clone(), *pid)),
            _ => None,
        };
        let expected = self.instances.iter().filter_map(running).collect();
        let runtime = Arc::clone(&self.runtime);
        self.work.spawn(async move { Outcome::Looked(Look { expected, found: runtime.list().await }) });
    }

    fn take_in(&mut self, look: Look) {
        let found = match look.found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot see what runs; asking again");
                self.work.spawn(async {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    Outcome::LookAgain
                });
                return;
            }
        };
        if let Some(records) = self.records.take() {
            self.recover(&records, found);
            return;
        }
        let tasks =
            found.into_iter().filter_map(|(known, task)| Some((known.assignment.name, task?))).collect();
        for (name, missed) in missed(&look.expected, &tasks) {
            let event = match missed {
                Missed::Exited { pid, code, at } => Event::Exited { pid, code, at },
                Missed::Vanished { pid } => Event::Vanished { pid },
            };
            self.apply(name, event, true);
        }
    }

    /// The first look after the start: adopts what runs, concludes what ended, starts again what a reboot interrupted.
    fn recover(&mut self, records: &HashMap<InstanceName, Record>, found: Vec<(Known, Option<Task>)>) {
        let mut observed: HashMap<InstanceName, Observed> =
            records.keys().map(|name| (name.clone(), Observed::Nothing)).collect();
        for (known, task) in found {
            let name = known.assignment.name.clone();
            // Known by its labels only, unless there is a record. Not when it was deployed a moment ago.
            self.instances.entry(name.clone()).or_insert_with(|| State::Unexamined {
                assignment: Arc::new(known.assignment),
                next: Next::Nothing,
            });
            observed.insert(name, task.map_or(Observed::Container, Observed::Task));
        }
        let since = |pid| process::start_time(pid).unwrap_or_else(SystemTime::now);
        let found: Vec<_> = observed
            .iter()
            .map(|(name, observed)| (name, examine(records.get(name), observed, &self.boot_id, since)))
            .collect();
        if !found.is_empty() {
            tracing::info!(instances = found.len(), "taking up the instances of the run before");
        }
        for (name, found) in found {
            tracing::info!(instance = %name, ?found, "found");
            self.apply(name, Event::Found(found), true);
        }
    }
}

/// The first time that something cannot be cleared away is worth a line; the tries after it are not.
fn tell_failure(name: &InstanceName, state: Option<&State>, event: &Event) {
    let (Event::StopFailed { reason } | Event::RemoveFailed { reason }) = event else { return };
    let first = matches!(
        state,
        Some(State::Stopping { work, .. } | State::Removing { work, .. }) if work.failures == 0
    );
    if first {
        tracing::warn!(instance = %name, reason, "instance not cleared away; trying on");
    } else {
        tracing::debug!(instance = %name, reason, "instance not cleared away yet");
    }
}
