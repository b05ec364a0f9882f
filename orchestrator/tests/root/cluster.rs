//! A cluster as the root sees it: it registers, takes commands, and remembers them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::{Json, Router};
pub(crate) use orchestrator::registration::CLUSTER_HEADER;
use orchestrator::registration::register_cluster_client::RegisterClusterClient;
use orchestrator::registration::{Cs1Message, Cs2Message, KeyValue};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::bed::{Bed, eventually};

pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) port: u16,
    told: Arc<Told>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    requests: Mutex<Vec<Order>>,
    /// It answers everything with this, if anything.
    refusal: Mutex<Option<StatusCode>>,
    /// What it decided, if it is one that says.
    decided: Mutex<Option<Value>>,
}

/// `POST /api/service/…` with its body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) what: String,
    pub(crate) body: Value,
}

impl Cluster {
    /// Registers, and reports room for anything.
    pub(crate) async fn join(bed: &Bed, name: &str) -> Self {
        let mut cluster = Self::register(bed, name).await;
        cluster.serve().await;
        cluster.report(bed, json!([])).await;
        cluster
    }

    /// Registers, and is not there.
    pub(crate) async fn register(bed: &Bed, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = RegisterClusterClient::connect(format!("http://{}", bed.at.grpc)).await.unwrap();
        let greeting = json!({ "cluster_name": name, "location": "here" }).to_string();
        client.handle_init_greeting(Cs1Message { hello_service_manager: greeting }).await.unwrap();
        let registration = Cs2Message {
            manager_port: port.into(),
            network_component_port: port.into(),
            cluster_name: name.to_owned(),
            cluster_info: vec![KeyValue::default()],
            cluster_location: "here".to_owned(),
        };
        let id = client.handle_init_final(registration).await.unwrap().into_inner().id;
        Self { id, port, told: Arc::default(), serving: None }
    }

    pub(crate) async fn serve(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let listener = TcpListener::bind(address).await.unwrap();
        let router = Router::new().fallback(take).with_state(self.told.clone());
        self.serving = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    pub(crate) fn refuse(&self, refusal: Option<StatusCode>) {
        *self.told.refusal.lock().unwrap() = refusal;
    }

    /// Says from now on how it decided.
    pub(crate) fn decides(&self, decisions: Value) {
        *self.told.decided.lock().unwrap() = Some(decisions);
    }

    /// Reports as a HEAD cluster of Oakestra does.
    pub(crate) async fn report(&self, bed: &Bed, jobs: Value) {
        self.report_with(bed, 4000, jobs).await;
    }

    pub(crate) async fn report_with(&self, bed: &Bed, memory: u64, jobs: Value) {
        let report = json!({
            "cpu_percent": 12.5, "memory_percent": 2.5, "vcpus": 4, "memory": memory, "vgpus": 0, "active_nodes": 2,
            "virtualization": ["docker", "docker"], "supported_addons": [], "csi_drivers": [], "gpu_drivers": null,
            "gpu_temp": 0.0, "gpu_percent": 0, "vram": 0, "vram_percent": 0.0, "aggregation_per_architecture": {},
            "cpu_history": [], "memory_history": [], "jobs": jobs,
        });
        bed.post(&format!("/api/information/{}", self.id), report).await.ok();
    }

    /// Reports nothing but these workers, as a cluster of ours does.
    pub(crate) async fn report_workers(&self, bed: &Bed, workers: Value) {
        let report =
            json!({ "active_nodes": workers.as_array().map(Vec::len), "jobs": [], "workers": workers });
        bed.post(&format!("/api/information/{}", self.id), report).await.ok();
    }

    pub(crate) fn orders(&self) -> Vec<Order> {
        self.told.requests.lock().unwrap().clone()
    }

    /// Waits for an order.
    pub(crate) async fn told(&self, what: &str) -> Order {
        eventually(
            what,
            || async { self.orders() },
            |orders| orders.iter().find(|order| order.what == what).cloned(),
        )
        .await
    }

    /// Forgets what it was told so far.
    pub(crate) fn forget(&self) {
        self.told.requests.lock().unwrap().clear();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn take(State(told): State<Arc<Told>>, request: Request) -> (StatusCode, Json<Value>) {
    let what = format!("{} {}", request.method(), request.uri().path());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    if let Some(refusal) = *told.refusal.lock().unwrap() {
        return (refusal, Json(json!({ "message": "not now" })));
    }
    if what.starts_with("GET /v1/why/") {
        let decided = told.decided.lock().unwrap().clone();
        return match decided {
            Some(decisions) => (StatusCode::OK, Json(decisions)),
            None => (StatusCode::NOT_FOUND, Json(json!({}))),
        };
    }
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    told.requests.lock().unwrap().push(Order { what, body });
    (StatusCode::OK, Json(json!({ "status": "ok" })))
}

/// A job in a report, with one instance.
pub(crate) fn job(service: &Value, number: u32, status: &str) -> Value {
    json!({
        "_id": service["microserviceID"],
        "job_name": service["job_name"],
        "status": status,
        "instance_list": [{
            "instance_number": number, "cluster_location": "here", "status": status,
            "status_detail": "No extra information", "worker_id": "6b033dc62c1f07cbdcd88440",
            "host_ip": "192.0.2.32", "host_port": 50011, "publicip": "192.0.2.32", "cpu_percent": "1.500000",
            "memory_percent": "0.000031", "disk": "8192", "logs": "hello", "last_modified_timestamp": 1795374560.07,
            "cpu_history": [{ "value": null, "timestamp": "2026-11-22T19:09:09.709428" }], "memory_history": [],
        }],
    })
}
