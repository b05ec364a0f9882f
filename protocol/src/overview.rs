//! The whole in numbers, and what somebody may have to act on: what `hypha status` shows. Keys of our own throughout.

use serde::{Deserialize, Serialize};

use crate::id::Id;

/// Answer to `GET /v1/status` of the root: as far as the caller may see.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    pub clusters: ClusterTotals,
    pub workers: WorkerTotals,
    pub apps: usize,
    pub services: usize,
    pub instances: InstanceTotals,
    /// The most serious first.
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterTotals {
    /// Those that are heard of.
    pub active: usize,
    pub total: usize,
}

/// Over the clusters that are heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerTotals {
    /// Those that report.
    pub active: u32,
    /// Get nothing new, by the will of an operator.
    pub cordoned: usize,
    /// Of these, become empty.
    pub draining: usize,
    pub cpus: u32,
    pub memory_free_mb: u64,
}

/// Of all that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTotals {
    /// Or done, of those that are to do their task once.
    pub running: usize,
    pub waiting: usize,
    pub failed: usize,
}

/// Something that a person may have to act on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub severity: Severity,
    pub code: Code,
    /// Nothing where the whole is meant.
    pub subject: Option<Subject>,
    /// Seconds since the epoch, as far as it is known.
    pub since: Option<f64>,
    /// For people; what `code` and `subject` say is not in it again.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody goes without something.
    Error,
    Warning,
}

/// These do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Nothing is heard of a cluster.
    ClusterLost,
    /// A cluster is heard of, and its workers are not: its MQTT broker is out of reach.
    BrokerAway,
    /// A worker has missed reports.
    WorkerUnreachable,
    /// A worker is given up.
    WorkerDead,
    /// No worker has joined any cluster.
    NoWorkers,
    /// An instance does not run that should.
    ServiceFailed,
    /// An instance has yet to run.
    ServiceWaiting,
    /// An instance runs, but not as its service asks for.
    ServiceAstray,
}

impl Code {
    /// How it stands with the subject, in a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ClusterLost => "lost",
            Self::BrokerAway => "without its broker",
            Self::WorkerUnreachable => "unreachable",
            Self::WorkerDead => "dead",
            Self::NoWorkers => "no workers",
            Self::ServiceFailed => "failed",
            Self::ServiceWaiting => "waiting",
            Self::ServiceAstray => "astray",
        }
    }

    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::ClusterLost | Self::BrokerAway | Self::WorkerDead | Self::ServiceFailed => Severity::Error,
            Self::WorkerUnreachable | Self::NoWorkers | Self::ServiceWaiting | Self::ServiceAstray => {
                Severity::Warning
            }
        }
    }
}

/// What a problem is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub kind: Kind,
    pub id: Id,
    /// As `hypha` takes it: `berlin`, `pi-3`, `shop/web`.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Cluster,
    Worker,
    Service,
}
