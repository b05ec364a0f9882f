//! The cluster under test with what surrounds it, and the messages it is given.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use orchestrator::broker;
use orchestrator::cluster::{Addresses, ClusterError, Config, run_and_tell};
use orchestrator::parent::ParentAddress;
use orchestrator::schedule::Placement;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::root::{CLUSTER, Root};
use crate::worker::{Worker, is_reported};

pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
pub(crate) const SERVICE: &str = "6b033dd4d683569b0801fa18";
pub(crate) const NAME: &str = "smp.bed.srv.bed";

pub(crate) async fn eventually(what: &str, mut probe: impl FnMut() -> (bool, String)) {
    let start = Instant::now();
    loop {
        let (reached, seen) = probe();
        if reached {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}, last seen: {seen}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Cluster {
    pub(crate) addresses: Addresses,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), ClusterError>>,
    pub(crate) http: reqwest::Client,
}

pub(crate) struct Bed {
    pub(crate) root: Root,
    pub(crate) data: tempfile::TempDir,
    pub(crate) cluster: Cluster,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with(broker::Settings::Embedded(([127, 0, 0, 1], 0).into())).await
    }

    pub(crate) async fn with(broker: broker::Settings) -> Self {
        let root = Root::start().await;
        let data = tempfile::tempdir().expect("a directory");
        let config = Config { broker, ..config(&root, data.path().into(), 0) };
        let cluster = Cluster::start(config).await;
        eventually("a first report", || (root.memory().report.is_some(), String::new())).await;
        Self { root, data, cluster }
    }

    /// Ends the cluster and starts it again, on the same broker port so that workers find it.
    pub(crate) async fn restart(&mut self) {
        let port = self.cluster.addresses.mqtt_port;
        self.cluster.shutdown.cancel();
        let outcome = (&mut self.cluster.task).await.expect("no panic");
        outcome.expect("a clean stop");
        self.cluster = Cluster::start(config(&self.root, self.data.path().into(), port)).await;
    }

    pub(crate) async fn worker(&self, host: &str) -> Worker {
        let worker =
            Worker::connect(self.cluster.addresses.mqtt_port, self.cluster.register(host).await, host).await;
        worker.say_information().await;
        worker
    }

    pub(crate) async fn deploy(&self, number: u32) {
        self.root.allocate(SERVICE, NAME, &(0..=number).collect::<Vec<_>>());
        let (status, body) = self.cluster.deploy(&job(number), number).await;
        assert_eq!((status, body), (200, json!({"status": "ok"})));
    }

    /// An instance that runs on the worker, has its address, and is known as such to the root.
    pub(crate) async fn run_on(&self, worker: &mut Worker, number: u32, nsip: &str) {
        let (kind, deploy) = worker.command().await;
        assert_eq!((kind.as_str(), deploy["instance_number"].as_u64()), ("deploy", Some(number.into())));
        worker.say_address(NAME, number, nsip).await;
        worker.say_status(NAME, number, "CREATED", "").await;
        worker.say_resources(&[(NAME, number)]).await;
        is_reported(&self.root, number, "RUNNING").await;
    }
}

pub(crate) fn config(root: &Root, data_dir: PathBuf, mqtt: u16) -> Config {
    let loopback = |port| ([127, 0, 0, 1], port).into();
    Config {
        data_dir,
        store: None,
        name: "bed".to_owned(),
        location: "bed".to_owned(),
        api: loopback(0),
        net: loopback(0),
        broker: broker::Settings::Embedded(loopback(mqtt)),
        worker_timeout: Duration::from_secs(2),
        forget_workers: Duration::from_secs(3600),
        placement: Placement::default(),
        parent: ParentAddress { host: "127.0.0.1".to_owned(), api: root.api, grpc: root.grpc, net: root.net },
    }
}

impl Cluster {
    pub(crate) async fn start(config: Config) -> Self {
        let shutdown = CancellationToken::new();
        let (sender, addresses) = oneshot::channel();
        let stop = shutdown.clone();
        let task = tokio::spawn(run_and_tell(config, stop, |addresses| {
            sender.send(addresses).expect("the test waits for it");
        }));
        match addresses.await {
            Ok(addresses) => Self { addresses, shutdown, task, http: reqwest::Client::new() },
            Err(_gone) => panic!("not started: {:?}", task.await),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.api)
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// An operator's word.
    pub(crate) async fn wish(&self, worker: protocol::id::Id, wish: &str) {
        let answer = self.send(self.http.post(self.url(&format!("/api/worker/{worker}/{wish}")))).await;
        assert_eq!(answer.0, 200, "{}", answer.1);
    }

    pub(crate) async fn register(&self, host: &str) -> protocol::id::Id {
        let node = json!({"id":"","host":host,"ip":"192.0.2.32","port":"3000","system_info":{"kernel_version":"6.1"},
            "cpu_percent":6.8,"vcpus":2,"architecture":"amd64","memory_percent":2.4,"memory":23206,
            "virtualization":["docker","unikernel"],"supported_addons":[],"csi_drivers":[]});
        let (status, body) = self.send(self.http.post(self.url("/api/node/register")).json(&node)).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["MQTT_BROKER_PORT"], self.addresses.mqtt_port.to_string(), "a number as text");
        body["id"].as_str().expect("an id").parse().expect("an id")
    }

    pub(crate) async fn deploy(&self, job: &Value, number: u32) -> (u16, Value) {
        self.send(self.http.post(self.url(&format!("/api/service/{SERVICE}/{number}"))).json(job)).await
    }

    pub(crate) async fn undeploy(&self, service: &str, number: &str) -> (u16, Value) {
        self.send(self.http.delete(self.url(&format!("/api/service/{service}/{number}")))).await
    }

    pub(crate) async fn notify(&self, update: &Value) {
        let url = format!("http://{}/api/net/job/update", self.addresses.net);
        let (status, body) = self.send(self.http.post(url).json(update)).await;
        assert_eq!(status, 200, "{body}");
    }
}

/// The captured job of Oakestra's root, reduced to one instance as the root sends it.
pub(crate) fn job(number: u32) -> Value {
    json!({"_id": SERVICE, "job_name": NAME, "microserviceID": SERVICE, "microservice_name": "srv",
        "microservice_namespace": "bed", "virtualization": "docker", "code": "docker.io/library/bed:1",
        "cmd": ["/bin/httpd", "-f", "-p", "80", "-h", "/www"], "memory": 10, "vcpus": 1, "vgpus": 0, "vtpus": 0,
        "bandwidth_in": 0, "bandwidth_out": 0, "storage": 0, "port": "", "state": "", "added_files": [],
        "addresses": {"rr_ip": "10.30.109.1"}, "constraints": [], "applicationID": "6b033dd4d683569b0801fa17",
        "app_name": "smp", "app_ns": "bed", "service_name": "srv", "service_ns": "bed",
        "image": "docker.io/library/bed:1", "next_instance_progressive_number": number + 1,
        "instance_list": [{"instance_number": number, "cluster_id": CLUSTER, "cluster_location": "bed",
            "status": "CLUSTER_SCHEDULED"}],
        "RR_ip": "10.30.109.1", "RR_ip_v6": null, "status": "CLUSTER_SCHEDULED",
        "status_detail": "Waiting for scheduling decision"})
}

/// The keys of the captured `control/deploy` and the kind of each value.
pub(crate) fn captured_deploy() -> Value {
    json!({"_id": "", "job_name": "", "microserviceID": "", "microservice_name": "", "microservice_namespace": "",
        "virtualization": "", "code": "", "cmd": [], "memory": 10, "vcpus": 1, "vgpus": 0, "vtpus": 0,
        "bandwidth_in": 0, "bandwidth_out": 0, "storage": 0, "port": "", "state": "", "added_files": [],
        "addresses": {}, "constraints": [], "applicationID": "", "app_name": "", "app_ns": "", "service_name": "",
        "service_ns": "", "image": "", "next_instance_progressive_number": 1, "instance_list": [], "RR_ip": "",
        "RR_ip_v6": null, "status": "", "status_detail": "", "instance_number": 0})
}
