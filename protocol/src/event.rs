//! What has happened to what a root looks after: topic `events` of `GET /v1/stream`. Keys of our own throughout.

use serde::{Deserialize, Serialize};

use crate::id::Id;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Of two events of one root, the later has the greater one.
    pub id: Id,
    /// When the root learned of it, in seconds since the epoch.
    pub ts: f64,
    pub severity: Severity,
    pub subject: Subject,
    pub code: Code,
    /// For people; what `code` and `subject` say is not in it again. Where, from where, or why.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    /// It may end by itself.
    Warning,
    /// Somebody goes without something.
    Error,
}

/// What it has happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub kind: Kind,
    /// Of an instance: that of its service.
    pub id: Id,
    /// As `hypha` takes it: `berlin`, `berlin/pi-3`, `shop/web`, `shop/web/2`.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Cluster,
    Worker,
    Service,
    Instance,
}

impl Kind {
    /// The word for one, as in `worker/berlin/pi-3`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Worker => "worker",
            Self::Service => "service",
            Self::Instance => "instance",
        }
    }
}

/// These do not change; there may be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// A service was made.
    Created,
    /// A service is described anew.
    Changed,
    /// A service is gone.
    Deleted,
    /// An instance was given to a cluster.
    Scheduled,
    /// An instance has a worker.
    Placed,
    /// An instance has another worker, or another cluster, than before.
    Moved,
    Running,
    /// An instance has ended that should run.
    Failed,
    /// An instance that had failed is tried again.
    Restarted,
    /// An instance finds no place.
    Waiting,
    /// An instance has done what it is to do once.
    Completed,
    /// An instance is taken back.
    Removed,
    /// A worker or a cluster is there for the first time.
    Joined,
    /// A worker has missed reports.
    Unreachable,
    /// A worker is given up.
    Dead,
    /// A cluster is not heard of.
    Lost,
    /// A worker or a cluster is heard of again.
    Back,
    /// It gets nothing new.
    Cordoned,
    /// What runs on a worker moves to others.
    Draining,
    /// It gets new instances again.
    Uncordoned,
    /// A worker is forgotten, or deleted.
    Gone,
    /// One that a later version knows.
    #[serde(other)]
    Unknown,
}

impl Code {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
            Self::Scheduled => "scheduled",
            Self::Placed => "placed",
            Self::Moved => "moved",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Restarted => "restarted",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Removed => "removed",
            Self::Joined => "joined",
            Self::Unreachable => "unreachable",
            Self::Dead => "dead",
            Self::Lost => "lost",
            Self::Back => "back",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Uncordoned => "uncordoned",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }

    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Failed | Self::Dead | Self::Lost => Severity::Error,
            Self::Unreachable | Self::Waiting => Severity::Warning,
            _ => Severity::Info,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Code, Event, Kind, Subject};
    use crate::id::Id;

    #[test]
    fn an_event_is_written_with_stable_words() {
        let subject =
            Subject { kind: Kind::Instance, id: Id::from_bytes([7; 12]), name: "shop/web/2".to_owned() };
        let event = Event {
            id: Id::from_bytes([1; 12]),
            ts: 2.5,
            severity: Code::Failed.severity(),
            subject,
            code: Code::Failed,
            message: "exit code 1".to_owned(),
        };
        let written = json!({
            "id": "010101010101010101010101", "ts": 2.5, "severity": "error", "code": "failed",
            "subject": { "kind": "instance", "id": "070707070707070707070707", "name": "shop/web/2" },
            "message": "exit code 1",
        });
        assert_eq!(serde_json::to_value(&event).unwrap(), written);
        assert_eq!(serde_json::from_value::<Event>(written).unwrap(), event);
        for code in [Code::Created, Code::Unreachable, Code::Uncordoned] {
            assert_eq!(serde_json::to_value(code).unwrap(), code.word());
        }
    }
}
