//! A root as a cluster sees it: the same wire, and a memory of what it was told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use orchestrator::registration::register_cluster_server::{RegisterCluster, RegisterClusterServer};
use orchestrator::registration::{Cs1Message, Cs2Message, Sc1Message, Sc2Message};
use protocol::cluster::{Report, TAKEN_HEADER};
use protocol::service::Instance;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};

pub(crate) const CLUSTER: &str = "6b033dc3d683569b0801fa16";

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) registrations: Vec<(String, String, i32)>,
    pub(crate) report: Option<Report>,
    /// The number under which it keeps each report, if it is one of ours.
    pub(crate) keeps_as: Option<u32>,
    /// What was wrong with the cluster's reports, as Oakestra's root would see it.
    pub(crate) tables: HashMap<String, Value>,
    pub(crate) table_queries: Vec<String>,
    pub(crate) deploy_status: Vec<Value>,
    pub(crate) dropped_interests: Vec<String>,
    pub(crate) subnets: u8,
    /// Blocks that came back, with `_` for dots.
    pub(crate) returned: Vec<String>,
    /// It has forgotten its clusters, like after the loss of its disk.
    pub(crate) amnesia: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Root {
    memory: Arc<Mutex<Memory>>,
    pub(crate) api: u16,
    pub(crate) net: u16,
    pub(crate) grpc: u16,
    shutdown: CancellationToken,
}

impl Root {
    pub(crate) async fn start() -> Self {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let root = Self { memory, api: 0, net: 0, grpc: 0, shutdown: CancellationToken::new() };
        root.listen().await
    }

    async fn listen(mut self) -> Self {
        self.api = self.serve(Router::new().route("/api/information/{id}", post(information))).await;
        let net = Router::new()
            .route("/api/net/subnet", get(subnet))
            .route("/api/net/subnet/{address}", delete(subnet_back))
            .route("/api/net/service/{name}/instances", get(by_name))
            .route("/api/net/service/ip/{ip}/instances", get(by_address))
            .route("/api/net/service/net_deploy_status", post(deploy_status))
            .route("/api/net/interest/{name}", delete(interest));
        self.net = self.serve(net).await;
        let listener = bind(self.grpc).await;
        self.grpc = listener.local_addr().expect("an address").port();
        let registrar = RegisterClusterServer::new(Registrar(self.memory.clone()));
        let shutdown = self.shutdown.clone();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(registrar)
                .serve_with_incoming_shutdown(TcpIncoming::from(listener), shutdown.cancelled_owned()),
        );
        self
    }

    async fn serve(&self, router: Router<Arc<Mutex<Memory>>>) -> u16 {
        let listener = bind(0).await;
        let port = listener.local_addr().expect("an address").port();
        let shutdown = self.shutdown.clone();
        let router = router.with_state(self.memory.clone());
        tokio::spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
        });
        port
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no test panicked with it")
    }

    /// The instance as the last report has it.
    pub(crate) fn reported(&self, number: u32) -> Option<Instance> {
        let memory = self.memory();
        let instances = memory.report.as_ref()?.jobs.iter().flat_map(|job| &job.instance_list);
        instances.clone().find(|instance| instance.instance_number == number).cloned()
    }

    /// Gives a service its addresses, as the real root does before it deploys.
    pub(crate) fn allocate(&self, id: &str, name: &str, numbers: &[u32]) {
        let instances: Vec<_> = numbers
            .iter()
            .map(|number| {
                json!({"instance_number": number, "instance_ip": format!("10.30.0.{number}"),
                    "instance_ip_v6": format!("fdff::{number:x}"), "cluster_id": CLUSTER, "namespace_ip": null,
                    "namespace_ip_v6": null, "host_ip": null, "host_port": null})
            })
            .collect();
        let table = json!({"_id": id, "job_name": name, "instance_list": instances, "applicationID": "x",
            "service_ip_list": [{"IpType": "RR", "Address": "10.30.109.1", "Address_v6": "fdff:2000::"}]});
        self.memory().tables.insert(name.to_owned(), table);
    }
}

async fn bind(port: u16) -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.expect("a free port")
}

type Shared = State<Arc<Mutex<Memory>>>;

async fn information(State(memory): Shared, Path(id): Path<String>, Json(body): Json<Value>) -> Response {
    let mut memory = memory.lock().expect("no test panicked with it");
    if id != CLUSTER || memory.amnesia {
        return StatusCode::NOT_FOUND.into_response();
    }
    let report: Report = serde_json::from_value(body).expect("a report");
    if report.since.is_some() && report.since != memory.keeps_as {
        return StatusCode::CONFLICT.into_response();
    }
    memory.report = Some(report);
    match memory.keeps_as {
        Some(number) => ([(TAKEN_HEADER, number.to_string())], "ok").into_response(),
        None => "ok".into_response(),
    }
}

async fn subnet(State(memory): Shared) -> Json<Value> {
    let mut memory = memory.lock().expect("no test panicked with it");
    let number = memory.subnets;
    memory.subnets += 1;
    let address = u32::from(number) * 64;
    Json(
        json!({"subnet_addr": format!("10.18.0.{address}"), "subnet_addr_v6": format!("fc00::{number:x}00")}),
    )
}

async fn subnet_back(State(memory): Shared, Path(address): Path<String>) -> Json<Value> {
    memory.lock().expect("no test panicked with it").returned.push(address);
    Json(json!({ "message": "ok" }))
}

async fn by_name(State(memory): Shared, Path(name): Path<String>) -> Response {
    let mut memory = memory.lock().expect("no test panicked with it");
    memory.table_queries.push(name.clone());
    answer(memory.tables.get(&name.replace('_', ".")))
}

async fn by_address(State(memory): Shared, Path(ip): Path<String>) -> Response {
    let mut memory = memory.lock().expect("no test panicked with it");
    memory.table_queries.push(ip.clone());
    let address = format!("\"{}\"", ip.replace('_', "."));
    answer(memory.tables.values().find(|table| table.to_string().contains(&address)))
}

fn answer(table: Option<&Value>) -> Response {
    table.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |table| Json(table.clone()).into_response())
}

async fn deploy_status(State(memory): Shared, Json(body): Json<Value>) {
    memory.lock().expect("no test panicked with it").deploy_status.push(body);
}

async fn interest(State(memory): Shared, Path(name): Path<String>) {
    memory.lock().expect("no test panicked with it").dropped_interests.push(name);
}

struct Registrar(Arc<Mutex<Memory>>);

#[tonic::async_trait]
impl RegisterCluster for Registrar {
    async fn handle_init_greeting(
        &self,
        request: Request<Cs1Message>,
    ) -> Result<tonic::Response<Sc1Message>, Status> {
        let greeting: Value =
            serde_json::from_str(&request.into_inner().hello_service_manager).expect("JSON");
        assert!(greeting["cluster_name"].is_string() && greeting["location"].is_string(), "{greeting}");
        Ok(tonic::Response::new(Sc1Message {
            hello_cluster_manager: "please send your cluster info".to_owned(),
        }))
    }

    async fn handle_init_final(
        &self,
        request: Request<Cs2Message>,
    ) -> Result<tonic::Response<Sc2Message>, Status> {
        let message = request.into_inner();
        // What Oakestra's root fails without.
        assert!(!message.cluster_info.is_empty() && message.manager_port != 0);
        let mut memory = self.0.lock().expect("no test panicked with it");
        memory.amnesia = false;
        memory.registrations.push((message.cluster_name, message.cluster_location, message.manager_port));
        Ok(tonic::Response::new(Sc2Message { id: CLUSTER.to_owned() }))
    }
}
