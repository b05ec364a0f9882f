//! Waiting until it is true: what is wanted, what changes on the way, and when to give up ([`verdict`]). Pure, apart
//! from [`watch`]: time comes in as a duration since the start.

pub(crate) mod steps;
pub(crate) mod verdict;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::id::Id;
use protocol::service::{Instance, Service};
use protocol::status::Status;

use crate::output::Mood;
use crate::view::instance::node;
use orchestrator::standing::{cause, counts, mood, word};

/// So many instances of this service are to be ready, and no more to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) service: Id,
    pub(crate) label: String,
    pub(crate) wanted: usize,
}

/// What happened to one instance, or (`instance` is `None`) to the placing of the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) service: String,
    pub(crate) instance: Option<u32>,
    pub(crate) word: &'static str,
    pub(crate) mood: Mood,
    /// Where it is, or why it is so.
    pub(crate) detail: String,
    /// Since the start.
    pub(crate) at: Duration,
    /// How long the state before this one lasted; nothing for the first that was seen.
    pub(crate) took: Option<Duration>,
}

#[derive(Debug)]
struct Seen {
    status: Status,
    detail: String,
    since: Duration,
    /// How often it failed since it was last ready.
    failures: u32,
    last_failure: String,
}

/// The story of a rollout so far.
#[derive(Debug)]
pub(crate) struct Rollout {
    goals: Vec<Goal>,
    seen: BTreeMap<(Id, Option<u32>), Seen>,
}

impl Rollout {
    /// `before`: the services as they were before anything was done, of which nothing is told.
    pub(crate) fn new(goals: Vec<Goal>, before: &[Service]) -> Self {
        let mut rollout = Self { goals, seen: BTreeMap::new() };
        rollout.observe(before, Duration::ZERO);
        rollout
    }

    pub(crate) fn goals(&self) -> &[Goal] {
        &self.goals
    }

    /// Compares the services with what was seen last and gives the changes since.
    pub(crate) fn observe(&mut self, services: &[Service], now: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        for goal in self.goals.clone() {
            let Some(service) = services.iter().find(|service| service.id == goal.service) else { continue };
            for instance in &service.instance_list {
                let known = self.seen.contains_key(&(service.id, Some(instance.instance_number)));
                // What was gone before is not part of the story.
                if known || counts(instance) {
                    let number = Some(instance.instance_number);
                    changes.extend(self.note(&goal, number, instance.status, place_or_cause(instance), now));
                }
            }
            changes.extend(self.vanished(&goal, service, now));
            if let Some(status) = unplaced(service, goal.wanted) {
                let reason = cause(status, service.status_detail.as_deref());
                changes.extend(self.note(&goal, None, status, reason, now));
            }
        }
        changes
    }

    fn note(
        &mut self,
        goal: &Goal,
        instance: Option<u32>,
        status: Status,
        detail: String,
        now: Duration,
    ) -> Option<Change> {
        let key = (goal.service, instance);
        let before = self.seen.get(&key);
        if before.is_some_and(|before| before.status == status && before.detail == detail) {
            return None;
        }
        let took = before.map(|before| now.saturating_sub(before.since));
        let since = before.filter(|before| before.status == status).map_or(now, |before| before.since);
        let (failures, last_failure) = match (mood(status), before) {
            (Mood::Bad, before) => (before.map_or(0, |before| before.failures) + 1, detail.clone()),
            (Mood::Good, _) | (_, None) => (0, String::new()),
            (_, Some(before)) => (before.failures, before.last_failure.clone()),
        };
        let seen = Seen { status, detail: detail.clone(), since, failures, last_failure };
        self.seen.insert(key, seen);
        Some(Change {
            service: goal.label.clone(),
            instance,
            word: word(status),
            mood: mood(status),
            detail,
            at: now,
            took,
        })
    }

    /// Instances that were there and are no more.
    fn vanished(&mut self, goal: &Goal, service: &Service, now: Duration) -> Vec<Change> {
        let there =
            |number: u32| service.instance_list.iter().any(|instance| instance.instance_number == number);
        let gone: Vec<u32> = self
            .seen
            .iter()
            .filter(|((id, _), seen)| *id == goal.service && seen.status != Status::Undeployed)
            .filter_map(|((_, number), _)| number.filter(|number| !there(*number)))
            .collect();
        let note = |number| self.note(goal, Some(number), Status::Undeployed, String::new(), now);
        gone.into_iter().filter_map(note).collect()
    }
}

/// The state of the service, when it says that an instance that is wanted found no place.
fn unplaced(service: &Service, wanted: usize) -> Option<Status> {
    let there = service.instance_list.iter().filter(|instance| counts(instance)).count();
    service.status.filter(|status| status.is_unschedulable() && there < wanted)
}

fn place_or_cause(instance: &Instance) -> String {
    match instance.status {
        Status::NodeScheduled | Status::Creating | Status::Created | Status::Running => {
            let node = node(instance);
            if node.is_empty() { String::new() } else { format!("on {node}") }
        }
        Status::ClusterScheduled => instance
            .cluster_location
            .as_deref()
            .map_or_else(String::new, |location| format!("cluster at {location}")),
        status => cause(status, instance.status_detail.as_deref()),
    }
}

/// `0.2 s`, `75 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

#[cfg(test)]
mod tests;
