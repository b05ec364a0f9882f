//! Whether the goals of a rollout are reached, and if not, what is missing and whether there is hope.

use std::time::Duration;

use protocol::service::{Instance, Service};
use protocol::status::Status;

use super::{Goal, Rollout, Seen, seconds};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Mood;
use orchestrator::standing::{cause, counts, is_ready, mood, word};

/// How often an instance may fail before waiting longer is no use. The cluster goes on trying.
const PATIENCE_WITH_FAILURES: u32 = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// Not yet, and why: a line for each thing that is missing.
    Waiting(Vec<Missing>),
    /// Waiting longer is no use.
    Hopeless(Vec<Missing>),
}

/// One thing that is not yet true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// `hello/web/1`, or the service when the instance has no number yet.
    pub(crate) name: String,
    pub(crate) status: Option<Status>,
    pub(crate) reason: String,
}

impl Rollout {
    /// Whether all goals are reached in what `services` show.
    pub(crate) fn verdict(&self, services: &[Service]) -> Verdict {
        let mut missing = Vec::new();
        let mut hopeless = false;
        for goal in &self.goals {
            let Some(service) = services.iter().find(|service| service.id == goal.service) else {
                let reason = "it was deleted".to_owned();
                missing.push(Missing { name: goal.label.clone(), status: None, reason });
                hopeless = true;
                continue;
            };
            missing.extend(self.missing_of(goal, service));
            let tired =
                |seen: &Seen| seen.failures >= PATIENCE_WITH_FAILURES && mood(seen.status) == Mood::Bad;
            hopeless |= self.seen.iter().any(|((id, _), seen)| *id == goal.service && tired(seen));
        }
        match (missing.is_empty(), hopeless) {
            (true, _) => Verdict::Done,
            (false, true) => Verdict::Hopeless(missing),
            (false, false) => Verdict::Waiting(missing),
        }
    }

    fn missing_of(&self, goal: &Goal, service: &Service) -> Vec<Missing> {
        let there: Vec<&Instance> =
            service.instance_list.iter().filter(|instance| counts(instance)).collect();
        if there.len() > goal.wanted {
            let reason = format!("{} instances are there, {} wanted", there.len(), goal.wanted);
            return vec![Missing { name: goal.label.clone(), status: None, reason }];
        }
        let unready = there.iter().filter(|instance| !is_ready(instance));
        let mut missing: Vec<Missing> = unready.map(|instance| self.unready(goal, instance)).collect();
        if there.len() < goal.wanted {
            let status = service.status.filter(|status| status.is_unschedulable());
            let status = status.unwrap_or(Status::Requested);
            let cause = cause(status, service.status_detail.as_deref());
            let reason = format!("{} of {} instances are there: {cause}", there.len(), goal.wanted);
            missing.push(Missing { name: goal.label.clone(), status: Some(status), reason });
        }
        missing
    }

    /// An instance that is being tried again after it failed is a failed one: what it says of the new attempt explains
    /// nothing.
    fn unready(&self, goal: &Goal, instance: &Instance) -> Missing {
        let name = format!("{}/{}", goal.label, instance.instance_number);
        let seen = self.seen.get(&(goal.service, Some(instance.instance_number)));
        let retried = seen.filter(|seen| seen.failures > 0 && !instance.status.is_unschedulable());
        let (status, cause) = match retried {
            Some(seen) => (Status::Failed, seen.last_failure.clone()),
            None => (instance.status, cause(instance.status, instance.status_detail.as_deref())),
        };
        Missing { name, status: Some(status), reason: format!("{}: {cause}", word(status)) }
    }
}

/// How waiting ended without the goal.
pub(crate) fn failure(missing: &[Missing], waited: Duration, hopeless: bool) -> Failure {
    let is = |mood: fn(Status) -> bool| missing.iter().any(|missing| missing.status.is_some_and(mood));
    let waited = format!("after {}", seconds(waited));
    let (exit, title) = if missing.iter().any(|missing| missing.status.is_none()) && hopeless {
        (Exit::Failed, "it is gone: somebody else deleted it meanwhile".to_owned())
    } else if is(|status| matches!(status, Status::Failed | Status::Dead)) {
        (Exit::Failed, format!("not everything runs {waited}; the cluster goes on trying"))
    } else if is(Status::is_unschedulable) {
        (Exit::NotPlaced, format!("accepted, but not everything found a place {waited}"))
    } else {
        (Exit::TimedOut, format!("not finished {waited}; the work goes on"))
    };
    let lines = grouped(missing);
    lines.into_iter().fold(Failure::new(exit, title), Failure::detail).hint("hypha get instances")
}

/// A line for each reason, with the names that it holds for: `hello/web/0, hello/web/1  waiting: …`.
fn grouped(missing: &[Missing]) -> Vec<String> {
    const NAMED: usize = 4;
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Missing { name, reason, .. } in missing {
        match reasons.iter_mut().find(|(other, _)| other == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    let line = |(reason, names): (&str, Vec<&str>)| {
        let more = match names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}  {reason}", names[..names.len().min(NAMED)].join(", "))
    };
    reasons.into_iter().map(line).collect()
}
