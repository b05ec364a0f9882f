//! What a cluster has yet to be told. A command is stored together with the change that calls for it and deleted when
//! the cluster has taken it, so that neither a crash nor a cluster that is away loses one.
//!
//! There is at most one per cluster and instance, and the last wins: "remove" replaces a "deploy" that was not taken.

use protocol::id::Id;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub service: Id,
    pub kind: CommandKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CommandKind {
    Deploy(u32),
    Remove(u32),
    /// Every instance of the service: whoever tells does not know it (any more).
    RemoveAll,
}
