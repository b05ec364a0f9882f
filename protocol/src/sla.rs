//! The deployment descriptor (SLA v2) as people write it. Facts: Oakestra's JSON schema.
//!
//! These types say what can be read; what makes sense is decided by the orchestrator, which names each wrong field
//! by its path. Keys that are not known here are kept in `extra` and given back.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::lenient::null_as_default;

/// The only version that is understood.
pub const VERSION: &str = "v2.0";

/// A whole document: applications, each with its services.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub sla_version: String,
    #[serde(rename = "customerID", default, deserialize_with = "null_as_default")]
    pub customer_id: String,
    pub applications: Vec<Application>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Application {
    /// Assigned when the application is made; empty or absent before.
    #[serde(rename = "applicationID", default, deserialize_with = "null_as_default")]
    pub application_id: String,
    pub application_name: String,
    pub application_namespace: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub application_desc: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub microservices: Vec<Microservice>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One service of an application.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Microservice {
    #[serde(rename = "microserviceID", default, deserialize_with = "null_as_default")]
    pub microservice_id: String,
    pub microservice_name: String,
    pub microservice_namespace: String,
    /// `container` (stored as `docker`), or another runtime's name.
    pub virtualization: String,
    /// OCI image reference, for containers.
    pub code: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// `KEY=VALUE` each.
    #[serde(default, deserialize_with = "null_as_default")]
    pub environment: Vec<String>,
    /// MB.
    #[serde(default, deserialize_with = "null_as_default")]
    pub memory: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub vcpus: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    pub vgpus: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    pub vtpus: u32,
    /// MB.
    #[serde(default, deserialize_with = "null_as_default")]
    pub storage: u64,
    /// kbit/s.
    #[serde(default, deserialize_with = "null_as_default")]
    pub bandwidth_in: u64,
    /// kbit/s.
    #[serde(default, deserialize_with = "null_as_default")]
    pub bandwidth_out: u64,
    /// `hostPort[:containerPort][/tcp|/udp]`, several separated by `;`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub port: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub state: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub added_files: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub one_shot: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub privileged: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub addresses: Addresses,
    #[serde(default, deserialize_with = "null_as_default")]
    pub constraints: Vec<Value>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// ServiceIPs that the author of a service chose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Addresses {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rr_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rr_ip_v6: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closest_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closest_ip_v6: Option<String>,
    /// Each an [`InstanceAddresses`] where this build's rules have passed; anything in other systems' documents.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Value>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Addresses {
    /// The chosen addresses of instances, as far as they can be read.
    pub fn of_instances(&self) -> impl Iterator<Item = InstanceAddresses> {
        self.instances.iter().filter_map(|value| InstanceAddresses::deserialize(value).ok())
    }

    /// An address that is there and not empty: both stand for "any".
    #[must_use]
    pub fn chosen(address: Option<&str>) -> Option<&str> {
        address.filter(|text| !text.is_empty())
    }
}

/// The instances from one number to another, both included, have the ServiceIPs from `start` on, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceAddresses {
    pub from: u32,
    pub to: u32,
    pub start: Ipv4Addr,
}
