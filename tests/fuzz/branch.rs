//! What the clusters of a branch and the one above it send to it.

use std::net::SocketAddr;
use std::time::Duration;

use integration::fuzz::campaign;
use orchestrator::branch::{Addresses, Config, run_and_tell};
use orchestrator::parent::ParentAddress;
use orchestrator::registration::register_cluster_client::RegisterClusterClient;
use orchestrator::registration::{Cs2Message, KeyValue};
use reqwest::{Client, Method};
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::payload::{captured, spoilt};

const ROUNDS: u64 = 150;
const SERVICE: &str = "6b033dd4d683569b0801fa18";
/// The one above is away, and the branch says so.
const AWAY: u16 = 503;

/// A branch in this process whose root is away, and that knows one cluster.
struct Branch {
    at: Addresses,
    cluster: String,
    client: Client,
    _stop: DropGuard,
    _data: tempfile::TempDir,
}

impl Branch {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            data_dir: data.path().to_owned(),
            store: None,
            name: "north".to_owned(),
            location: "north".to_owned(),
            // Nothing of ours listens there.
            parent: ParentAddress { host: "127.0.0.1".to_owned(), api: 1, grpc: 1, net: 1 },
            reports: free,
            grpc: free,
            addresses: free,
            api: free,
            net: free,
            cluster_timeout: Duration::from_secs(300),
        };
        let stop = CancellationToken::new();
        let (sender, started) = oneshot::channel();
        tokio::spawn(run_and_tell(config, stop.clone(), |at| sender.send(at).expect("somebody waits")));
        let at = started.await.expect("the branch starts");
        let mut registrar = RegisterClusterClient::connect(format!("http://{}", at.grpc)).await.unwrap();
        let registration = Cs2Message {
            // Nor there: commands wait.
            manager_port: 1,
            network_component_port: 1,
            cluster_name: "oslo".to_owned(),
            cluster_info: vec![KeyValue::default()],
            cluster_location: "oslo".to_owned(),
        };
        let cluster = registrar.handle_init_final(registration).await.unwrap().into_inner().id;
        let client = Client::builder().no_proxy().build().unwrap();
        Self { at, cluster, client, _stop: stop.drop_guard(), _data: data }
    }

    async fn send(&self, to: SocketAddr, method: Method, path: &str, body: Vec<u8>) -> u16 {
        let request = self.client.request(method.clone(), format!("http://{to}{path}")).body(body.clone());
        let status = request.send().await.unwrap().status().as_u16();
        let sent = String::from_utf8_lossy(&body);
        assert!(status < 500 || status == AWAY, "{status} for {method} {path} with {sent}");
        status
    }
}

#[test]
fn spoilt_requests_are_answered_and_hurt_nobody() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let branch = runtime.block_on(Branch::start());
    let jobs = captured("/api/service/6b033dd4d683569b0801fa18");
    let updates = [json!({"job_name": "smp.bed.srv.bed", "instance_number": -1, "type": "DEPLOYMENT"})];
    let settled =
        [json!({"job_id": SERVICE, "instances": [{"instance_number": 0, "namespace_ip": "10.18.0.66",
        "namespace_ip_v6": "fc00::102", "host_ip": "192.0.2.32", "host_port": "50103"}]})];
    let instance = json!({"instance_number": 0, "status": "NO_WORKER_CAPACITY", "status_detail": "none"});
    let report = json!({"cpu_percent": 12.5, "memory_percent": 2.5, "vcpus": 4, "memory": 4000, "vgpus": 0,
        "active_nodes": 2, "virtualization": ["docker"], "supported_addons": [], "csi_drivers": [], "workers": [],
        "jobs": [{"_id": SERVICE, "job_name": "smp.bed.srv.bed", "status": "RUNNING", "instance_list": [instance]}]});
    let reports = [report.clone()];
    campaign(ROUNDS, |chance| {
        runtime.block_on(async {
            let Addresses { reports: to_reports, addresses, api, net, .. } = branch.at;
            let place =
                format!("/api/service/{SERVICE}/{}", *chance.of(&["0", "1", "-1", "x", "4294967296"]));
            let path = format!("/api/information/{}", branch.cluster);
            branch.send(api, Method::POST, &place, spoilt(chance, &jobs)).await;
            branch.send(to_reports, Method::POST, &path, spoilt(chance, &reports)).await;
            branch.send(api, Method::DELETE, &place, Vec::new()).await;
            branch.send(net, Method::POST, "/api/net/job/update", spoilt(chance, &updates)).await;
            let settle = "/api/net/service/net_deploy_status";
            branch.send(addresses, Method::POST, settle, spoilt(chance, &settled)).await;
            branch.send(addresses, Method::GET, "/api/net/service/ip/10_30_0_x/instances", Vec::new()).await;
            // Who reports rightly is heard.
            let right = report.to_string().into_bytes();
            assert_eq!(branch.send(to_reports, Method::POST, &path, right).await, 200);
            assert_eq!(branch.send(api, Method::GET, "/api/cluster/status", Vec::new()).await, 200);
        });
    });
}
