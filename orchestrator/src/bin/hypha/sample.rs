//! Documents for tests, as a root gives them.

use protocol::cluster::{Cluster, ReportedWorker, Worker, WorkerState};
use protocol::id::Id;
use protocol::service::Service;
use serde_json::json;

use crate::api::App;

pub(crate) fn id(number: u8) -> Id {
    Id::from_bytes([number; 12])
}

pub(crate) fn app(number: u8, name: &str, namespace: &str) -> App {
    App {
        id: id(number),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        description: String::new(),
        owner: "Admin".to_owned(),
    }
}

/// A service of `app` in the namespace of that, without instances.
pub(crate) fn service(app: &App, number: u8, name: &str) -> Service {
    let namespace = &app.namespace;
    serde_json::from_value(json!({
        "_id": id(number),
        "microserviceID": id(number).to_string(),
        "job_name": format!("{}.{namespace}.{name}.{namespace}", app.name),
        "microservice_name": name, "microservice_namespace": namespace,
        "virtualization": "docker", "code": "docker.io/library/busybox:1", "image": "docker.io/library/busybox:1",
        "memory": 16, "vcpus": 1,
        "applicationID": app.id, "app_name": app.name, "app_ns": namespace,
        "service_name": name, "service_ns": namespace,
        "instance_list": [], "RR_ip": "10.30.0.4", "status": "RUNNING",
    }))
    .expect("a sample of our own")
}

pub(crate) fn cluster(number: u8, name: &str) -> Cluster {
    serde_json::from_value(json!({
        "_id": id(number), "active": true, "active_nodes": 2, "candidate_name": name, "cluster_name": name,
        "candidate_location": "48.26,11.67", "cluster_location": "48.26,11.67", "ip": "192.0.2.20", "port": "10100",
        "vcpus": 4, "total_cpu_cores": 4, "vgpus": 0, "total_gpu_cores": 0, "memory": 46400, "memory_in_mb": 46400,
        "cpu_percent": 37.98, "aggregated_cpu_percent": 37.98, "memory_percent": 2.5, "vram": 0, "vram_percent": 0.0,
        "gpu_temp": 0.0, "gpu_percent": 0, "gpu_drivers": null, "virtualization": ["docker", "docker"],
        "supported_addons": [], "csi_drivers": [], "cpu_history": [], "memory_history": [],
        "last_modified_timestamp": 1_795_374_561.67,
    }))
    .expect("a sample of our own")
}

/// When clusters told of their workers.
pub(crate) const TOLD: f64 = 1_795_374_558.67;

pub(crate) fn worker(cluster: &str, name: &str, change: impl FnOnce(&mut Worker)) -> Worker {
    let mut worker = Worker {
        cluster_id: id(4),
        cluster_name: cluster.to_owned(),
        cluster_active: true,
        told_timestamp: TOLD,
        worker: ReportedWorker {
            id: id(9),
            name: name.to_owned(),
            ip: "192.0.2.31".to_owned(),
            state: WorkerState::Ready,
            cordoned: false,
            draining: false,
            silent: 1,
            vcpus: 4,
            cpu_percent: 7.6,
            memory: 3200,
            memory_percent: 20.0,
            architecture: "arm64".to_owned(),
            virtualization: vec!["docker".to_owned()],
            instances: 3,
            rtt_ms: None,
            itself: None,
        },
    };
    change(&mut worker);
    worker
}
