//! Shapes in the API's description whose types are elsewhere, or are no types at all: documents of clients, which may
//! have more keys than are written here. None is ever made: a test holds what is served against them.
#![allow(dead_code, reason = "only described")]

use serde_json::Value;
use utoipa::ToSchema;

/// An id as MongoDB writes it: `{"$oid": "…"}`.
#[derive(Debug, ToSchema)]
pub(in crate::root) struct ObjectId {
    #[schema(rename = "$oid", pattern = "^[0-9a-f]{24}$")]
    oid: String,
}

/// An application.
#[derive(Debug, ToSchema)]
pub(super) struct Application {
    #[schema(rename = "_id")]
    id: ObjectId,
    #[schema(rename = "applicationID")]
    application_id: String,
    application_name: String,
    application_namespace: String,
    application_desc: String,
    /// Ids of its services.
    microservices: Vec<String>,
    /// Name of the user whose it is.
    #[schema(rename = "userId")]
    user_id: String,
}

/// A service with its instances: all keys of its SLA, and these.
#[derive(Debug, ToSchema)]
pub(super) struct Service {
    #[schema(rename = "_id")]
    id: ObjectId,
    #[schema(rename = "microserviceID")]
    microservice_id: String,
    microservice_name: String,
    microservice_namespace: String,
    #[schema(rename = "applicationID")]
    application_id: String,
    app_name: String,
    app_ns: String,
    /// `application.namespace.service.namespace`.
    job_name: String,
    image: String,
    virtualization: String,
    next_instance_progressive_number: u32,
    #[schema(rename = "RR_ip")]
    rr_ip: Option<String>,
    #[schema(rename = "RR_ip_v6")]
    rr_ip_v6: Option<String>,
    /// That of the instance which most needs a look. Missing while there is none.
    status: Option<String>,
    status_detail: Option<String>,
    instance_list: Vec<Instance>,
}

/// An instance of a service.
#[derive(Debug, ToSchema)]
pub(super) struct Instance {
    instance_number: u32,
    cluster_id: Option<String>,
    cluster_location: Option<String>,
    status: String,
    status_detail: Option<String>,
    worker_id: Option<String>,
    host_ip: Option<String>,
    host_port: u16,
    publicip: Option<String>,
    /// A number as text, as are the next two.
    cpu_percent: Option<String>,
    memory_percent: Option<String>,
    disk: Option<String>,
    /// The last KiB of what it wrote.
    logs: String,
    cpu_history: Vec<Value>,
    memory_history: Vec<Value>,
    last_modified_timestamp: f64,
}

/// A cluster, each thing under the names of two generations of clients.
#[derive(Debug, ToSchema)]
pub(super) struct Cluster {
    #[schema(rename = "_id")]
    id: String,
    active: bool,
    /// It is given nothing new.
    cordoned: bool,
    /// Since when it hears nothing of its workers, seconds since the epoch; missing while it does.
    broker_away_since: Option<f64>,
    active_nodes: u32,
    candidate_name: String,
    cluster_name: String,
    candidate_location: String,
    cluster_location: String,
    ip: String,
    port: String,
    vcpus: u32,
    total_cpu_cores: u32,
    vgpus: u32,
    total_gpu_cores: u32,
    memory: u64,
    memory_in_mb: u64,
    virtualization: Vec<String>,
    supported_addons: Vec<Value>,
    last_modified_timestamp: f64,
}

/// What would become of an SLA.
#[derive(Debug, ToSchema)]
pub(super) struct Validation {
    /// What is wrong with it; then there is nothing else.
    problems: Vec<Invalid>,
    applications: Vec<PlannedApplication>,
}

#[derive(Debug, ToSchema)]
struct Invalid {
    /// A JSON pointer; empty where the whole is meant.
    pointer: String,
    message: String,
}

#[derive(Debug, ToSchema)]
struct PlannedApplication {
    /// With its namespace.
    name: String,
    exists: bool,
    services: Vec<PlannedService>,
}

#[derive(Debug, ToSchema)]
struct PlannedService {
    /// With its namespace.
    name: String,
    clusters: Vec<ClusterVerdict>,
}

/// Everything in numbers, and what somebody may have to act on.
#[derive(Debug, ToSchema)]
pub(super) struct Overview {
    clusters: ClusterTotals,
    workers: WorkerTotals,
    apps: u64,
    services: u64,
    instances: InstanceTotals,
    /// The most serious first.
    problems: Vec<Problem>,
}

#[derive(Debug, ToSchema)]
struct ClusterTotals {
    active: u64,
    total: u64,
}

#[derive(Debug, ToSchema)]
struct WorkerTotals {
    active: u32,
    cordoned: u64,
    draining: u64,
    cpus: u32,
    memory_free_mb: u64,
}

#[derive(Debug, ToSchema)]
struct InstanceTotals {
    running: u64,
    waiting: u64,
    failed: u64,
}

/// Something that a person may have to act on.
#[derive(Debug, ToSchema)]
struct Problem {
    #[schema(pattern = "^(error|warning)$")]
    severity: String,
    /// A word that does not change, such as `cluster-lost`.
    #[schema(pattern = "^[a-z-]+$")]
    code: String,
    /// Missing where the whole is meant.
    subject: Option<Subject>,
    /// Seconds since the epoch.
    since: Option<f64>,
    message: String,
}

#[derive(Debug, ToSchema)]
struct Subject {
    #[schema(pattern = "^(cluster|worker|service)$")]
    kind: String,
    #[schema(pattern = "^[0-9a-f]{24}$")]
    id: String,
    name: String,
}

/// What is known of workers.
#[derive(Debug, ToSchema)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    /// Clusters that say nothing of single workers, as Oakestra's, and how many they have.
    untold: Vec<UntoldWorkers>,
}

/// A worker as its cluster last told of it.
#[derive(Debug, ToSchema)]
struct Worker {
    #[schema(rename = "_id")]
    id: String,
    name: String,
    cluster_id: String,
    cluster_name: String,
    /// Whether the cluster is heard of; if not, the rest is old.
    cluster_active: bool,
    /// When its cluster last told: seconds since the epoch.
    told_timestamp: f64,
    ip: String,
    /// `ready`, `unreachable` or `dead`.
    state: String,
    /// Nothing new is placed there.
    cordoned: bool,
    /// What runs there moves to others.
    draining: bool,
    /// Seconds since it was last heard of.
    silent: u64,
    vcpus: u32,
    cpu_percent: f64,
    /// Available, MiB.
    memory: u64,
    memory_percent: f64,
    architecture: String,
    virtualization: Vec<String>,
    instances: u32,
    /// The usual round trip to other workers of its cluster: milliseconds.
    rtt_ms: Option<f64>,
}

#[derive(Debug, ToSchema)]
struct UntoldWorkers {
    cluster_name: String,
    count: u32,
}

/// Why the instances of a service are where they are.
#[derive(Debug, ToSchema)]
pub(super) struct Why {
    instances: Vec<WhyInstance>,
    clusters: Vec<ClusterVerdict>,
}

#[derive(Debug, ToSchema)]
struct WhyInstance {
    instance_number: u32,
    /// The last attempts of its cluster to place it, the newest first.
    decisions: Vec<Decision>,
    /// Why the cluster's decisions are not known. Empty: they are, or it has no cluster.
    unknown: String,
}

/// Whether a cluster could take one more instance.
#[derive(Debug, ToSchema)]
struct ClusterVerdict {
    cluster: String,
    /// Empty: it could.
    lacks: String,
}

/// One attempt to place an instance.
#[derive(Debug, ToSchema)]
struct Decision {
    /// Seconds since the epoch.
    at: f64,
    /// How many attempts in a row ended like this one.
    times: u32,
    algorithm: String,
    /// How many workers were looked at.
    candidates: u32,
    /// `null`: none fits.
    chosen: Option<String>,
    /// By the first filter that each worker did not pass.
    rejections: Vec<Rejection>,
    /// Of those that fit, the best first; parts are compared from the first on, less is better.
    scores: Vec<Score>,
    /// Single changes, any one of which would make room.
    would_help: Vec<String>,
}

#[derive(Debug, ToSchema)]
struct Rejection {
    filter: String,
    count: u32,
    detail: String,
}

#[derive(Debug, ToSchema)]
struct Score {
    worker: String,
    parts: Vec<ScorePart>,
}

#[derive(Debug, ToSchema)]
struct ScorePart {
    name: String,
    value: u64,
}

/// What became of the services that were added to an application.
#[derive(Debug, ToSchema)]
pub(super) struct Added {
    /// Id of the last one.
    job_id: Option<String>,
    deployed_services: Vec<AddedService>,
    failed_services: Vec<Value>,
}

#[derive(Debug, ToSchema)]
struct AddedService {
    service_name: String,
    status: String,
}

/// The instance that was asked for.
#[derive(Debug, ToSchema)]
pub(super) struct Started {
    message: String,
    instance_number: u32,
}

/// A deployment descriptor. More keys are allowed everywhere, and kept.
#[derive(Debug, ToSchema)]
pub(super) struct Sla {
    #[schema(pattern = "^v2[.]0$", example = "v2.0")]
    sla_version: String,
    #[schema(rename = "customerID", max_length = 4096, example = "Admin")]
    customer_id: String,
    #[schema(min_items = 1, max_items = 100)]
    applications: Vec<SlaApplication>,
}

#[derive(Debug, ToSchema)]
struct SlaApplication {
    /// Empty, or the id of the application that services are added to.
    #[schema(rename = "applicationID", max_length = 30, example = "")]
    application_id: Option<String>,
    #[schema(pattern = "^[A-Za-z0-9]{1,30}$", example = "shop")]
    application_name: String,
    #[schema(pattern = "^[A-Za-z0-9]{1,30}$", example = "demo")]
    application_namespace: String,
    #[schema(max_length = 4096, example = "a shop")]
    application_desc: Option<String>,
    #[schema(max_items = 1000)]
    microservices: Vec<SlaService>,
}

#[derive(Debug, ToSchema)]
struct SlaService {
    /// Empty: the root gives it.
    #[schema(rename = "microserviceID", max_length = 0, example = "")]
    microservice_id: Option<String>,
    #[schema(pattern = "^[A-Za-z0-9]{1,30}$", example = "web")]
    microservice_name: String,
    #[schema(pattern = "^[A-Za-z0-9]{1,30}$", example = "demo")]
    microservice_namespace: String,
    /// `container`, or the name of another runtime of the workers.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$", example = "container")]
    virtualization: String,
    /// The image.
    #[schema(pattern = "^[!-~]{1,4096}$", example = "docker.io/library/nginx:latest")]
    code: String,
    #[schema(example = json!([]))]
    cmd: Option<Vec<String>>,
    /// `NAME=VALUE` each.
    #[schema(example = json!([]))]
    environment: Option<Vec<String>>,
    /// MB.
    #[schema(maximum = 16777216, example = 100)]
    memory: Option<u64>,
    #[schema(maximum = 4096, example = 1)]
    vcpus: Option<u32>,
    /// `hostPort[:containerPort][/tcp|/udp]`, several separated by `;`.
    #[schema(example = "")]
    port: Option<String>,
    one_shot: Option<bool>,
    privileged: Option<bool>,
}
