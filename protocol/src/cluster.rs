//! Root and cluster: reports upwards (HTTP). The registration is gRPC, in the orchestrator's `proto` folder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::Id;
use crate::lenient::null_as_default;
use crate::location::Location;
use crate::name::ServiceName;
use crate::net::NodeItself;
use crate::service::Instance;
use crate::status::Status;

/// `POST /api/information/{cluster_id}` of the root, every 15 s and on each change: sums over the active workers, and
/// every service of the cluster with its instances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    #[serde(default, deserialize_with = "null_as_default")]
    pub cpu_percent: f64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub memory_percent: f64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub vcpus: u32,
    /// Available, MiB.
    #[serde(default, deserialize_with = "null_as_default")]
    pub memory: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub vgpus: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    pub active_nodes: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    pub virtualization: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub supported_addons: Vec<Value>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub csi_drivers: Vec<Value>,
    pub jobs: Vec<ReportedService>,
    /// Of Hypha's clusters: all workers that they know, the silent ones too. Oakestra's say nothing of single workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Vec<ReportedWorker>>,
    /// Of Hypha's clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<Largest>,
    /// Of Hypha's clusters: the root answered the report before with this number ([`TAKEN_HEADER`]), and of services and
    /// workers there is only what has changed since then. Nothing: there is everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u32>,
    /// Of Hypha's clusters whose broker is another program: for how many seconds it has been out of reach, so that nobody there
    /// is heard or can be told anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_away: Option<u64>,
    /// Workers that a report before has told of, and that the cluster does not know any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<Id>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// In the root's answer to a [`Report`]: a number for [`Report::since`]. Of Hypha's roots. One that does not know a number
/// that it is told answers 409, and is to be told everything.
pub const TAKEN_HEADER: &str = "hypha-report";

/// What a single worker of a cluster offers at most, each amount perhaps another one: a service must fit on one worker,
/// and the sums over all of them do not say whether it does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Largest {
    /// MiB that may still be given out.
    #[serde(default)]
    pub memory: u64,
    /// MB on disk likewise. `None`: some do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    #[serde(default)]
    pub vcpus: u32,
    #[serde(default)]
    pub vgpus: u32,
    /// All that there are, as Go names them.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Where its workers are. `None`: of some it is not known, or they are at too many places to tell.
    #[serde(default)]
    pub locations: Option<Vec<Location>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportedService {
    #[serde(rename = "_id")]
    pub id: Id,
    pub job_name: ServiceName,
    #[serde(default)]
    pub status: Option<Status>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub instance_list: Vec<Instance>,
}

/// One of the workers in a [`Report`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportedWorker {
    #[serde(rename = "_id")]
    pub id: Id,
    /// Its host name, by which its cluster knows it.
    pub name: String,
    /// As it registered; text, since it is for people.
    pub ip: String,
    pub state: WorkerState,
    /// Nothing new is placed there, by the will of an operator.
    #[serde(default)]
    pub cordoned: bool,
    /// What runs there is moved to others, likewise.
    #[serde(default)]
    pub draining: bool,
    /// Seconds since it was last heard of.
    pub silent: u64,
    pub vcpus: u32,
    /// 0 to 100.
    pub cpu_percent: f64,
    /// Available, MiB.
    pub memory: u64,
    /// 0 to 100.
    pub memory_percent: f64,
    pub architecture: String,
    pub virtualization: Vec<String>,
    /// Those that are placed there, in whatever state.
    pub instances: u32,
    /// The usual round trip to the workers that it measures: milliseconds, to a tenth. Nothing: it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Where its own processes are reached, if its netmanager is Hypha's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itself: Option<NodeItself>,
}

/// What a cluster makes of a worker's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It reports.
    Ready,
    /// It has missed reports: what runs there is left where it is.
    Unreachable,
    /// It was silent for the whole worker timeout: what ran there is placed elsewhere.
    Dead,
}

/// Answer to `GET /v1/workers` of the root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// By cluster, then by name.
    pub workers: Vec<Worker>,
    /// Names of the clusters that say nothing of single workers, with how many they have.
    pub untold: Vec<UntoldWorkers>,
}

/// A worker as clients read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    pub cluster_id: Id,
    pub cluster_name: String,
    /// Whether its cluster is heard of; if not, the rest is as it was when it last was.
    pub cluster_active: bool,
    /// When its cluster last spoke of it: seconds since the epoch.
    pub told_timestamp: f64,
    #[serde(flatten)]
    pub worker: ReportedWorker,
}

/// See [`Workers::untold`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UntoldWorkers {
    pub cluster_name: String,
    pub count: u32,
}

/// Answer to `GET /api/cluster/status` of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub cluster_name: String,
    /// Empty before the first registration.
    pub cluster_id: String,
    pub connected_to_root: bool,
    /// Of Hypha's clusters whose broker is another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_to_broker: Option<bool>,
}

/// A cluster as clients read it. Two generations of clients read it, hence each thing under two names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Plain text, unlike all other documents of the root.
    #[serde(rename = "_id")]
    pub id: Id,
    pub active: bool,
    /// It is given nothing new, by the will of an operator; a key of our own.
    #[serde(default)]
    pub cordoned: bool,
    /// Since when its broker is out of reach, if it is: seconds since the epoch. A key of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_away_since: Option<f64>,
    pub active_nodes: u32,
    pub candidate_name: String,
    pub cluster_name: String,
    pub candidate_location: String,
    pub cluster_location: String,
    pub ip: String,
    /// A number as text.
    pub port: String,
    pub vcpus: u32,
    pub total_cpu_cores: u32,
    pub vgpus: u32,
    pub total_gpu_cores: u32,
    pub memory: u64,
    pub memory_in_mb: u64,
    pub cpu_percent: f64,
    pub aggregated_cpu_percent: f64,
    pub memory_percent: f64,
    pub vram: u64,
    pub vram_percent: f64,
    pub gpu_temp: f64,
    pub gpu_percent: f64,
    pub gpu_drivers: Option<Vec<String>>,
    pub virtualization: Vec<String>,
    pub supported_addons: Vec<Value>,
    pub csi_drivers: Vec<Value>,
    pub cpu_history: Vec<Value>,
    pub memory_history: Vec<Value>,
    /// Seconds since the epoch.
    pub last_modified_timestamp: f64,
}
