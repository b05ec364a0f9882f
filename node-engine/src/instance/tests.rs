use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use protocol::status::Status;

use super::{Event, Found, Job, Next, Origin, State, Transition, Work, step};
use crate::assignment::Assignment;

const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

fn assignment(image: &str) -> Arc<Assignment> {
    let message = format!(r#"{{"job_name":"a.b.c.d","instance_number":1,"code":"{image}"}}"#);
    Arc::new(Assignment::parse(message.as_bytes()).unwrap())
}

fn deploy() -> Event {
    Event::Deploy(assignment("x"))
}

fn started() -> Event {
    Event::Started { pid: 7, since: EPOCH }
}

fn exited(code: u32) -> Event {
    Event::Exited { pid: 7, code, at: EPOCH + Duration::from_secs(60) }
}

fn start_failed() -> Event {
    Event::StartFailed { reason: "no such image".to_owned(), undone: true }
}

fn stop_failed() -> Event {
    Event::StopFailed { reason: String::new() }
}

fn remove_failed() -> Event {
    Event::RemoveFailed { reason: String::new() }
}

fn last_words() -> Event {
    Event::LastWords("bye".to_owned())
}

/// Lets `events` happen one after the other; returns where that leads, and all that was reported.
fn history(events: impl IntoIterator<Item = Event>) -> (Transition, Vec<Status>) {
    let mut reports = Vec::new();
    let mut transition = Transition::default();
    for event in events {
        transition = step(transition.state, event);
        reports.extend(transition.reports.iter().map(|(status, _)| *status));
    }
    (transition, reports)
}

#[test]
fn each_history_leads_to_its_job_and_its_reports() {
    use Status::{Created, Dead, Failed, Undeployed};
    let other = || Event::Deploy(assignment("y"));
    let start = |image| Some(Job::Start(assignment(image), Origin::Ordered));
    let unfinished = || Event::StartFailed { reason: String::new(), undone: false };
    for (events, job, reports) in [
        (vec![deploy()], start("x"), vec![]),
        (vec![deploy(), started()], None, vec![Created]),
        (vec![deploy(), started(), deploy()], None, vec![Created, Created]),
        (vec![deploy(), start_failed()], None, vec![Failed]),
        (vec![deploy(), unfinished()], Some(Job::Remove), vec![Failed]),
        (vec![deploy(), start_failed(), deploy()], start("x"), vec![Failed]),
        (vec![Event::Delete], None, vec![Undeployed]),
        // Deleted while it starts.
        (vec![deploy(), Event::Delete], None, vec![]),
        (vec![deploy(), Event::Delete, started()], Some(Job::Stop), vec![]),
        (vec![deploy(), Event::Delete, start_failed()], Some(Job::Remove), vec![Undeployed]),
        (vec![deploy(), Event::Delete, other(), start_failed()], start("y"), vec![]),
        (vec![deploy(), Event::Delete, other(), started()], Some(Job::Stop), vec![]),
        // Deleted while it runs.
        (vec![deploy(), started(), Event::Delete], Some(Job::Stop), vec![Created]),
        (vec![deploy(), started(), Event::Delete, exited(143)], None, vec![Created]),
        (
            vec![deploy(), started(), Event::Delete, Event::Stopped],
            Some(Job::Remove),
            vec![Created, Undeployed],
        ),
        (
            vec![deploy(), started(), Event::Delete, stop_failed(), Event::Retry],
            Some(Job::Stop),
            vec![Created],
        ),
        (
            vec![deploy(), started(), Event::Delete, Event::Stopped, remove_failed(), Event::Retry],
            Some(Job::Remove),
            vec![Created, Undeployed],
        ),
        (
            vec![deploy(), started(), Event::Delete, other(), Event::Stopped, Event::Removed],
            start("y"),
            vec![Created, Undeployed],
        ),
        // Ended by itself.
        (vec![deploy(), started(), exited(1)], Some(Job::LastWords), vec![Created]),
        (vec![deploy(), started(), exited(1), last_words()], Some(Job::Remove), vec![Created, Dead]),
        (vec![deploy(), exited(1), started()], Some(Job::LastWords), vec![]),
        (vec![deploy(), exited(1), started(), last_words()], Some(Job::Remove), vec![Dead]),
        (
            vec![deploy(), started(), exited(1), Event::Delete, last_words()],
            Some(Job::Remove),
            vec![Created, Dead, Undeployed],
        ),
        (
            vec![deploy(), started(), exited(1), last_words(), deploy(), Event::Removed],
            start("x"),
            vec![Created, Dead],
        ),
        (
            vec![deploy(), started(), exited(1), last_words(), Event::Delete],
            None,
            vec![Created, Dead, Undeployed],
        ),
        (
            vec![deploy(), started(), Event::Vanished { pid: 7 }, last_words()],
            Some(Job::Remove),
            vec![Created, Dead],
        ),
    ] {
        let (transition, reported) = history(events.clone());
        assert_eq!(transition.job, job, "{events:?}");
        assert_eq!(reported, reports, "{events:?}");
    }
}

#[test]
fn a_late_word_about_an_earlier_process_changes_nothing() {
    for late in [
        Event::Exited { pid: 6, code: 1, at: EPOCH },
        Event::Vanished { pid: 6 },
        Event::Retry,
        Event::Removed,
    ] {
        let (transition, _) = history([deploy(), started(), late]);
        assert!(matches!(transition.state, Some(State::Running { pid: 7, .. })));
    }
}

#[test]
fn what_a_former_run_left_is_taken_up() {
    let found = |found, next: Next| {
        let state = State::Unexamined { assignment: assignment("x"), next };
        let Transition { state, reports, job, .. } = step(Some(state), Event::Found(found));
        (state.is_some(), reports.first().map(|(status, _)| *status), job)
    };
    let running = || Found::Running { pid: 7, since: EPOCH };
    let restored = Job::Start(assignment("x"), Origin::Restored { tries: 0 });
    let ordered = Job::Start(assignment("x"), Origin::Ordered);
    for (what, next, report, job) in [
        (running(), Next::Nothing, Some(Status::Created), None),
        (running(), Next::Stop, None, Some(Job::Stop)),
        (Found::Stopped { code: 0, at: EPOCH }, Next::Nothing, None, Some(Job::LastWords)),
        (Found::Vanished, Next::Nothing, None, Some(Job::LastWords)),
        (Found::Unfinished, Next::Nothing, None, Some(ordered)),
        (Found::Rebooted, Next::Nothing, None, Some(restored)),
        (Found::Rebooted, Next::Stop, None, Some(Job::Stop)),
        (Found::Leftover, Next::Nothing, None, Some(Job::Remove)),
    ] {
        assert_eq!(found(what.clone(), next.clone()), (true, report, job), "{what:?}, {next:?}");
    }
}

#[test]
fn a_restored_start_is_tried_until_it_works_or_is_not_wanted() {
    let waiting = State::Waiting { assignment: assignment("x"), tries: 3 };
    let Transition { job, .. } = step(Some(waiting.clone()), Event::Retry);
    assert_eq!(job, Some(Job::Start(assignment("x"), Origin::Restored { tries: 3 })));
    let starting = step(Some(waiting.clone()), Event::Retry).state;
    let failed = step(starting, start_failed());
    assert_eq!(failed.state, Some(State::Waiting { assignment: assignment("x"), tries: 4 }));
    assert!(failed.retry > Some(Duration::from_secs(2)) && failed.reports.is_empty());
    let deleted = step(Some(waiting), Event::Delete);
    assert_eq!((deleted.job, deleted.reports[0].0), (Some(Job::Remove), Status::Undeployed));
}

#[test]
fn tries_get_rarer_but_never_end() {
    let mut state =
        Some(State::Removing { assignment: assignment("x"), work: Work::default(), next: Next::Nothing });
    let mut delays = Vec::new();
    for _ in 0..9 {
        let failed = step(state, remove_failed());
        delays.push(failed.retry.unwrap().as_secs());
        let again = step(failed.state, Event::Retry);
        assert_eq!(again.job, Some(Job::Remove));
        state = again.state;
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
}

/// What may happen next, whatever the state: a word of the cluster or of containerd, or the end of what is in hand.
#[derive(Debug, Clone)]
enum Move {
    Deploy,
    Delete,
    Exit,
    OutOfMemory,
    Finish { well: bool },
    TimePasses,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        Just(Move::Deploy),
        Just(Move::Delete),
        Just(Move::Exit),
        Just(Move::OutOfMemory),
        any::<bool>().prop_map(|well| Move::Finish { well }),
        Just(Move::TimePasses),
    ];
    prop::collection::vec(one, 0..40)
}

/// An instance with the job that is in hand for it, and the timer that runs.
#[derive(Default)]
struct Simulation {
    state: Option<State>,
    job: Option<Job>,
    timer: bool,
    reports: Vec<Status>,
}

impl Simulation {
    fn happen(&mut self, event: Event) {
        let Transition { state, reports, job, retry } = step(self.state.take(), event);
        self.state = state;
        self.reports.extend(reports.into_iter().map(|(status, _)| status));
        if let Some(job) = job {
            assert_eq!(self.job, None, "two jobs at once");
            self.job = Some(job);
        }
        self.timer |= retry.is_some();
    }

    fn finish(&mut self, well: bool) {
        let event = match self.job.take() {
            None => return,
            Some(Job::Start(..)) if well => started(),
            Some(Job::Start(..)) => start_failed(),
            Some(Job::LastWords) => last_words(),
            Some(Job::Stop) if well => Event::Stopped,
            Some(Job::Stop) => stop_failed(),
            Some(Job::Remove) if well => Event::Removed,
            Some(Job::Remove) => remove_failed(),
        };
        self.happen(event);
    }

    fn make(&mut self, what: &Move) {
        match what {
            Move::Deploy => self.happen(deploy()),
            Move::Delete => self.happen(Event::Delete),
            Move::Exit => self.happen(exited(1)),
            Move::OutOfMemory => self.happen(Event::OutOfMemory),
            Move::Finish { well } => self.finish(*well),
            Move::TimePasses if std::mem::take(&mut self.timer) => self.happen(Event::Retry),
            Move::TimePasses => {}
        }
    }

    /// Everything that is begun ends well.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.make(&Move::TimePasses);
            self.finish(true);
        }
        assert_eq!(self.job, None, "work without end");
    }
}

proptest! {
    #[test]
    fn whatever_happened_the_last_word_of_the_cluster_wins(history in moves(), wanted in any::<bool>()) {
        let mut simulation = Simulation::default();
        for what in &history {
            simulation.make(what);
        }
        simulation.make(if wanted { &Move::Deploy } else { &Move::Delete });
        simulation.settle();
        let last = simulation.reports.last().copied();
        if wanted {
            // A process that had ended before the word that it started came, or that nobody knew yet to be dead, is
            // reported so; anything else runs.
            let told = matches!(last, Some(Status::Created | Status::Failed | Status::Dead));
            prop_assert!(told, "{last:?}");
            prop_assert_eq!(last == Some(Status::Created), matches!(simulation.state, Some(State::Running { .. })));
        } else {
            prop_assert_eq!(last, Some(Status::Undeployed));
            prop_assert_eq!(simulation.state, None);
        }
    }
}
