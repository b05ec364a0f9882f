//! Which instance is on which worker, and the other way round.

use std::collections::{BTreeSet, HashMap};

use protocol::id::Id;

/// A service and the number of one of its instances.
pub(super) type InstanceKey = (Id, u32);

#[derive(Debug, Default)]
pub(super) struct Places {
    of: HashMap<InstanceKey, Id>,
    on: HashMap<Id, BTreeSet<InstanceKey>>,
}

impl Places {
    /// `None`: it is on none.
    pub(super) fn set(&mut self, instance: InstanceKey, worker: Option<Id>) {
        let before = match worker {
            Some(worker) => self.of.insert(instance, worker),
            None => self.of.remove(&instance),
        };
        if before == worker {
            return;
        }
        if let Some(before) = before
            && let Some(instances) = self.on.get_mut(&before)
        {
            instances.remove(&instance);
            if instances.is_empty() {
                self.on.remove(&before);
            }
        }
        if let Some(worker) = worker {
            self.on.entry(worker).or_default().insert(instance);
        }
    }

    pub(super) fn of(&self, instance: InstanceKey) -> Option<Id> {
        self.of.get(&instance).copied()
    }

    pub(super) fn on(&self, worker: Id) -> impl Iterator<Item = InstanceKey> + '_ {
        self.on.get(&worker).into_iter().flatten().copied()
    }

    pub(super) fn count_on(&self, worker: Id) -> usize {
        self.on.get(&worker).map_or(0, BTreeSet::len)
    }
}

#[cfg(test)]
mod tests {
    use protocol::id::Id;

    use super::Places;

    #[test]
    fn an_instance_is_on_one_worker_at_a_time() {
        let [service, first, second] = [1, 2, 3].map(|byte| Id::from_bytes([byte; 12]));
        let mut places = Places::default();
        places.set((service, 0), Some(first));
        places.set((service, 1), Some(first));
        places.set((service, 0), Some(second));
        places.set((service, 0), Some(second));
        assert_eq!(places.on(first).collect::<Vec<_>>(), [(service, 1)]);
        assert_eq!((places.count_on(first), places.count_on(second)), (1, 1));
        places.set((service, 0), None);
        assert_eq!(places.count_on(second), 0);
    }
}
