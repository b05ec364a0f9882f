//! A cluster below a branch that speaks as Oakestra's: it says who it is by its address alone, registers once, and reports sums.

use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::{Json, Router};
use orchestrator::branch;
use orchestrator::registration::register_cluster_client::RegisterClusterClient;
use orchestrator::registration::{Cs1Message, Cs2Message, KeyValue};
use protocol::id::Id;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::bed::Bed;
use crate::root::{eventually, web};

#[derive(Default)]
struct Told {
    requests: Mutex<Vec<(String, Value)>>,
    /// It answers everything with this, if anything.
    refusal: Mutex<Option<StatusCode>>,
}

struct Old {
    id: Id,
    at: branch::Addresses,
    told: Arc<Told>,
    client: Client,
    serving: JoinHandle<()>,
}

impl Drop for Old {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Old {
    async fn join(bed: &Bed) -> Self {
        let at = bed.branch.at;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = Arc::<Told>::default();
        let router = Router::new().fallback(take).with_state(Arc::clone(&told));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut client = RegisterClusterClient::connect(format!("http://{}", at.grpc)).await.unwrap();
        let greeting = json!({ "cluster_name": "old", "location": "here" }).to_string();
        client.handle_init_greeting(Cs1Message { hello_service_manager: greeting }).await.unwrap();
        let registration = Cs2Message {
            manager_port: port.into(),
            network_component_port: port.into(),
            cluster_name: "old".to_owned(),
            cluster_info: vec![KeyValue::default()],
            cluster_location: "here".to_owned(),
        };
        let id = client.handle_init_final(registration).await.unwrap().into_inner().id.parse().unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let old = Self { id, at, told, client, serving };
        old.report(json!([])).await;
        old
    }

    /// All that it has, with more room than anybody else.
    async fn report(&self, jobs: Value) {
        let report = json!({
            "cpu_percent": 12.5, "memory_percent": 2.5, "vcpus": 4, "memory": 9000, "vgpus": 0, "active_nodes": 2,
            "virtualization": ["docker", "docker"], "supported_addons": [], "csi_drivers": [], "gpu_drivers": null,
            "gpu_temp": 0.0, "gpu_percent": 0, "vram": 0, "vram_percent": 0.0, "aggregation_per_architecture": {},
            "cpu_history": [], "memory_history": [], "jobs": jobs,
        });
        let url = format!("http://{}/api/information/{}", self.at.reports, self.id);
        assert_eq!(self.client.post(url).json(&report).send().await.unwrap().status(), 200);
    }

    /// Waits until it is told so, and gives what came with it.
    async fn is_told(&self, what: &str) -> Value {
        let told = || async { self.told.requests.lock().unwrap().clone() };
        let is_it = |told: &Vec<(String, Value)>| told.iter().find(|one| one.0 == what).cloned();
        eventually(what, told, is_it).await.1
    }
}

async fn take(State(told): State<Arc<Told>>, request: Request) -> (StatusCode, Json<Value>) {
    let what = format!("{} {}", request.method(), request.uri().path());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    told.requests.lock().unwrap().push((what, serde_json::from_slice(&body).unwrap_or(Value::Null)));
    let refusal = told.refusal.lock().unwrap().unwrap_or(StatusCode::OK);
    (refusal, Json(json!({ "status": "ok" })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_oakestras_works_below_a_branch_as_below_a_root() {
    let mut bed = Bed::start().await;
    let old = Old::join(&bed).await;
    let mut service = web();
    service["constraints"] = json!([{ "type": "clusters", "allowed": ["north", "old"] }]);
    let service = bed.root.service("shop", service).await;
    bed.root.deploy(&service).await;
    let order = old.is_told(&format!("POST /api/service/{service}/0")).await;
    let instance = &order["instance_list"][0];
    assert_eq!((&instance["instance_number"], &instance["cluster_id"]), (&json!(0), &json!(old.id)));
    assert_eq!(order["instance_list"].as_array().unwrap().len(), 1);

    let name = "shop.test.web.test";
    let running = json!([{ "_id": service, "job_name": name, "status": "RUNNING", "instance_list": [{
        "instance_number": 0, "status": "RUNNING", "status_detail": "", "worker_id": "6b033dc62c1f07cbdcd88440",
        "host_ip": "192.0.2.32", "host_port": 50011 }] }]);
    old.report(running.clone()).await;
    bed.running(&service).await;
    let table = format!("http://{}/api/net/service/{}/instances", old.at.addresses, name.replace('.', "_"));
    let answer: Value = old.client.get(table).send().await.unwrap().json().await.unwrap();
    assert_eq!((&answer["job_name"], &answer["service_name"]), (&json!(name), &json!("web")), "all its keys");
    let status = json!({ "job_id": service, "instances": [{ "instance_number": 0, "namespace_ip": "10.18.9.2",
        "namespace_ip_v6": "fc00::902", "host_ip": "192.0.2.32", "host_port": "50103" }] });
    let url = format!("http://{}/api/net/service/net_deploy_status", old.at.addresses);
    assert_eq!(old.client.post(url).json(&status).send().await.unwrap().status(), 200);
    old.is_told("POST /api/net/job/update").await;
    for worker in [&mut bed.oslo.worker, &mut bed.rome.worker] {
        worker.sees(name, |list| list[0]["namespace_ip"] == "10.18.9.2").await;
    }

    bed.root = bed.root.restart().await;
    bed.deploy_in("other", &["north", "oslo"]).await;
    old.report(running).await;
    bed.running(&service).await;
    bed.root.delete(&format!("/api/service/{service}/instance/0")).await.ok();
    old.is_told(&format!("DELETE /api/service/{service}/0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_refuses_is_passed_over() {
    let bed = Bed::start().await;
    let old = Old::join(&bed).await;
    *old.told.refusal.lock().unwrap() = Some(StatusCode::BAD_REQUEST);
    let service = bed.deploy_in("shop", &["north"]).await;
    let instance = bed.running(&service).await;
    old.is_told(&format!("POST /api/service/{service}/0")).await;
    let others = [bed.oslo.worker.id, bed.bergen.worker.id].map(|id| json!(id.to_string()));
    assert!(others.contains(&instance["worker_id"]), "{instance}");
}
