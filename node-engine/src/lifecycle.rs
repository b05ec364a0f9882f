//! The jobs of the state machine, carried out: each a few steps on containerd, netmanager and the state directory. A job
//! that fails half way undoes what it did.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use protocol::name::InstanceName;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::assignment::Assignment;
use crate::instance::{Event, Job, Origin};
use crate::logs;
use crate::netmanager::{Netmanager, NetmanagerError};
use crate::process;
use crate::runtime::{Runtime, RuntimeError};
use crate::state::{StateDir, StateError};
use crate::verdict::chain;

/// Starts that are in hand at the same time. More would only make each of them slower on the machines that this runs on;
/// stops are not counted, since most of their time is waiting.
const STARTS_AT_ONCE: usize = 8;

/// How long a shim may take to write down what an ended program said last.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(20);

/// Longer reasons are of no use to the one who reads them in a table.
const REASON_MAX: usize = 1024;

/// What the jobs work on.
#[derive(Debug)]
pub struct Lifecycle {
    runtime: Arc<Runtime>,
    netmanager: Arc<Netmanager>,
    state: Arc<StateDir>,
    starts: Semaphore,
}

#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Netmanager(#[from] NetmanagerError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the process ended before it could be connected")]
    NoProcess,
    #[error("the instance was deleted before its image was here")]
    Cancelled,
}

/// Why an instance was not started, and whether nothing is left of the try.
struct Failure {
    error: JobError,
    undone: bool,
}

impl Failure {
    fn without_trace(error: impl Into<JobError>) -> Self {
        Self { error: error.into(), undone: true }
    }
}

impl Lifecycle {
    #[must_use]
    pub fn new(runtime: Arc<Runtime>, netmanager: Arc<Netmanager>, state: Arc<StateDir>) -> Self {
        Self { runtime, netmanager, state, starts: Semaphore::new(STARTS_AT_ONCE) }
    }

    /// Does `job` for instance `name`. What comes out of it is the state machine's next event. `cancel` ends a start that
    /// still waits for its image, which may be for minutes; all else is short.
    pub async fn run(&self, name: &InstanceName, job: Job, cancel: &CancellationToken) -> Event {
        match job {
            Job::Start(assignment, origin) => self.start(&assignment, origin, cancel).await,
            Job::LastWords => self.last_words(name).await,
            Job::Stop => self.stop(name).await,
            Job::Remove => self.remove(name).await,
        }
    }

    async fn start(&self, assignment: &Arc<Assignment>, origin: Origin, cancel: &CancellationToken) -> Event {
        let name = &assignment.name;
        let began = Instant::now();
        let outcome = match self.remember(assignment).await {
            Ok(()) => self.try_start(assignment, cancel).await,
            Err(error) => Err(Failure::without_trace(error)),
        };
        let Failure { error, undone } = match outcome {
            Ok(pid) => {
                let since = process::start_time(pid).unwrap_or_else(SystemTime::now);
                let took_ms = began.elapsed().as_millis();
                tracing::info!(instance = %name, image = assignment.image, pid, limits = %assignment.limits, took_ms, "instance started");
                return Event::Started { pid, since };
            }
            Err(failure) => failure,
        };
        if origin == Origin::Ordered
            && let Err(error) = self.forget(name).await
        {
            tracing::warn!(instance = %name, error = chain(&error), "record of a failed start is left behind");
        }
        let reason: String = chain(&error).chars().take(REASON_MAX).collect();
        // An ordered start that failed is told of where it is reported.
        match origin {
            Origin::Restored { tries: 0 } => {
                tracing::warn!(instance = %name, reason, "not started again after the reboot; trying on");
            }
            Origin::Ordered | Origin::Restored { .. } => {
                tracing::debug!(instance = %name, reason, "instance not started");
            }
        }
        Event::StartFailed { reason, undone }
    }

    /// The network is there before the program runs, so that its first packet finds its way.
    async fn try_start(&self, assignment: &Assignment, cancel: &CancellationToken) -> Result<u32, Failure> {
        let image = tokio::select! {
            image = self.runtime.image(assignment) => image.map_err(Failure::without_trace)?,
            () = cancel.cancelled() => return Err(Failure::without_trace(JobError::Cancelled)),
        };
        // Not counted while the image is being pulled: others have theirs.
        let _permit = self.starts.acquire().await;
        let pid = self.runtime.create(assignment, &image).await.map_err(Failure::without_trace)?;
        if let Err(error) = self.connect(assignment, pid).await {
            // Where connecting failed, disconnecting most likely will: it is tried for the sake of what was half done.
            if let Err(error) = self.netmanager.detach(&assignment.name).await {
                tracing::debug!(instance = %assignment.name, error = chain(&error), "not detached");
            }
            let undone = self.runtime.remove(&assignment.name).await.is_ok();
            return Err(Failure { error, undone });
        }
        if let Err(error) = self.runtime.start(assignment, &image).await {
            let undone = self.tear_down(&assignment.name).await.is_ok();
            return Err(Failure { error: error.into(), undone });
        }
        Ok(pid)
    }

    async fn connect(&self, assignment: &Assignment, pid: u32) -> Result<(), JobError> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(JobError::NoProcess)?;
        self.netmanager.attach(assignment, pid).await?;
        Ok(())
    }

    /// The shim writes the log as the program writes to its pipe; what came just before the end may still be on its way.
    async fn last_words(&self, name: &InstanceName) -> Event {
        tokio::time::sleep(LAST_WORDS_WITHIN).await;
        let log = self.runtime.log_path(name);
        let last_line = tokio::task::spawn_blocking(move || logs::last_line(&log)).await;
        Event::LastWords(last_line.unwrap_or_default())
    }

    async fn stop(&self, name: &InstanceName) -> Event {
        let began = Instant::now();
        let forgotten = self.forget(name).await;
        let stopped = self.runtime.stop(name).await;
        match forgotten.and(stopped.map_err(JobError::from)) {
            Ok(()) => {
                tracing::info!(instance = %name, took_ms = began.elapsed().as_millis(), "instance stopped");
                Event::Stopped
            }
            Err(error) => Event::StopFailed { reason: chain(&error) },
        }
    }

    async fn remove(&self, name: &InstanceName) -> Event {
        let forgotten = self.forget(name).await;
        match forgotten.and(self.tear_down(name).await) {
            Ok(()) => {
                tracing::info!(instance = %name, "instance removed");
                Event::Removed
            }
            Err(error) => Event::RemoveFailed { reason: chain(&error) },
        }
    }

    /// Network, task, container and snapshot, whatever of them is there. All is tried; the first failure is returned.
    async fn tear_down(&self, name: &InstanceName) -> Result<(), JobError> {
        let detached = self.netmanager.detach(name).await;
        let removed = self.runtime.remove(name).await;
        removed.map_err(JobError::from).and(detached.map_err(JobError::from))
    }

    async fn remember(&self, assignment: &Arc<Assignment>) -> Result<(), JobError> {
        let (state, assignment) = (Arc::clone(&self.state), Arc::clone(assignment));
        on_disk(move || state.remember(&assignment)).await
    }

    async fn forget(&self, name: &InstanceName) -> Result<(), JobError> {
        let (state, name) = (Arc::clone(&self.state), name.clone());
        on_disk(move || state.forget(&name)).await
    }
}

/// A disk may take its time; meanwhile the other instances go on.
async fn on_disk(work: impl FnOnce() -> Result<(), StateError> + Send + 'static) -> Result<(), JobError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(JobError::from)
}
