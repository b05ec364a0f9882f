//! Which addresses the data plane takes for a service's, and which for a container's.

use std::net::{IpAddr, Ipv4Addr};

use netmanager_common::map;
use netmanager_common::plan;
use protocol::plan::Plan;

use super::tables::{ip, ip4, table};
use super::{Datapath, DatapathError, Tables};

/// The ranges of a [`Plan`], as packets are held against them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges(pub(crate) plan::Plan);

impl Ranges {
    /// Whether an address is a service's or an instance's own.
    #[must_use]
    pub fn is_service(&self, address: IpAddr) -> bool {
        self.0.is_service(ip(address))
    }

    /// Whether an address is a container's, a gateway's or a node's own.
    #[must_use]
    pub fn is_container(&self, address: IpAddr) -> bool {
        self.0.is_container(ip(address))
    }

    /// The first and the last IPv4 address of containers.
    pub(crate) fn containers(&self) -> [Ipv4Addr; 2] {
        ends(&self.0.containers)
    }

    /// The first and the last IPv4 address of services.
    pub(crate) fn services(&self) -> [Ipv4Addr; 2] {
        ends(&self.0.services)
    }
}

fn ends(range: &plan::Range) -> [Ipv4Addr; 2] {
    [range.first.into(), range.first.saturating_add(range.span).into()]
}

impl From<Plan> for Ranges {
    fn from(plan: Plan) -> Self {
        let range = |range: protocol::plan::Range| plan::Range::new(ip4(range.first()), ip4(range.last()));
        Self(plan::Plan { containers: range(plan.containers()), services: range(plan.services()) })
    }
}

impl Datapath {
    /// From now on addresses are told apart by this plan. Only while no container is attached: theirs are of the plan
    /// before.
    pub fn set_plan(&mut self, plan: Plan) -> Result<(), DatapathError> {
        self.tables.set_plan(plan)
    }
}

impl Tables {
    /// The ranges by which the programs tell addresses apart.
    pub fn ranges(&self) -> Result<Ranges, DatapathError> {
        self.plan.get(&0, 0).map(Ranges).map_err(table("read", map::PLAN))
    }

    pub(super) fn set_plan(&mut self, plan: Plan) -> Result<(), DatapathError> {
        self.plan.set(0, Ranges::from(plan).0, 0).map_err(table("write", map::PLAN))
    }
}

#[cfg(test)]
mod tests {
    use netmanager_common::plan;
    use protocol::plan::Plan;

    use super::Ranges;

    #[test]
    fn oakestras_plan_is_the_one_that_packets_are_held_against_by_default() {
        assert_eq!(Ranges::from(Plan::default()).0, plan::Plan::OAKESTRA);
    }
}
