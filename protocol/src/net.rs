//! The overlay's control: node-engine and netmanager (local HTTP), netmanager and cluster (MQTT), cluster and root (HTTP).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::balancing::Balancing;
use crate::id::Id;
use crate::lenient::{null_as_default, port};
use crate::link::LinkOffer;
use crate::location::{self, Location};
use crate::name::ServiceName;
use crate::plan::Plan;

/// `POST /register` of netmanager: which worker this is, and where its cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    pub client_id: String,
    /// Host of the cluster; empty: as configured.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cluster_address: String,
}

/// `POST /container/deploy` of netmanager: connect the network namespace of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attach {
    pub pid: i32,
    pub service_name: ServiceName,
    pub instance_number: u32,
    /// `hostPort[:containerPort][/tcp|/udp]`, several separated by `;`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub port_mappings: String,
}

/// Answer to [`Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    pub service_name: ServiceName,
    pub ns_address: Ipv4Addr,
    #[serde(rename = "nsAddressv6")]
    pub ns_address_v6: String,
}

/// `POST /container/undeploy` of netmanager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detach {
    pub service_name: ServiceName,
    pub instance_number: u32,
}

/// `nodes/{id}/net/subnet`: a worker asks for its block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetRequest {
    #[serde(rename = "METHOD")]
    pub method: String,
}

/// `nodes/{id}/net/subnetwork/result`: first address of the worker's /26, and of its /120.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetResult {
    pub address: Ipv4Addr,
    /// Empty from version 0.4.2.
    #[serde(default, deserialize_with = "null_as_default")]
    pub addressv6: String,
    /// Of which plan they are. Not Oakestra's key: nothing where its plan is meant.
    #[serde(default, skip_serializing_if = "Plan::is_oakestras", deserialize_with = "null_as_default")]
    pub plan: Plan,
}

/// `nodes/{id}/net/tablequery/request`: one of the two is set, the other is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableQuery {
    #[serde(default, deserialize_with = "null_as_default")]
    pub sname: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub sip: String,
}

/// `nodes/{id}/net/tablequery/result`: all instances of a service. An empty list is "there are none".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableResult {
    /// Empty when the query was by an address that belongs to no service.
    #[serde(default, deserialize_with = "null_as_default")]
    pub app_name: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub instance_list: Vec<TableInstance>,
    /// The name or address that was asked for; empty from version 0.4.2.
    #[serde(default, deserialize_with = "null_as_default")]
    pub query_key: String,
    /// Of Hypha's clusters: instances that are being stopped. They get nothing new and keep what they have until they are
    /// gone. Oakestra's workers do not look here, and cut such connections.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<TableInstance>,
}

/// One instance in a [`TableResult`]. The four places are `null` until it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableInstance {
    pub instance_number: u32,
    #[serde(default)]
    pub instance_ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub instance_ip_v6: Option<String>,
    #[serde(default)]
    pub cluster_id: Option<Id>,
    #[serde(default)]
    pub worker_id: Option<Id>,
    #[serde(default)]
    pub namespace_ip: Option<String>,
    /// Go's workers refuse an entry where this cannot be parsed.
    #[serde(default)]
    pub namespace_ip_v6: Option<String>,
    #[serde(default)]
    pub host_ip: Option<String>,
    #[serde(default, deserialize_with = "port")]
    pub host_port: u16,
    /// Of Hypha's nodes: see [`LinkOffer`].
    #[serde(default, skip_serializing_if = "LinkOffer::is_empty")]
    pub links: LinkOffer,
    /// Of Hypha's clusters, for instances behind a closest address: how far its node is from the one that is told, if it is
    /// known where both are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kilometres: Option<u32>,
    /// Of Hypha's clusters, for instances behind a closest address: it has no processor time left. As long as others have,
    /// it is to get nothing new, however close it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub busy: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    pub service_ip: Vec<ServiceIp>,
}

/// A ServiceIP and its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceIp {
    #[serde(rename = "IpType")]
    pub ip_type: IpType,
    #[serde(rename = "Address", default, deserialize_with = "null_as_default")]
    pub address: String,
    #[serde(rename = "Address_v6", default, deserialize_with = "null_as_default")]
    pub address_v6: String,
    /// Of a round robin address. Not Oakestra's key: nothing where each has its turn.
    #[serde(
        default,
        skip_serializing_if = "Balancing::is_round_robin",
        deserialize_with = "null_as_default"
    )]
    pub balancing: Balancing,
}

/// How a ServiceIP chooses among instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpType {
    #[serde(rename = "RR")]
    RoundRobin,
    Closest,
    /// One fixed instance. Any word that is not known means this, as in Oakestra.
    #[serde(rename = "instance_ip", other)]
    Instance,
}

/// `nodes/{id}/net/service/deployed`: an instance got its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDeployed {
    pub appname: ServiceName,
    pub status: String,
    pub instance_number: u32,
    pub nsip: Ipv4Addr,
    /// Always a parsable address, also from workers without IPv6.
    #[serde(default, deserialize_with = "null_as_default")]
    pub nsipv6: String,
    /// A number as text, unlike elsewhere.
    #[serde(default, deserialize_with = "port", serialize_with = "as_text")]
    pub host_port: u16,
    pub host_ip: IpAddr,
    /// Of Hypha's nodes: see [`LinkOffer`].
    #[serde(default, skip_serializing_if = "LinkOffer::is_empty")]
    pub links: LinkOffer,
}

/// `nodes/{id}/net/service/undeployed`: an instance lost its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUndeployed {
    pub appname: ServiceName,
    pub status: String,
    pub instance_number: u32,
}

/// `nodes/{id}/net/service/address-changed`: the worker of an instance is reached at another address from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressChanged {
    pub appname: ServiceName,
    pub instance_number: u32,
    #[serde(default, deserialize_with = "port", serialize_with = "as_text")]
    pub host_port: u16,
    pub host_ip: IpAddr,
}

/// `nodes/{id}/net/host`: under which NsIP the worker's own processes speak to services, and where it is reached. Nobody
/// is sent to that address but with an answer. A cluster that knows it answers a [`TableQuery`] for the NsIP with an entry
/// that has no ServiceIP and an empty `app_name`; Oakestra's workers never ask for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeItself {
    pub nsip: Ipv4Addr,
    /// Nothing from workers without IPv6.
    #[serde(default)]
    pub nsipv6: Option<Ipv6Addr>,
    #[serde(deserialize_with = "port", serialize_with = "as_text")]
    pub host_port: u16,
    pub host_ip: IpAddr,
    /// Of Hypha's nodes: see [`LinkOffer`].
    #[serde(default, skip_serializing_if = "LinkOffer::is_empty")]
    pub links: LinkOffer,
}

/// `nodes/{id}/net/interest/remove`: a worker no longer wants updates of this service. A name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterestRemove {
    pub appname: String,
}

/// `jobs/{name}/updates_available`: ask again for the table of this service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateAvailable {
    #[serde(rename = "type")]
    pub kind: UpdateKind,
    /// The table itself, where it is small and the same for all: nobody need ask then. Not Oakestra's key; its workers ask all the
    /// same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Box<TableResult>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum UpdateKind {
    Deployment,
    Undeployment,
}

/// `GET /api/net/subnet` of the root (10099).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub subnet_addr: Ipv4Addr,
    pub subnet_addr_v6: Ipv6Addr,
    /// Of which plan they are. Not Oakestra's key: nothing where its plan is meant.
    #[serde(default, skip_serializing_if = "Plan::is_oakestras", deserialize_with = "null_as_default")]
    pub plan: Plan,
}

/// Answer of the root (10099) to `/api/net/service/{name}/instances` and `/api/net/service/ip/{ip}/instances`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetService {
    #[serde(rename = "_id")]
    pub id: Id,
    pub job_name: ServiceName,
    #[serde(default, deserialize_with = "null_as_default")]
    pub service_ip_list: Vec<ServiceIp>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub instance_list: Vec<NetInstance>,
}

/// An instance's addresses and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetInstance {
    pub instance_number: u32,
    #[serde(default)]
    pub instance_ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub instance_ip_v6: Option<String>,
    #[serde(default)]
    pub cluster_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Id>,
    #[serde(default)]
    pub namespace_ip: Option<String>,
    #[serde(default)]
    pub namespace_ip_v6: Option<String>,
    #[serde(default)]
    pub host_ip: Option<String>,
    #[serde(default, deserialize_with = "port")]
    pub host_port: u16,
    /// Of Hypha's nodes: see [`LinkOffer`].
    #[serde(default, skip_serializing_if = "LinkOffer::is_empty")]
    pub links: LinkOffer,
    /// Of Hypha's clusters: where the node is, if that is known.
    #[serde(default, deserialize_with = "location::known", skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

/// `POST /api/net/service/net_deploy_status` of the root (10099): instances got their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDeployStatus {
    pub job_id: Id,
    pub instances: Vec<NetInstance>,
}

/// `POST /api/net/cluster` of the root (10099).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetCluster {
    pub cluster_id: Id,
    pub cluster_address: String,
    #[serde(deserialize_with = "port")]
    pub cluster_port: u16,
}

/// `POST /api/net/deployment` of the cluster (10110).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetDeployment {
    pub job_name: ServiceName,
}

/// `POST /api/net/job/update` of the cluster (10110). Instance -1 is all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobUpdate {
    pub job_name: ServiceName,
    pub instance_number: i64,
    #[serde(rename = "type")]
    pub kind: UpdateKind,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn as_text<S: serde::Serializer>(port: &u16, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(port)
}
