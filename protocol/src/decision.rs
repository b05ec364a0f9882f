//! How a place was chosen for an instance, or why there was none: what `hypha why` shows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One attempt to place an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Seconds since the epoch.
    pub at: f64,
    /// How many attempts in a row ended like this one, which is the last of them.
    pub times: u32,
    /// The algorithm that chose among those that fit.
    pub algorithm: Cow<'static, str>,
    /// How many workers were looked at.
    pub candidates: u32,
    /// Name of the worker that was chosen; `None`: none fits.
    pub chosen: Option<String>,
    /// By the first filter that each worker did not pass, in the order in which filters are applied.
    pub rejections: Vec<Rejection>,
    /// Of those that fit, the chosen one first. At most [`SCORES_MAX`].
    pub scores: Vec<Score>,
    /// Single changes, any one of which would make room now.
    pub would_help: Vec<String>,
}

/// So many scores are told of one decision.
pub const SCORES_MAX: usize = 5;

/// Workers that one filter turned down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// A word: `memory`, `distance`.
    pub filter: Cow<'static, str>,
    pub count: u32,
    /// What was wanted, and who comes closest.
    pub detail: String,
}

/// What speaks against a worker that fits: parts, compared from the first to the last; less is better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    pub worker: String,
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: Cow<'static, str>,
    pub value: u64,
}

/// Answer to `GET /v1/why/{service}` of a cluster: by the numbers of the instances it has, the last attempts to place each,
/// the newest first. They are kept in memory, so that none is known of what was placed before the cluster started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decisions {
    pub instances: BTreeMap<u32, Vec<Decision>>,
}

/// Answer to `GET /v1/why/{service}` of the root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub instances: Vec<WhyInstance>,
    /// What the root makes of each cluster now, by name.
    pub clusters: Vec<ClusterVerdict>,
}

/// See [`Why`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyInstance {
    pub instance_number: u32,
    /// What its cluster decided, the newest first.
    pub decisions: Vec<Decision>,
    /// Why its cluster's decisions are not known. Empty: they are, or it has no cluster.
    pub unknown: String,
}

/// Whether a cluster could take one more instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterVerdict {
    pub cluster: String,
    /// Empty: it could.
    pub lacks: String,
}
