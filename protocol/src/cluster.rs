//! Root and cluster: reports upwards (HTTP). The registration is gRPC, in the orchestrator's `proto` folder.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::Id;
use crate::lenient::null_as_default;
use crate::name::ServiceName;
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
    #[serde(flatten)]
    pub extra: Map<String, Value>,
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

/// Answer to `GET /api/cluster/status` of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub cluster_name: String,
    /// Empty before the first registration.
    pub cluster_id: String,
    pub connected_to_root: bool,
}

/// A cluster as clients read it. Two generations of clients read it, hence each thing under two names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Plain text, unlike all other documents of the root.
    #[serde(rename = "_id")]
    pub id: Id,
    pub active: bool,
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
