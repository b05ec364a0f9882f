//! A cluster of a test's own below a root, with one worker that plays its part: it speaks to the cluster as a
//! node-engine does, and "runs" whatever it is told, except images that are called `missing`.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::topic::NodeTopic;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::daemon::Daemon;
use crate::root::Root;

/// Node-engines report every 2 s; a test need not wait that long.
const REPORT_PERIOD: Duration = Duration::from_millis(200);

pub(crate) struct Cluster {
    /// Dropped first: the worker is gone before its broker.
    worker: Option<Runtime>,
    _daemon: Daemon,
    _data: TempDir,
}

impl Cluster {
    /// A cluster with a worker of 2 CPUs and 1000 MB, known to the root.
    pub(crate) fn join(root: &Root) -> Self {
        Self::join_with(root, &[])
    }

    /// As [`Self::join`], with this in its environment.
    pub(crate) fn join_with(root: &Root, environment: &[(&str, String)]) -> Self {
        let port = |name| root.daemon.port(name);
        Self::below([port("api"), port("grpc"), port("net")], environment)
    }

    /// The same below whatever has these ports on loopback: for reports, for the registration, and for service addresses.
    pub(crate) fn below([api, grpc, net]: [&str; 3], environment: &[(&str, String)]) -> Self {
        let data = tempfile::tempdir().expect("make a data directory");
        let folder = data.path().join("cluster").display().to_string();
        let of_root = ["--system-manager-url", "127.0.0.1", "--system-manager-port", api];
        let of_root_too = ["--system-manager-grpc-port", grpc, "--root-net-port", net];
        let own = ["--bind", "127.0.0.1", "--port", "0", "--net-port", "0", "--mqtt-port", "0"];
        let names =
            ["cluster", "--cluster-name", "home", "--cluster-location", "attic", "--data-dir", &folder];
        let arguments = [&names[..], &of_root, &of_root_too, &own].concat();
        let daemon = Daemon::start_with(&arguments, environment);
        let (api, mqtt) =
            (format!("http://{}", daemon.field("api")), daemon.port("mqtt").parse().expect("a port"));
        let worker = Runtime::new().expect("threads for the worker");
        worker.block_on(async {
            let (client, events) = connect(&api, mqtt).await;
            tokio::spawn(work(client, events));
        });
        Self { worker: Some(worker), _daemon: daemon, _data: data }
    }

    /// The worker says nothing more.
    pub(crate) fn silence(&mut self) {
        self.worker = None;
    }
}

struct Client {
    mqtt: AsyncClient,
    id: String,
}

async fn connect(api: &str, mqtt: u16) -> (Client, EventLoop) {
    let node = json!({ "host": "pi-1", "ip": "192.0.2.11", "port": "0", "cpu_percent": 5.0, "vcpus": 2,
        "architecture": "amd64", "memory_percent": 10.0, "memory": 1000, "virtualization": ["docker"] });
    let request = reqwest::Client::new().post(format!("{api}/api/node/register")).json(&node).send();
    let answer: Value = request.await.expect("a cluster").json().await.expect("JSON");
    let id = answer["id"].as_str().expect("an id").to_owned();
    let (client, events) = AsyncClient::new(MqttOptions::new(format!("{id}-ne"), "127.0.0.1", mqtt), 64);
    client.subscribe(format!("nodes/{id}/control/+"), QoS::AtLeastOnce).await.expect("room in the queue");
    (Client { mqtt: client, id }, events)
}

/// What runs, with what it wrote.
type Running = BTreeMap<(String, u64), String>;

async fn work(client: Client, events: EventLoop) {
    let (sender, mut commands) = mpsc::unbounded_channel();
    // A task of its own: to give up a poll half-way may lose what was read.
    tokio::spawn(listen(events, sender));
    let mut running = Running::new();
    let mut period = tokio::time::interval(REPORT_PERIOD);
    loop {
        tokio::select! {
            Some(command) = commands.recv() => client.obey(&command, &mut running).await,
            _ = period.tick() => client.report(&mut running).await,
        }
    }
}

async fn listen(mut events: EventLoop, sender: mpsc::UnboundedSender<Publish>) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(command))) => sender.send(command).expect("a worker"),
            Ok(_) => {}
            Err(error) => panic!("the worker lost its broker: {error}"),
        }
    }
}

impl Client {
    async fn obey(&self, message: &Publish, running: &mut Running) {
        let command: Value = serde_json::from_slice(&message.payload).expect("JSON");
        let name = command["job_name"].as_str().expect("a name").to_owned();
        let number = command["instance_number"].as_u64().expect("a number");
        let (status, detail) = if message.topic.ends_with("control/delete") {
            running.remove(&(name.clone(), number));
            ("UNDEPLOYED", "")
        } else if command["image"].as_str().is_some_and(|image| image.contains("missing")) {
            ("FAILED", "image docker.io/hypha/missing:1 is not known to the registry")
        } else {
            running.insert((name.clone(), number), String::new());
            ("CREATED", "")
        };
        let report = json!({ "sname": name, "instance": number, "status": status, "status_detail": detail,
            "publicip": "192.0.2.11" });
        self.say(NodeTopic::Job, &report).await;
    }

    async fn report(&self, running: &mut Running) {
        let node = json!({ "ip": "192.0.2.11", "cpu_percent": 5.0, "vcpus": 2, "memory_percent": 10.0, "memory": 1000 });
        self.say(NodeTopic::Information, &node).await;
        let services: Value = running
            .iter_mut()
            .map(|((name, number), log)| {
                let line = log.lines().count() + 1;
                log.push_str(&format!("line {line} of {number}\n"));
                json!({ "job_name": name, "instance": number, "virtualization": "docker", "cpu_percent": "0.250000",
                    "memory_percent": "1.500000", "disk": "8192", "logs": &log[log.len().saturating_sub(1024)..] })
            })
            .collect();
        self.say(NodeTopic::Resources, &json!({ "services": services })).await;
    }

    async fn say(&self, topic: NodeTopic, payload: &Value) {
        let id = self.id.parse::<protocol::id::Id>().expect("an id");
        let sent = self.mqtt.publish(topic.of(&id), QoS::AtLeastOnce, false, payload.to_string()).await;
        sent.expect("a broker");
    }
}
