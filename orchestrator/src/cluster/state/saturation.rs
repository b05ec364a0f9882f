//! Which instances have no processor time left: those behind a closest address get nothing new then, as long as there are
//! others.

use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::node::Node;

use super::State;
use crate::cluster::instance::Usage;

/// Of what an instance may have, or its node has: from so much on it is busy, and below so much it is not any more.
const BUSY: f64 = 0.9;
const FREE: f64 = 0.7;
/// It stays so for at least this long: each change is told to all who are interested.
const AT_LEAST: Duration = Duration::from_secs(10);

impl State {
    /// What is known of an instance's load has changed, or time has passed while it was busy.
    pub(super) fn weigh(&mut self, id: Id, number: u32, now: Instant) {
        let Some(service) = self.services.get_mut(&id) else { return };
        let cores = service.document.sla.vcpus;
        let Some(instance) = service.instances.get_mut(&number) else { return };
        let node = instance.wanted_on().and_then(|worker| self.workers.get(&worker));
        let load = node.map_or(0.0, |worker| load(&instance.usage, cores, worker.node()));
        let busy = match instance.busy_since {
            None => load >= BUSY,
            Some(since) => load >= FREE || now.saturating_duration_since(since) < AT_LEAST,
        };
        if busy != instance.busy_since.is_some() {
            instance.busy_since = busy.then_some(now);
            self.directory.set_busy(&service.document.job_name, number, busy);
            self.overlay_acts();
        }
    }

    /// Those that were busy may be so no longer.
    pub(super) fn weigh_again(&mut self, now: Instant) {
        let busy: Vec<_> = self
            .services
            .iter()
            .flat_map(|(id, service)| {
                service.instances.iter().map(|(number, instance)| (*id, *number, instance))
            })
            .filter(|(_, _, instance)| instance.busy_since.is_some())
            .map(|(id, number, _)| (id, number))
            .collect();
        for (id, number) in busy {
            self.weigh(id, number, now);
        }
    }
}

/// The larger part: that the node uses of its processors, or that the instance uses of those it asked for.
fn load(usage: &Usage, cores: u32, node: &Node) -> f64 {
    let own: f64 = usage.cpu_percent.as_ref().and_then(|percent| percent.parse().ok()).unwrap_or(0.0);
    let may_have = if cores == 0 || node.vcpus == 0 { 1.0 } else { f64::from(cores) / f64::from(node.vcpus) };
    (node.cpu_percent / 100.0).max(own / 100.0 / may_have.min(1.0))
}

#[cfg(test)]
mod tests {
    use protocol::node::Node;

    use super::load;
    use crate::cluster::instance::Usage;

    #[test]
    fn the_load_is_that_of_the_node_or_of_what_the_instance_asked_for() {
        let node = |cpu_percent, vcpus| Node { cpu_percent, vcpus, ..Node::default() };
        let usage = |percent: &str| Usage { cpu_percent: Some(percent.to_owned()), ..Usage::default() };
        for (usage, cores, node, expected) in [
            (usage("20.0"), 1, node(30.0, 4), 0.8),
            (usage("20.0"), 0, node(30.0, 4), 0.3),
            (usage("20.0"), 1, node(95.0, 4), 0.95),
            (usage("20.0"), 8, node(10.0, 4), 0.2),
            (usage("?"), 1, node(10.0, 0), 0.1),
            (Usage::default(), 1, node(0.0, 4), 0.0),
        ] {
            let load = load(&usage, cores, &node);
            assert!((load - expected).abs() < 1e-9, "{load} instead of {expected}");
        }
    }
}
