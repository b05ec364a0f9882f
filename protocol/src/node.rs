//! Cluster and worker: the handshake over HTTP, then reports and commands over MQTT.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::Id;
use crate::lenient::null_as_default;
use crate::location::Location;
use crate::name::ServiceName;
use crate::status::Status;

/// A worker describing itself: whole in the handshake, with only the changing fields in the report of every 2 s
/// (topic `nodes/{id}/information`), where the rest is blank. A reader ignores blank text and `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name that identifies a worker at its cluster.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub port: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_info: Option<SystemInfo>,
    /// 0 to 100, of the whole machine.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cpu_percent: f64,
    /// Logical cores.
    #[serde(default, deserialize_with = "null_as_default")]
    pub vcpus: u32,
    /// As Go names it: `amd64`, `arm64`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub memory_percent: f64,
    /// Available memory, MiB.
    #[serde(default, deserialize_with = "null_as_default")]
    pub memory: u64,
    #[serde(default)]
    pub disk_info: Option<Map<String, Value>>,
    #[serde(default)]
    pub network_info: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub vgpus: u32,
    /// Left out when empty: a cluster of Oakestra's would take an empty list for "runs nothing".
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub virtualization: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub supported_addons: Vec<Value>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub csi_drivers: Vec<Value>,
    /// Where the machine is, if it was told; a key of our own.
    #[serde(default, deserialize_with = "crate::location::known", skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Node {
    /// MB that are free on the disk with the state of the worker, if it is one of Hypha's and says so.
    #[must_use]
    pub fn disk_free(&self) -> Option<u64> {
        self.disk_info.as_ref()?.get(DISK_FREE)?.as_str()?.parse().ok()
    }
}

/// A key of [`Node::disk_info`]: MB, as text.
pub const DISK_FREE: &str = "free_mb";

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SystemInfo {
    #[serde(default)]
    pub kernel_version: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os_version: String,
    #[serde(default)]
    pub uptime: String,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Answer to `POST /api/node/register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    pub id: Id,
    /// A number as text.
    #[serde(rename = "MQTT_BROKER_PORT")]
    pub mqtt_broker_port: String,
    /// Of Hypha's clusters: the worker need not repeat what has not changed, as long as it says at least once in so many
    /// milliseconds that it is there ([`crate::topic::NodeTopic::Alive`]). Nothing: it repeats everything every 2 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive_every: Option<NonZeroU32>,
}

/// `nodes/{id}/job`: what became of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    pub sname: ServiceName,
    pub status: Status,
    #[serde(default, deserialize_with = "null_as_default")]
    pub status_detail: String,
    pub instance: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    pub publicip: String,
}

/// `nodes/{id}/jobs/resources`: what the instances of a worker use, every 2 s or when it has changed (see
/// [`Registered::alive_every`]). Being named here is being alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceReport {
    #[serde(default, deserialize_with = "null_as_default")]
    pub services: Vec<InstanceResources>,
    /// Of Hypha's workers: the rest of the same report follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceResources {
    /// Numbers as text.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cpu_percent: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub memory_percent: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub disk: String,
    /// The last KiB of what the instance wrote.
    #[serde(default, deserialize_with = "null_as_default")]
    pub logs: String,
    pub job_name: ServiceName,
    #[serde(default, deserialize_with = "null_as_default")]
    pub virtualization: String,
    pub instance: u32,
}

/// `nodes/{id}/control/deploy`: run this instance. The whole service document with the instance's number beside it;
/// a worker reads these keys of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    #[serde(flatten)]
    pub service: crate::service::Service,
    pub instance_number: u32,
}

/// `nodes/{id}/control/delete`: stop this instance and remove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    pub job_name: ServiceName,
    #[serde(default, deserialize_with = "null_as_default")]
    pub virtualization: String,
    pub instance_number: u32,
}
