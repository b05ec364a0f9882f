//! What workers and the root send to a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use integration::fuzz::campaign;
use orchestrator::broker;
use orchestrator::cluster::{Addresses, Config, run_and_tell};
use orchestrator::parent::ParentAddress;
use orchestrator::schedule::Placement;
use protocol::id::Id;
use protocol::topic::NodeTopic;
use reqwest::{Client, Method};
use rumqttc::{AsyncClient, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::payload::{captured, spoilt};

const ROUNDS: u64 = 150;
const PATIENCE: Duration = Duration::from_secs(20);
const SERVICE: &str = "6b033dd4d683569b0801fa18";

/// A cluster in this process whose root is away, and a worker that has joined it.
struct Cluster {
    at: Addresses,
    client: Client,
    worker: Worker,
    _stop: DropGuard,
    _data: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            data_dir: data.path().to_owned(),
            store: None,
            name: "bed".to_owned(),
            location: "bed".to_owned(),
            api: free,
            net: free,
            broker: broker::Settings::Embedded(free),
            worker_timeout: PATIENCE,
            forget_workers: Duration::from_secs(3600),
            placement: Placement::default(),
            // Nothing of ours listens there.
            parent: ParentAddress { host: "127.0.0.1".to_owned(), api: 1, grpc: 1, net: 1 },
        };
        let stop = CancellationToken::new();
        let (sender, started) = oneshot::channel();
        tokio::spawn(run_and_tell(config, stop.clone(), |at| sender.send(at).expect("somebody waits")));
        let at = started.await.expect("the cluster starts");
        let client = Client::builder().no_proxy().build().unwrap();
        let node =
            json!({"host": "worker", "ip": "192.0.2.32", "port": "3000", "virtualization": ["docker"]});
        let url = format!("http://{}/api/node/register", at.api);
        let joined: Value = client.post(url).json(&node).send().await.unwrap().json().await.unwrap();
        let id = joined["id"].as_str().expect("an id").parse().unwrap();
        let worker = Worker::connect(at.mqtt_port, id).await;
        Self { at, client, worker, _stop: stop.drop_guard(), _data: data }
    }

    async fn send(&self, to: SocketAddr, method: Method, path: &str, body: Vec<u8>) -> (u16, Value) {
        let sent = String::from_utf8_lossy(&body).into_owned();
        let request = self.client.request(method, format!("http://{to}{path}")).body(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        assert!(status < 500, "{status} for {path} with {sent}");
        let text = response.text().await.unwrap();
        (
            status,
            serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{error}: {text} for {path} with {sent}")),
        )
    }
}

/// The netmanager of a worker, and what it is told.
struct Worker {
    id: Id,
    client: AsyncClient,
    tables: mpsc::UnboundedReceiver<Value>,
}

impl Worker {
    async fn connect(port: u16, id: Id) -> Self {
        let mut options = MqttOptions::new(id.to_string(), "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut events) = AsyncClient::new(options, 64);
        client.subscribe(NodeTopic::TableResult.of(&id), QoS::AtLeastOnce).await.unwrap();
        let (sender, tables) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let rumqttc::Event::Incoming(Packet::Publish(publish)) = event
                    && sender.send(serde_json::from_slice(&publish.payload).expect("JSON")).is_err()
                {
                    return;
                }
            }
        });
        Self { id, client, tables }
    }

    async fn say(&self, topic: NodeTopic, payload: Vec<u8>) {
        self.client
            .publish(topic.of(&self.id), QoS::AtLeastOnce, false, payload)
            .await
            .expect("a connection");
    }

    /// A question that is asked rightly is answered.
    async fn assert_served(&mut self, number: u64) {
        let name = format!("shop.test.web{number}.test");
        let question = json!({"sname": name, "sip": ""}).to_string();
        self.say(NodeTopic::TableQuery, question.into_bytes()).await;
        let answered = tokio::time::timeout(PATIENCE, async {
            while let Some(table) = self.tables.recv().await {
                if table["query_key"] == name {
                    return true;
                }
            }
            false
        });
        assert!(answered.await.expect("an answer in time"), "the connection of the worker has ended");
    }
}

/// What a worker's netmanager may say. Its node-engine is another client of the broker.
const SAID: [(NodeTopic, &str); 3] = [
    (NodeTopic::TableQuery, "net/tablequery/request"),
    (NodeTopic::ServiceDeployed, "net/service/deployed"),
    (NodeTopic::InterestRemove, "net/tablequery/request"),
];

#[test]
fn spoilt_messages_of_a_worker_are_ignored_and_its_good_ones_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start());
    let mut seeds: Vec<_> = SAID.iter().map(|(topic, captured_as)| (*topic, captured(captured_as))).collect();
    // Oakestra's workers have no such topic.
    let measured = json!([{ "node": "6b033dc62c1f07cbdcd88440", "micros": [400, 900] }]);
    seeds.push((
        NodeTopic::Rtt,
        vec![json!({ "asks": true, "coordinate": [1.0, 2.0, 0.5, 0.2], "measured": measured })],
    ));
    let mut number = 0;
    campaign(ROUNDS, |chance| {
        number += 1;
        runtime.block_on(async {
            for _ in 0..10 {
                let (topic, seeds) = chance.of(&seeds);
                cluster.worker.say(*topic, spoilt(chance, seeds)).await;
            }
            cluster.worker.assert_served(number).await;
        });
    });
}

#[test]
fn spoilt_requests_are_answered_and_hurt_nobody() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = runtime.block_on(Cluster::start());
    let nodes = captured("/information");
    let jobs = captured("/api/service/6b033dd4d683569b0801fa18");
    let updates = [json!({"job_name": "smp.bed.srv.bed", "instance_number": -1, "type": "DEPLOYMENT"})];
    let deployments = [json!({"job_name": "smp.bed.srv.bed"})];
    let mut number = 0;
    campaign(ROUNDS, |chance| {
        number += 1;
        runtime.block_on(async {
            let Addresses { api, net, .. } = cluster.at;
            let place =
                format!("/api/service/{SERVICE}/{}", *chance.of(&["0", "1", "-1", "x", "4294967296"]));
            cluster.send(api, Method::POST, "/api/node/register", spoilt(chance, &nodes)).await;
            cluster.send(api, Method::POST, &place, spoilt(chance, &jobs)).await;
            cluster.send(api, Method::DELETE, &place, Vec::new()).await;
            cluster.send(net, Method::POST, "/api/net/job/update", spoilt(chance, &updates)).await;
            cluster.send(net, Method::POST, "/api/net/deployment", spoilt(chance, &deployments)).await;
            let (status, answer) = cluster.send(api, Method::GET, "/api/cluster/status", Vec::new()).await;
            assert_eq!(status, 200, "{answer}");
            cluster.worker.assert_served(number).await;
        });
    });
}
