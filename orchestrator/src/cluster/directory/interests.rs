//! Who wants to hear of what.

use std::collections::{HashMap, HashSet};

use protocol::id::Id;

use super::Subject;

/// Names and addresses one worker may be interested in, so that a scan of the service network does not fill the memory.
pub(super) const INTERESTS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Interests {
    workers: HashMap<Subject, HashSet<Id>>,
    /// How many subjects each worker is interested in.
    held: HashMap<Id, usize>,
}

impl Interests {
    /// A worker that is interested in too much already is not taken up; that is logged.
    pub(super) fn add(&mut self, worker: Id, subject: Subject) {
        let held = self.held.entry(worker).or_default();
        if *held >= INTERESTS_MAX {
            tracing::warn!(%worker, %subject, "worker is interested in too many services; it is not told of this one");
        } else if self.workers.entry(subject).or_default().insert(worker) {
            *held += 1;
        }
    }

    /// Says whether nobody is interested any more who was before.
    pub(super) fn remove(&mut self, worker: Id, subject: &Subject) -> bool {
        let Some(workers) = self.workers.get_mut(subject) else {
            return false;
        };
        if workers.remove(&worker)
            && let Some(held) = self.held.get_mut(&worker)
        {
            *held = held.saturating_sub(1);
        }
        if !workers.is_empty() {
            return false;
        }
        self.workers.remove(subject);
        true
    }

    /// A worker is gone; its interests have been removed one by one.
    pub(super) fn forget(&mut self, worker: Id) {
        self.held.remove(&worker);
    }

    pub(super) fn contains(&self, subject: &Subject) -> bool {
        self.workers.contains_key(subject)
    }

    pub(super) fn of_worker(&self, worker: Id) -> Vec<Subject> {
        let own = self.workers.iter().filter(|(_, workers)| workers.contains(&worker));
        own.map(|(subject, _)| subject.clone()).collect()
    }

    pub(super) fn in_subject(&self, subject: &Subject) -> Vec<Id> {
        self.workers.get(subject).into_iter().flatten().copied().collect()
    }

    /// How many subjects somebody is interested in.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.workers.len()
    }
}
