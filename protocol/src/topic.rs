//! The MQTT topics of a cluster's broker: written and read in one place.

use std::fmt;

use crate::id::Id;

/// What a node says on `nodes/{id}/…`, and what is said to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeTopic {
    /// Node to cluster: [`crate::node::Node`].
    Information,
    /// Node to cluster: [`crate::node::InstanceReport`].
    Job,
    /// Node to cluster: [`crate::node::ResourceReport`].
    Resources,
    /// Node to cluster, without payload: what it reported last still holds. Only our own workers and clusters know it.
    Alive,
    /// Cluster to node: [`crate::node::Deploy`].
    ControlDeploy,
    /// Cluster to node: [`crate::node::Delete`].
    ControlDelete,
    /// Cluster to node: the node is not known (any more).
    ControlError,
    /// Node to cluster: [`crate::net::SubnetRequest`].
    Subnet,
    /// Cluster to node: [`crate::net::SubnetResult`].
    SubnetResult,
    /// Node to cluster: [`crate::net::TableQuery`].
    TableQuery,
    /// Cluster to node: [`crate::net::TableResult`].
    TableResult,
    /// Node to cluster: [`crate::net::ServiceDeployed`].
    ServiceDeployed,
    /// Node to cluster: [`crate::net::ServiceUndeployed`].
    ServiceUndeployed,
    /// Node to cluster: [`crate::net::AddressChanged`].
    AddressChanged,
    /// Node to cluster: [`crate::net::InterestRemove`].
    InterestRemove,
    /// Node to cluster: [`crate::net::NodeItself`]. Only our own workers and clusters know it.
    NodeItself,
    /// Node to cluster: [`crate::rtt::RttReport`]. Likewise.
    Rtt,
    /// Cluster to node: [`crate::rtt::RttPeers`]. Likewise.
    RttPeers,
}

impl NodeTopic {
    const ALL: [(Self, &'static str); 18] = [
        (Self::Information, "information"),
        (Self::Job, "job"),
        (Self::Resources, "jobs/resources"),
        (Self::Alive, "alive"),
        (Self::ControlDeploy, "control/deploy"),
        (Self::ControlDelete, "control/delete"),
        (Self::ControlError, "control/error"),
        (Self::Subnet, "net/subnet"),
        (Self::SubnetResult, "net/subnetwork/result"),
        (Self::TableQuery, "net/tablequery/request"),
        (Self::TableResult, "net/tablequery/result"),
        (Self::ServiceDeployed, "net/service/deployed"),
        (Self::ServiceUndeployed, "net/service/undeployed"),
        (Self::AddressChanged, "net/service/address-changed"),
        (Self::InterestRemove, "net/interest/remove"),
        (Self::NodeItself, "net/host"),
        (Self::Rtt, "net/rtt"),
        (Self::RttPeers, "net/peers"),
    ];

    /// Each of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(topic, _)| topic)
    }

    /// The part after `nodes/{id}/`.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        Self::ALL.iter().find(|(topic, _)| *topic == self).map_or("", |(_, suffix)| suffix)
    }

    /// The whole topic of one node.
    #[must_use]
    pub fn of(self, node: &Id) -> String {
        format!("nodes/{node}/{}", self.suffix())
    }

    /// The subscription for this topic of all nodes.
    #[must_use]
    pub fn of_all(self) -> String {
        format!("nodes/+/{}", self.suffix())
    }

    /// Which node's which topic this is.
    #[must_use]
    pub fn parse(topic: &str) -> Option<(Id, Self)> {
        let (node, suffix) = topic.strip_prefix("nodes/")?.split_once('/')?;
        let (kind, _) = Self::ALL.iter().find(|(_, known)| *known == suffix)?;
        Some((node.parse().ok()?, *kind))
    }
}

/// The topic on which a cluster says that the table of a service changed. Some workers subscribe with an address.
#[must_use]
pub fn updates_available(name_or_address: impl fmt::Display) -> String {
    format!("jobs/{name_or_address}/updates_available")
}

/// The name or address in an `updates_available` topic.
#[must_use]
pub fn parse_updates_available(topic: &str) -> Option<&str> {
    topic.strip_prefix("jobs/")?.strip_suffix("/updates_available").filter(|name| !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::{NodeTopic, parse_updates_available, updates_available};

    #[test]
    fn every_topic_is_read_as_it_is_written() {
        let node = "6b033dc62c1f07cbdcd88440".parse().unwrap();
        for (topic, suffix) in NodeTopic::ALL {
            assert!(!suffix.is_empty());
            assert_eq!(NodeTopic::parse(&topic.of(&node)), Some((node, topic)));
        }
    }

    #[test]
    fn foreign_topics_are_not_taken() {
        for topic in
            ["", "nodes", "nodes/x/job", "nodes/6b033dc62c1f07cbdcd88440/job/x", "jobs/a/updates_available"]
        {
            assert_eq!(NodeTopic::parse(topic), None, "{topic}");
        }
        assert_eq!(parse_updates_available(&updates_available("a.b.c.d")), Some("a.b.c.d"));
        assert_eq!(parse_updates_available("jobs/a/b/updates_available"), None);
    }
}
