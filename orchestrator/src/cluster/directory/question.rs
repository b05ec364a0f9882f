//! The questions to the root that are open: each is on its way at most once at a time, who waits for its answer waits
//! together, and one that got no answer is asked again, after longer and longer pauses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::id::Id;

use super::Subject;

/// The longest a worker waits for an answer. Oakestra's gives up after 5 s.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(4);
const ASK_AGAIN_FIRST: Duration = Duration::from_millis(500);
pub(super) const ASK_AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long the root's "not known" is believed, so that a client which tries again and again does not reach the root.
const UNKNOWN_FOR: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Questions {
    open: BTreeMap<Subject, Question>,
}

#[derive(Debug)]
struct Question {
    waiting: Vec<Waiting>,
    state: Progress,
    /// How often it was answered without settling it.
    attempts: u32,
}

#[derive(Debug)]
struct Waiting {
    worker: Id,
    /// As the worker wrote it.
    key: String,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    OnItsWay,
    /// There was news while it was on its way, which the answer may not contain.
    OnItsWayAndAgain,
    Again {
        at: Instant,
        unknown_until: Instant,
    },
}

/// Whether a question must be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Send {
    Now,
    No,
}

/// A question to which the answer came.
#[derive(Debug)]
pub(super) struct Answered {
    /// Workers and what they asked.
    pub(super) waiting: Vec<(Id, String)>,
    /// The answer may be older than the last news.
    pub(super) again: bool,
    attempts: u32,
}

impl Questions {
    pub(super) fn is_open(&self, subject: &Subject) -> bool {
        self.open.contains_key(subject)
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.open.keys()
    }

    /// Makes sure that the question is on its way.
    pub(super) fn ask(&mut self, subject: &Subject) -> Send {
        match self.open.get_mut(subject) {
            Some(Question { state: Progress::OnItsWay | Progress::OnItsWayAndAgain, .. }) => return Send::No,
            Some(question) => question.state = Progress::OnItsWay,
            None => {
                let question = Question { waiting: Vec::new(), state: Progress::OnItsWay, attempts: 0 };
                self.open.insert(subject.clone(), question);
            }
        }
        Send::Now
    }

    /// Makes sure that the question is asked from now on; one on its way may have been answered before.
    pub(super) fn ask_afresh(&mut self, subject: &Subject) -> Send {
        let send = self.ask(subject);
        if send == Send::No
            && let Some(question) = self.open.get_mut(subject)
        {
            question.state = Progress::OnItsWayAndAgain;
        }
        send
    }

    /// A worker waits for the answer to an open question.
    pub(super) fn wait(&mut self, subject: &Subject, worker: Id, key: String, now: Instant) {
        if let Some(question) = self.open.get_mut(subject) {
            question.waiting.push(Waiting { worker, key, until: now + ANSWER_WITHIN });
        }
    }

    /// Whether the root has just said that it does not know.
    pub(super) fn believed_unknown(&self, subject: &Subject, now: Instant) -> bool {
        let state = self.open.get(subject).map(|question| question.state);
        matches!(state, Some(Progress::Again { unknown_until, .. }) if now < unknown_until)
    }

    /// Takes the question away; `None`: nobody wants the answer any more.
    pub(super) fn answered(&mut self, subject: &Subject) -> Option<Answered> {
        let Question { waiting, state, attempts } = self.open.remove(subject)?;
        let waiting = waiting.into_iter().map(|waiting| (waiting.worker, waiting.key)).collect();
        Some(Answered { waiting, again: state == Progress::OnItsWayAndAgain, attempts })
    }

    /// The answer did not settle it: asked again after a pause. Until then it counts as `unknown`, if it is.
    pub(super) fn ask_later(&mut self, subject: &Subject, answered: &Answered, unknown: bool, now: Instant) {
        let pause = ASK_AGAIN_FIRST.saturating_mul(1 << answered.attempts.min(8)).min(ASK_AGAIN_MAX);
        let unknown_until = if unknown { now + UNKNOWN_FOR } else { now };
        let state = Progress::Again { at: now + pause, unknown_until };
        let attempts = answered.attempts.saturating_add(1);
        self.open.insert(subject.clone(), Question { waiting: Vec::new(), state, attempts });
    }

    pub(super) fn forget(&mut self, subject: &Subject) {
        self.open.remove(subject);
    }

    /// What is to be asked again now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Subject> {
        let is_due = |question: &Question| matches!(question.state, Progress::Again { at, .. } if at <= now);
        let due = self.open.iter_mut().filter(|(_, question)| is_due(question));
        due.map(|(subject, question)| {
            question.state = Progress::OnItsWay;
            subject.clone()
        })
        .collect()
    }

    /// Those who have waited long enough, and what they asked.
    pub(super) fn late(&mut self, now: Instant) -> Vec<(Id, String)> {
        let waiting = self.open.values_mut().map(|question| &mut question.waiting);
        let late = waiting.flat_map(|waiting| waiting.extract_if(.., |waiting| waiting.until <= now));
        late.map(|waiting| (waiting.worker, waiting.key)).collect()
    }
}
