//! The states of services and instances. Oakestra's Python client raises an error on any word that is not here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// State of an instance, or of a service (then: of the last thing that was asked for it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    #[serde(rename = "REQUESTED")]
    Requested,
    #[serde(rename = "CLUSTER_SCHEDULED")]
    ClusterScheduled,
    #[serde(rename = "NODE_SCHEDULED")]
    NodeScheduled,
    #[serde(rename = "CREATING")]
    Creating,
    /// `ACTIVE` is what workers of version 0.4.2 say.
    #[serde(rename = "CREATED", alias = "ACTIVE")]
    Created,
    #[serde(rename = "RUNNING")]
    Running,
    #[serde(rename = "FAILED")]
    Failed,
    #[serde(rename = "DEAD")]
    Dead,
    #[serde(rename = "COMPLETED")]
    Completed,
    #[serde(rename = "UNDEPLOYED")]
    Undeployed,
    TargetClusterNotFound,
    TargetClusterNotActive,
    TargetClusterNoCapacity,
    NoActiveClusterWithCapacity,
    #[serde(rename = "NO_WORKER_CAPACITY")]
    NoWorkerCapacity,
    #[serde(rename = "NO_QUALIFIED_WORKER_FOUND")]
    NoQualifiedWorkerFound,
    #[serde(rename = "NO_NODE_FOUND")]
    NoNodeFound,
}

impl Status {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::ClusterScheduled => "CLUSTER_SCHEDULED",
            Self::NodeScheduled => "NODE_SCHEDULED",
            Self::Creating => "CREATING",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failed => "FAILED",
            Self::Dead => "DEAD",
            Self::Completed => "COMPLETED",
            Self::Undeployed => "UNDEPLOYED",
            Self::TargetClusterNotFound => "TargetClusterNotFound",
            Self::TargetClusterNotActive => "TargetClusterNotActive",
            Self::TargetClusterNoCapacity => "TargetClusterNoCapacity",
            Self::NoActiveClusterWithCapacity => "NoActiveClusterWithCapacity",
            Self::NoWorkerCapacity => "NO_WORKER_CAPACITY",
            Self::NoQualifiedWorkerFound => "NO_QUALIFIED_WORKER_FOUND",
            Self::NoNodeFound => "NO_NODE_FOUND",
        }
    }

    /// Nothing is placed, because nothing fits.
    #[must_use]
    pub const fn is_unschedulable(self) -> bool {
        matches!(
            self,
            Self::TargetClusterNotFound
                | Self::TargetClusterNotActive
                | Self::TargetClusterNoCapacity
                | Self::NoActiveClusterWithCapacity
                | Self::NoWorkerCapacity
                | Self::NoQualifiedWorkerFound
                | Self::NoNodeFound
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
