//! Who may say and hear what: pure rules, one place.
//!
//! A worker has two clients, its node-engine (`{id}-ne`) and its netmanager (`{id}`); both stand for the node. A node
//! speaks and listens below its own `nodes/{id}/`, and listens to table updates of services. What goes *to* a node
//! (`control/…`, results) is published by the orchestrator alone; where the broker is embedded, inside the process and
//! not through these rules. For another broker the same rules are written down by [`super::acl`].

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use protocol::id::Id;
use protocol::topic::{NodeTopic, parse_updates_available};

/// A client of the broker: which node, and which of its two daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    pub node: Id,
    pub daemon: Daemon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Daemon {
    NodeEngine,
    NetManager,
}

impl Client {
    /// Reads an MQTT client id.
    #[must_use]
    pub fn parse(client_id: &str) -> Option<Self> {
        let (node, daemon) = match client_id.strip_suffix("-ne") {
            Some(node) => (node, Daemon::NodeEngine),
            None => (client_id, Daemon::NetManager),
        };
        Some(Self { node: node.parse().ok()?, daemon })
    }
}

/// The two ends of a node's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Node,
    Cluster,
}

/// Who speaks on a node's topic. The other one listens, and nobody else does either.
#[must_use]
pub fn speaker(topic: NodeTopic) -> Side {
    match topic {
        NodeTopic::Information
        | NodeTopic::Job
        | NodeTopic::Resources
        | NodeTopic::Alive
        | NodeTopic::Subnet
        | NodeTopic::TableQuery
        | NodeTopic::ServiceDeployed
        | NodeTopic::ServiceUndeployed
        | NodeTopic::AddressChanged
        | NodeTopic::InterestRemove
        | NodeTopic::NodeItself
        | NodeTopic::Rtt => Side::Node,
        NodeTopic::ControlDeploy
        | NodeTopic::ControlDelete
        | NodeTopic::ControlError
        | NodeTopic::SubnetResult
        | NodeTopic::TableResult
        | NodeTopic::RttPeers => Side::Cluster,
    }
}

/// Below which parts of its own topics a node may listen, at whatever depth.
pub const HEARD_BELOW: [&str; 2] = ["control", "net"];

/// Which topic of its own this is, when `node` may publish to it.
#[must_use]
pub fn may_publish(node: Id, topic: &str) -> Option<NodeTopic> {
    let (owner, kind) = NodeTopic::parse(topic)?;
    (owner == node && speaker(kind) == Side::Node).then_some(kind)
}

/// Whether `node` may listen to `filter`: anything below its own `control` and `net`, and updates of services. The
/// node's id is compared as text, so no wildcard can stand in its place.
#[must_use]
pub fn may_subscribe(node: Id, filter: &str) -> bool {
    if parse_updates_available(filter).is_some_and(|name| !name.is_empty() && !name.contains('#')) {
        return true;
    }
    let own = format!("nodes/{node}/");
    filter
        .strip_prefix(&own)
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(area, below)| HEARD_BELOW.contains(&area) && !below.is_empty())
}

/// The nodes that have registered: the only ones that are let in. Shared between the broker and the cluster, which
/// adds a node before it tells the node its id.
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<RwLock<HashSet<Id>>>);

impl Roster {
    pub fn admit(&self, node: Id) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    /// It is let in no more; a connection that it has stays until it ends.
    pub fn dismiss(&self, node: Id) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    #[must_use]
    pub fn all(&self) -> Vec<Id> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    #[must_use]
    pub fn contains(&self, node: Id) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use protocol::id::Id;
    use protocol::topic::NodeTopic;

    use super::{Client, Daemon, may_publish, may_subscribe};

    const NODE: &str = "6b033dc62c1f07cbdcd88440";
    const OTHER: &str = "6b033dc52c1f07cbdcd8843f";

    fn node() -> Id {
        NODE.parse().unwrap()
    }

    #[test]
    fn both_daemons_of_a_node_are_recognised() {
        let engine = Client::parse("6b033dc62c1f07cbdcd88440-ne").unwrap();
        assert_eq!(engine, Client { node: node(), daemon: Daemon::NodeEngine });
        assert_eq!(Client::parse(NODE).unwrap().daemon, Daemon::NetManager);
        for foreign in ["", "-ne", "mosquitto", "6b033dc62c1f07cbdcd88440-ne-ne", "6b033dc62c1f07cbdcd88440 "]
        {
            assert_eq!(Client::parse(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn a_node_publishes_its_own_reports_and_nothing_else() {
        for (topic, allowed) in [
            ("nodes/6b033dc62c1f07cbdcd88440/information", true),
            ("nodes/6b033dc62c1f07cbdcd88440/job", true),
            ("nodes/6b033dc62c1f07cbdcd88440/jobs/resources", true),
            ("nodes/6b033dc62c1f07cbdcd88440/alive", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/subnet", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/tablequery/request", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/service/deployed", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/service/undeployed", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/service/address-changed", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/interest/remove", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/host", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/tablequery/result", false),
            ("nodes/6b033dc62c1f07cbdcd88440/net/subnetwork/result", false),
            ("nodes/6b033dc62c1f07cbdcd88440/control/deploy", false),
            ("nodes/6b033dc62c1f07cbdcd88440/control/delete", false),
            ("nodes/6b033dc52c1f07cbdcd8843f/information", false),
            ("nodes/6b033dc52c1f07cbdcd8843f/control/deploy", false),
            ("jobs/a.b.c.d/updates_available", false),
            ("nodes/6B033DC62C1F07CBDCD88440x/information", false),
            ("$SYS/anything", false),
            ("", false),
        ] {
            assert_eq!(may_publish(node(), topic).is_some(), allowed, "{topic}");
        }
        assert_eq!(may_publish(node(), &NodeTopic::Job.of(&node())), Some(NodeTopic::Job));
    }

    #[test]
    fn a_node_listens_to_its_own_commands_and_to_updates() {
        for (filter, allowed) in [
            ("nodes/6b033dc62c1f07cbdcd88440/control/#", true),
            ("nodes/6b033dc62c1f07cbdcd88440/control/+", true),
            ("nodes/6b033dc62c1f07cbdcd88440/control/deploy", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/#", true),
            ("nodes/6b033dc62c1f07cbdcd88440/net/tablequery/result", true),
            ("jobs/smp.bed.srv.bed/updates_available", true),
            ("jobs/10.30.0.5/updates_available", true),
            ("jobs/+/updates_available", true),
            ("nodes/+/control/#", false),
            ("nodes/#", false),
            ("#", false),
            ("+/+/control/deploy", false),
            ("nodes/6b033dc62c1f07cbdcd88440/#", false),
            ("nodes/6b033dc62c1f07cbdcd88440/+/deploy", false),
            ("nodes/6b033dc62c1f07cbdcd88440/information", false),
            ("jobs/#", false),
            ("jobs//updates_available", false),
            ("jobs/+/+", false),
            ("$share/a/nodes/6b033dc62c1f07cbdcd88440/control/#", false),
        ] {
            assert_eq!(may_subscribe(node(), filter), allowed, "{filter}");
        }
        assert!(!may_subscribe(node(), &format!("nodes/{OTHER}/control/#")));
    }
}
