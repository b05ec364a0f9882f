//! Every step that an instance can take, state by state.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use protocol::status::Status;

use super::{EarlyEnd, Event, Found, Job, Next, Origin, State, Transition, Work};
use crate::assignment::Assignment;
use crate::backoff::nth_delay;
use crate::verdict::{Exit, verdict};

/// A restored start is tried again after 2 s at first, a stop or a removal after 1 s; all at last every minute.
const RESTORE_DELAY: Duration = Duration::from_secs(2);
const CLEAR_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

impl Transition {
    fn to(state: State) -> Self {
        Self { state: Some(state), ..Self::default() }
    }

    fn gone() -> Self {
        Self::default()
    }

    fn report(mut self, status: Status, detail: impl Into<String>) -> Self {
        self.reports.push((status, detail.into()));
        self
    }

    fn job(mut self, job: Job) -> Self {
        self.job = Some(job);
        self
    }
}

impl Work {
    fn failed(self) -> (Self, Duration) {
        let delay = nth_delay(CLEAR_DELAY, LONGEST_DELAY, self.failures);
        (Self { failures: self.failures.saturating_add(1), waiting: true }, delay)
    }
}

/// What `event` makes of an instance that stands at `state`; `None` is an instance that is not here.
#[must_use]
pub fn step(state: Option<State>, event: Event) -> Transition {
    let Some(state) = state else { return absent(event) };
    match state {
        State::Unexamined { assignment, next } => unexamined(assignment, next, event),
        State::Starting { assignment, origin, ended_early, next } => {
            starting(assignment, origin, ended_early, next, event)
        }
        State::Waiting { assignment, tries } => waiting(assignment, tries, event),
        State::Running { assignment, pid, since, out_of_memory } => {
            running(assignment, pid, since, out_of_memory, event)
        }
        State::Ended { assignment, exit, next } => ended(assignment, exit, next, event),
        State::Stopping { assignment, work, next } => stopping(assignment, work, next, event),
        State::Removing { assignment, work, next } => removing(assignment, work, next, event),
    }
}

fn start(assignment: Arc<Assignment>, origin: Origin) -> Transition {
    let job = Job::Start(Arc::clone(&assignment), origin);
    Transition::to(State::Starting { assignment, origin, ended_early: None, next: Next::Nothing }).job(job)
}

fn stop(assignment: Arc<Assignment>, next: Next) -> Transition {
    Transition::to(State::Stopping { assignment, work: Work::default(), next }).job(Job::Stop)
}

/// Clears away an instance whose process is gone. The cluster is told of an undeployment that it asked for: to it, the
/// instance is gone with its process.
fn remove(assignment: Arc<Assignment>, next: Next) -> Transition {
    let undeployed = next == Next::Stop;
    let next = if undeployed { Next::Nothing } else { next };
    let transition =
        Transition::to(State::Removing { assignment, work: Work::default(), next }).job(Job::Remove);
    if undeployed { transition.report(Status::Undeployed, "") } else { transition }
}

fn conclude(assignment: Arc<Assignment>, exit: Exit, next: Next) -> Transition {
    Transition::to(State::Ended { assignment, exit, next }).job(Job::LastWords)
}

fn run(assignment: Arc<Assignment>, pid: u32, since: SystemTime) -> Transition {
    Transition::to(State::Running { assignment, pid, since, out_of_memory: false })
        .report(Status::Created, "")
}

fn absent(event: Event) -> Transition {
    match event {
        Event::Deploy(assignment) => start(assignment, Origin::Ordered),
        Event::Delete => Transition::gone().report(Status::Undeployed, ""),
        _ => Transition::gone(),
    }
}

fn unexamined(assignment: Arc<Assignment>, next: Next, event: Event) -> Transition {
    let unobserved = Exit { code: None, since: None, at: None, out_of_memory: false };
    match event {
        Event::Deploy(_) => Transition::to(State::Unexamined { assignment, next: Next::Nothing }),
        Event::Delete => Transition::to(State::Unexamined { assignment, next: Next::Stop }),
        Event::Found(_) if next == Next::Stop => stop(assignment, Next::Nothing),
        Event::Found(Found::Running { pid, since }) => run(assignment, pid, since),
        Event::Found(Found::Stopped { code, at }) => {
            conclude(assignment, Exit { code: Some(code), at: Some(at), ..unobserved }, next)
        }
        Event::Found(Found::Vanished) => conclude(assignment, unobserved, next),
        Event::Found(Found::Unfinished) => start(assignment, Origin::Ordered),
        Event::Found(Found::Rebooted) => start(assignment, Origin::Restored { tries: 0 }),
        Event::Found(Found::Leftover) => remove(assignment, next),
        _ => Transition::to(State::Unexamined { assignment, next }),
    }
}

fn starting(
    assignment: Arc<Assignment>,
    origin: Origin,
    ended_early: Option<EarlyEnd>,
    next: Next,
    event: Event,
) -> Transition {
    let stay = |assignment, ended_early, next| {
        Transition::to(State::Starting { assignment, origin, ended_early, next })
    };
    match event {
        // The same deployment again, unless it was taken back meanwhile: then it is a new one.
        Event::Deploy(again) => {
            let next = if next == Next::Nothing { Next::Nothing } else { Next::Start(again) };
            stay(assignment, ended_early, next)
        }
        Event::Delete => stay(assignment, ended_early, Next::Stop),
        Event::Exited { pid, code, at } => stay(assignment, Some(EarlyEnd { pid, code, at }), next),
        Event::Started { pid, since } => match (next, ended_early) {
            (Next::Stop, _) => stop(assignment, Next::Nothing),
            (Next::Start(again), _) => stop(assignment, Next::Start(again)),
            (Next::Nothing, Some(end)) if end.pid == pid => {
                let exit =
                    Exit { code: Some(end.code), since: Some(since), at: Some(end.at), out_of_memory: false };
                conclude(assignment, exit, Next::Nothing)
            }
            (Next::Nothing, _) => run(assignment, pid, since),
        },
        Event::StartFailed { reason, undone } => start_failed(assignment, origin, next, reason, undone),
        _ => stay(assignment, ended_early, next),
    }
}

fn start_failed(
    assignment: Arc<Assignment>,
    origin: Origin,
    next: Next,
    reason: String,
    undone: bool,
) -> Transition {
    match (next, origin) {
        (Next::Nothing, Origin::Restored { tries }) => {
            let delay = nth_delay(RESTORE_DELAY, LONGEST_DELAY, tries);
            let state = State::Waiting { assignment, tries: tries.saturating_add(1) };
            Transition { retry: Some(delay), ..Transition::to(state) }
        }
        (Next::Nothing, Origin::Ordered) if undone => Transition::gone().report(Status::Failed, reason),
        (Next::Nothing, Origin::Ordered) => remove(assignment, Next::Nothing).report(Status::Failed, reason),
        (Next::Start(again), _) => start(again, Origin::Ordered),
        // Also when nothing is left of the container: its record may be.
        (Next::Stop, _) => remove(assignment, Next::Stop),
    }
}

fn waiting(assignment: Arc<Assignment>, tries: u32, event: Event) -> Transition {
    match event {
        Event::Deploy(assignment) => start(assignment, Origin::Ordered),
        Event::Delete => remove(assignment, Next::Stop),
        Event::Retry => start(assignment, Origin::Restored { tries }),
        _ => Transition::to(State::Waiting { assignment, tries }),
    }
}

fn running(
    assignment: Arc<Assignment>,
    pid: u32,
    since: SystemTime,
    out_of_memory: bool,
    event: Event,
) -> Transition {
    match event {
        // Not a failure, as it is with Oakestra: the cluster may have missed that it runs.
        Event::Deploy(_) => Transition::to(State::Running { assignment, pid, since, out_of_memory })
            .report(Status::Created, ""),
        Event::Delete => stop(assignment, Next::Nothing),
        // The pid tells the end of this process from a late word about one before it.
        Event::Exited { pid: ended, code, at } if ended == pid => {
            let exit = Exit { code: Some(code), since: Some(since), at: Some(at), out_of_memory };
            conclude(assignment, exit, Next::Nothing)
        }
        Event::Vanished { pid: ended } if ended == pid => {
            let exit = Exit { code: None, since: Some(since), at: None, out_of_memory };
            conclude(assignment, exit, Next::Nothing)
        }
        Event::OutOfMemory => Transition::to(State::Running { assignment, pid, since, out_of_memory: true }),
        _ => Transition::to(State::Running { assignment, pid, since, out_of_memory }),
    }
}

fn ended(assignment: Arc<Assignment>, exit: Exit, next: Next, event: Event) -> Transition {
    match event {
        Event::Deploy(again) => Transition::to(State::Ended { assignment, exit, next: Next::Start(again) }),
        Event::Delete => Transition::to(State::Ended { assignment, exit, next: Next::Stop }),
        // The word on memory may come after that on the exit.
        Event::OutOfMemory => {
            Transition::to(State::Ended { assignment, exit: Exit { out_of_memory: true, ..exit }, next })
        }
        Event::LastWords(line) => {
            let (status, detail) = verdict(&assignment, &exit, &line);
            let mut transition = remove(assignment, next);
            transition.reports.insert(0, (status, detail));
            transition
        }
        _ => Transition::to(State::Ended { assignment, exit, next }),
    }
}

fn stopping(assignment: Arc<Assignment>, work: Work, next: Next, event: Event) -> Transition {
    match event {
        Event::Deploy(again) => {
            Transition::to(State::Stopping { assignment, work, next: Next::Start(again) })
        }
        Event::Delete => Transition::to(State::Stopping { assignment, work, next: Next::Nothing }),
        Event::Stopped => {
            let mut transition = remove(assignment, next);
            transition.reports.insert(0, (Status::Undeployed, String::new()));
            transition
        }
        Event::StopFailed { .. } => {
            let (work, delay) = work.failed();
            let state = State::Stopping { assignment, work, next };
            Transition { retry: Some(delay), ..Transition::to(state) }
        }
        Event::Retry if work.waiting => {
            let work = Work { waiting: false, ..work };
            Transition::to(State::Stopping { assignment, work, next }).job(Job::Stop)
        }
        _ => Transition::to(State::Stopping { assignment, work, next }),
    }
}

fn removing(assignment: Arc<Assignment>, work: Work, next: Next, event: Event) -> Transition {
    match event {
        Event::Deploy(again) => {
            Transition::to(State::Removing { assignment, work, next: Next::Start(again) })
        }
        Event::Delete => Transition::to(State::Removing { assignment, work, next: Next::Nothing })
            .report(Status::Undeployed, ""),
        Event::Removed => match next {
            Next::Start(again) => start(again, Origin::Ordered),
            Next::Nothing | Next::Stop => Transition::gone(),
        },
        Event::RemoveFailed { .. } => {
            let (work, delay) = work.failed();
            let state = State::Removing { assignment, work, next };
            Transition { retry: Some(delay), ..Transition::to(state) }
        }
        Event::Retry if work.waiting => {
            let work = Work { waiting: false, ..work };
            Transition::to(State::Removing { assignment, work, next }).job(Job::Remove)
        }
        _ => Transition::to(State::Removing { assignment, work, next }),
    }
}
