//! The life of one instance, as a pure state machine: what happened goes in, what is to be reported and done comes out.
//!
//! ```text
//!            Deploy             Started            Exited           LastWords            Removed
//!  (absent) ───────► Starting ──────────► Running ─────────► Ended ───────────► Removing ────────► (absent)
//!                       │                    │ Delete                              ▲
//!                       │ StartFailed        └──────────────► Stopping ────────────┘
//!                       ▼                                                Stopped
//!                   (absent), or Waiting for the next try when a reboot is the cause of the start
//! ```
//!
//! Each instance has at most one [`Job`] in hand. A command that arrives meanwhile is kept as what comes `next`, so
//! that the last word of the cluster wins and no two jobs ever touch the same container.

mod step;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use protocol::status::Status;

use crate::assignment::Assignment;
use crate::verdict::Exit;

pub use self::step::step;

/// Where an instance stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Known from the record of a former run; the runtime has not yet been asked what is left of it.
    Unexamined {
        assignment: Arc<Assignment>,
        next: Next,
    },
    /// [`Job::Start`] is in hand. The process may end before the word that it started arrives.
    Starting {
        assignment: Arc<Assignment>,
        origin: Origin,
        ended_early: Option<EarlyEnd>,
        next: Next,
    },
    /// A restored start failed and will be tried again.
    Waiting {
        assignment: Arc<Assignment>,
        tries: u32,
    },
    Running {
        assignment: Arc<Assignment>,
        pid: u32,
        since: SystemTime,
        out_of_memory: bool,
    },
    /// The process has ended by itself; [`Job::LastWords`] is in hand.
    Ended {
        assignment: Arc<Assignment>,
        exit: Exit,
        next: Next,
    },
    /// The cluster wants it gone; [`Job::Stop`] is in hand, or waits for its next try.
    Stopping {
        assignment: Arc<Assignment>,
        work: Work,
        next: Next,
    },
    /// The process is gone; [`Job::Remove`] is in hand, or waits for its next try.
    Removing {
        assignment: Arc<Assignment>,
        work: Work,
        next: Next,
    },
}

/// The end of a process of which it is not yet known that it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyEnd {
    pub pid: u32,
    pub code: u32,
    pub at: SystemTime,
}

/// What the cluster asked for while a job was in hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Next {
    #[default]
    Nothing,
    Stop,
    Start(Arc<Assignment>),
}

/// A job that is repeated until it succeeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    pub failures: u32,
    /// The job is not in hand: the time until its next try is.
    pub waiting: bool,
}

/// Why an instance is being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The cluster says so: a failure is reported, and what follows is the cluster's decision.
    Ordered,
    /// It ran before the machine was rebooted: there may be no cluster in reach, so it is tried until it works.
    Restored { tries: u32 },
}

/// What happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Deploy(Arc<Assignment>),
    Delete,
    /// What the runtime has of an instance that an earlier run of this daemon started.
    Found(Found),
    Started {
        pid: u32,
        since: SystemTime,
    },
    StartFailed {
        reason: String,
        undone: bool,
    },
    /// The first process of the container ended.
    Exited {
        pid: u32,
        code: u32,
        at: SystemTime,
    },
    /// The process is not there any more, and nobody said how it ended.
    Vanished {
        pid: u32,
    },
    OutOfMemory,
    LastWords(String),
    Stopped,
    StopFailed {
        reason: String,
    },
    Removed,
    RemoveFailed {
        reason: String,
    },
    /// The time of [`Transition::retry`] has passed.
    Retry,
}

/// What is left of an instance when the daemon starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Running {
        pid: u32,
        since: SystemTime,
    },
    Stopped {
        code: u32,
        at: SystemTime,
    },
    /// No process, and it is not known how it ended.
    Vanished,
    /// The daemon ended in the middle of a start.
    Unfinished,
    /// The machine was booted since.
    Rebooted,
    /// Parts of a container that nobody wants to run.
    Leftover,
}

/// Work on the container of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Records the assignment, then creates and starts the container. Undoes its own failure; forgets the record of
    /// an ordered start that failed.
    Start(Arc<Assignment>, Origin),
    /// Reads the last line of an ended instance's log.
    LastWords,
    /// Forgets the record, and ends the program.
    Stop,
    /// Forgets the record, and removes network, task, container and snapshot.
    Remove,
}

/// What follows from an event. No state: the instance is gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transition {
    pub state: Option<State>,
    pub reports: Vec<(Status, String)>,
    pub job: Option<Job>,
    pub retry: Option<Duration>,
}
