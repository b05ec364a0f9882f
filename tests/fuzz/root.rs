//! What people and clusters send to the root.

use std::net::SocketAddr;
use std::time::Duration;

use integration::fuzz::{Chance, campaign};
use orchestrator::root::{Addresses, Bound, Config};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::payload::{captured, spoilt};

const ROUNDS: u64 = 150;
const PASSWORD: &str = "Admin";
const CLUSTER: &str = "6b033dc3d683569b0801fa16";

/// A root in this process, and its administrator.
struct Root {
    at: Addresses,
    client: Client,
    token: String,
    _stop: DropGuard,
    _data: tempfile::TempDir,
}

impl Root {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = Bound::open(Config {
            data_dir: data.path().to_owned(),
            store: None,
            api: free,
            net: free,
            grpc: free,
            insecure_admin_password: Some(PASSWORD.to_owned()),
            cluster_timeout: Duration::from_secs(300),
            plan: protocol::plan::Plan::default(),
            mail: None,
            reusable_refresh_tokens: false,
        });
        let bound = bound.await.unwrap();
        let at = bound.addresses().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(bound.serve(stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        let mut root = Self { at, client, token: String::new(), _stop: stop.drop_guard(), _data: data };
        let credentials = json!({"username": "Admin", "password": PASSWORD}).to_string();
        let (status, answer) = root.send(at.api, Method::POST, "/api/auth/login", credentials.into()).await;
        assert_eq!(status, 200, "{answer}");
        root.token = answer["token"].as_str().unwrap().to_owned();
        root
    }

    /// Status and answer, which is JSON whatever was sent, or nothing.
    async fn send(&self, to: SocketAddr, method: Method, path: &str, body: Vec<u8>) -> (u16, Value) {
        let request = self.client.request(method.clone(), format!("http://{to}{path}")).body(body.clone());
        let response = request.bearer_auth(&self.token).send().await.unwrap();
        let status = response.status().as_u16();
        let sent = String::from_utf8_lossy(&body);
        assert!(status < 500, "{status} for {method} {path} with {sent}");
        let text = response.text().await.unwrap();
        if text.is_empty() {
            return (status, Value::Null);
        }
        let answer = serde_json::from_str(&text);
        (status, answer.unwrap_or_else(|error| panic!("{error}: {text} for {method} {path} with {sent}")))
    }
}

/// What can be asked, with bodies as they should be.
fn requests() -> Vec<(Port, &'static str, Vec<Value>)> {
    let hello = serde_json::from_str(include_str!("../../examples/hello.json")).unwrap();
    let login = json!({"username": "Admin", "password": PASSWORD, "organization_name": "root"});
    let announced = json!({"cluster_id": CLUSTER, "cluster_address": "192.0.2.1", "cluster_port": 10110});
    let settled = json!({"job_id": CLUSTER, "instances": [{"instance_number": 0, "namespace_ip": "10.18.0.66",
        "namespace_ip_v6": "fc00::102", "host_ip": "192.0.2.32", "host_port": "50103"}]});
    vec![
        (Port::Api, "/api/application/", vec![hello]),
        (Port::Api, "/api/service/", vec![json!({"applications": []})]),
        (Port::Api, "/api/auth/login", vec![login]),
        (Port::Api, "/api/information/6b033dc3d683569b0801fa16", captured("/api/clusters/active")),
        (Port::Net, "/api/net/cluster", vec![announced]),
        (Port::Net, "/api/net/service/net_deploy_status", vec![settled]),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Port {
    Api,
    Net,
}

#[test]
fn spoilt_requests_are_answered_and_hurt_nobody() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let root = runtime.block_on(Root::start());
    let requests = requests();
    campaign(ROUNDS, |chance| {
        let (port, path, seeds) = chance.of(&requests);
        let to = match port {
            Port::Api => root.at.api,
            Port::Net => root.at.net,
        };
        let body = spoilt(chance, seeds);
        runtime.block_on(async {
            root.send(to, Method::POST, path, body).await;
            let path = spoilt_path(chance);
            let method = chance.of(&[Method::GET, Method::DELETE, Method::PUT]).clone();
            root.send(to, method, &path, Vec::new()).await;
            // Whatever was accepted can be shown.
            for path in ["/api/applications/", "/api/services/", "/api/clusters/"] {
                let (status, answer) = root.send(root.at.api, Method::GET, path, Vec::new()).await;
                assert_eq!(status, 200, "{answer}");
            }
        });
    });
}

fn spoilt_path(chance: &mut Chance) -> String {
    const SEEDS: [&str; 7] = [
        "/api/application/6b033dd4d683569b0801fa18",
        "/api/service/6b033dd4d683569b0801fa18",
        "/api/service/6b033dd4d683569b0801fa18/instance/0",
        "/api/net/service/smp_bed_srv_bed/instances",
        "/api/net/service/ip/10_30_0_0/instances",
        "/api/net/interest/smp.bed.srv.bed",
        "/api/net/subnet",
    ];
    let mut path = chance.of(&SEEDS).as_bytes().to_vec();
    chance.spoil(&mut path, 5);
    // As a client writes what a path may not hold.
    String::from_utf8_lossy(&path)
        .bytes()
        .map(|byte| match byte {
            b'/' | b'.' | b'_' | b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02x}"),
        })
        .collect()
}
