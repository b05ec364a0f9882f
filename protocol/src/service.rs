//! A service as it is stored, shown, and sent from root to cluster to worker (Oakestra's "job").

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::Id;
use crate::lenient::{null_as_default, port};
use crate::name::ServiceName;
use crate::sla::Microservice;
use crate::status::Status;

/// The virtualization under which containers are stored and dispatched, whatever the SLA called them.
pub const CONTAINER: &str = "docker";

/// A service with its instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Written as plain text; the root's API writes Mongo's extended form instead.
    #[serde(rename = "_id")]
    pub id: Id,
    pub job_name: ServiceName,
    /// What the SLA says of it. Its `microserviceID` is the same as `_id`.
    #[serde(flatten)]
    pub sla: Microservice,
    #[serde(rename = "applicationID")]
    pub application_id: Id,
    pub app_name: String,
    pub app_ns: String,
    pub service_name: String,
    pub service_ns: String,
    /// The same as `code`.
    pub image: String,
    #[serde(default)]
    pub next_instance_progressive_number: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    pub instance_list: Vec<Instance>,
    #[serde(rename = "RR_ip", default)]
    pub rr_ip: Option<String>,
    #[serde(rename = "RR_ip_v6", default)]
    pub rr_ip_v6: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_detail: Option<String>,
}

/// One instance, as clients read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub instance_number: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_location: Option<String>,
    pub status: Status,
    #[serde(default)]
    pub status_detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Id>,
    #[serde(default)]
    pub host_ip: Option<String>,
    /// An integer: the Go client insists on it.
    #[serde(default, deserialize_with = "port")]
    pub host_port: u16,
    #[serde(default)]
    pub publicip: Option<String>,
    /// A number as text, as are the next two: the Go client insists on it.
    #[serde(default)]
    pub cpu_percent: Option<String>,
    #[serde(default)]
    pub memory_percent: Option<String>,
    #[serde(default)]
    pub disk: Option<String>,
    /// The last KiB of what the instance wrote.
    #[serde(default, deserialize_with = "null_as_default")]
    pub logs: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub cpu_history: Vec<Value>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub memory_history: Vec<Value>,
    /// Seconds since the epoch.
    #[serde(default)]
    pub last_modified_timestamp: f64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Instance {
    /// An instance of which nothing is known yet but its number and state.
    #[must_use]
    pub fn new(instance_number: u32, status: Status) -> Self {
        Self {
            instance_number,
            cluster_id: None,
            cluster_location: None,
            status,
            status_detail: None,
            worker_id: None,
            host_ip: None,
            host_port: 0,
            publicip: None,
            cpu_percent: None,
            memory_percent: None,
            disk: None,
            logs: String::new(),
            cpu_history: Vec::new(),
            memory_history: Vec::new(),
            last_modified_timestamp: 0.0,
            extra: Map::new(),
        }
    }
}
