//! Which clusters found no place for which instances, so that these go on to others.

use std::collections::HashMap;

use protocol::id::Id;

use crate::clock::Moment;

/// For so long a cluster that found no worker is not asked again, seconds: two of these would otherwise hand an instance
/// to and fro with every report.
const REFUSED_FOR: f64 = 60.0;

/// Which clusters found no worker for an instance, and when by the steady clock.
#[derive(Debug, Default)]
pub(crate) struct Refusals(HashMap<(Id, u32), Vec<(Id, f64)>>);

impl Refusals {
    pub(crate) fn note(&mut self, instance: (Id, u32), cluster: Id, now: Moment) {
        let refusals = self.0.entry(instance).or_default();
        refusals.retain(|(other, since)| *other != cluster && now.steady - since < REFUSED_FOR);
        refusals.push((cluster, now.steady));
    }

    pub(crate) fn is_refused(&self, instance: (Id, u32), cluster: Id, now: Moment) -> bool {
        let refusals = self.0.get(&instance).into_iter().flatten();
        refusals.into_iter().any(|(by, since)| *by == cluster && now.steady - since < REFUSED_FOR)
    }

    pub(crate) fn forget(&mut self, instance: (Id, u32)) {
        self.0.remove(&instance);
    }
}

#[cfg(test)]
mod tests {
    use super::{REFUSED_FOR, Refusals};
    use crate::clock::Moment;
    use crate::object_id;

    #[test]
    fn a_cluster_that_refused_is_asked_again_after_a_while() {
        let at = |steady| Moment { wall: 0.0, steady };
        let (service, cluster, other) = (object_id::new(), object_id::new(), object_id::new());
        let mut refusals = Refusals::default();
        refusals.note((service, 0), cluster, at(10.0));
        assert!(refusals.is_refused((service, 0), cluster, at(10.0 + REFUSED_FOR - 1.0)));
        assert!(!refusals.is_refused((service, 0), cluster, at(10.0 + REFUSED_FOR)));
        assert!(!refusals.is_refused((service, 1), cluster, at(10.0)));
        assert!(!refusals.is_refused((service, 0), other, at(10.0)));
        refusals.forget((service, 0));
        assert!(!refusals.is_refused((service, 0), cluster, at(10.0)));
    }
}
