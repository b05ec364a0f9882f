//! A worker that plays its part: it speaks to its cluster as node-engine and netmanager do, "runs" whatever it is told, and
//! remembers what that was.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator::cluster::Addresses;
use protocol::id::Id;
use protocol::topic::{NodeTopic, updates_available};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Node-engines report every 2 s; a test need not wait that long.
const REPORT_PERIOD: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Worker {
    pub(crate) id: Id,
    net: AsyncClient,
    heard: mpsc::UnboundedReceiver<Publish>,
    told: Arc<Mutex<Vec<String>>>,
    tasks: [JoinHandle<()>; 3],
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Worker {
    pub(crate) async fn join(host: &str, net: &str, at: Addresses) -> Self {
        let node = json!({ "host": host, "ip": "192.0.2.11", "port": "50103", "cpu_percent": 5.0, "vcpus": 2,
            "architecture": "amd64", "memory_percent": 10.0, "memory": 1000, "virtualization": ["docker"] });
        let url = format!("http://{}/api/node/register", at.api);
        let answer = reqwest::Client::new().post(url).json(&node).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let id: Id = answer["id"].as_str().unwrap().parse().unwrap();
        let (engine, commands, engine_task) = connect(at.mqtt_port, format!("{id}-ne"));
        engine.subscribe(format!("nodes/{id}/control/+"), QoS::AtLeastOnce).await.unwrap();
        let (own, heard, net_task) = connect(at.mqtt_port, id.to_string());
        for topic in [NodeTopic::TableResult, NodeTopic::SubnetResult] {
            own.subscribe(topic.of(&id), QoS::AtLeastOnce).await.unwrap();
        }
        let told = Arc::default();
        let engine = Engine { id, engine, net: own.clone(), prefix: net.to_owned(), told: Arc::clone(&told) };
        let work = tokio::spawn(engine.work(commands));
        Self { id, net: own, heard, told, tasks: [engine_task, net_task, work] }
    }

    /// What it was told so far: `deploy shop.test.web.test 0`.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    /// Its netmanager asks for a table.
    pub(crate) async fn query(&mut self, name: &str, address: &str) -> Value {
        self.say(NodeTopic::TableQuery, &json!({ "sname": name, "sip": address })).await;
        let topic = NodeTopic::TableResult.of(&self.id);
        self.hears(&topic).await
    }

    /// Asks until the table is so.
    pub(crate) async fn sees(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let table = self.query(name, "").await;
            if wanted(&table["instance_list"]) {
                return table["instance_list"].clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "the table never came to be so: {table}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its netmanager wants its block of addresses.
    pub(crate) async fn subnet(&mut self) -> Value {
        self.say(NodeTopic::Subnet, &json!({ "METHOD": "GET" })).await;
        let topic = NodeTopic::SubnetResult.of(&self.id);
        self.hears(&topic).await
    }

    /// Its own processes speak under this address of its block.
    pub(crate) async fn is_itself_at(&self, nsip: &str) {
        let itself = json!({ "nsip": nsip, "host_port": "50103", "host_ip": "192.0.2.11" });
        self.say(NodeTopic::NodeItself, &itself).await;
    }

    /// Asks by this address until somebody is there.
    pub(crate) async fn finds(&mut self, address: &str) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let table = self.query("", address).await;
            if let Some(found) = table["instance_list"].get(0) {
                return found.clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "nobody was ever found at {address}: {table}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn listen_to(&self, name: &str) {
        self.net.subscribe(updates_available(name), QoS::AtLeastOnce).await.unwrap();
    }

    /// Waits for the news that a table has changed.
    pub(crate) async fn hears_of(&mut self, name: &str) -> Value {
        self.hears(&updates_available(name)).await
    }

    async fn hears(&mut self, topic: &str) -> Value {
        loop {
            let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
            let heard = heard.unwrap_or_else(|_late| panic!("nothing came under {topic}")).unwrap();
            if heard.topic == topic {
                return serde_json::from_slice(&heard.payload).unwrap();
            }
        }
    }

    async fn say(&self, topic: NodeTopic, payload: &Value) {
        let sent = self.net.publish(topic.of(&self.id), QoS::AtLeastOnce, false, payload.to_string()).await;
        sent.unwrap();
    }
}

fn connect(port: u16, client_id: String) -> (AsyncClient, mpsc::UnboundedReceiver<Publish>, JoinHandle<()>) {
    let (client, events) = AsyncClient::new(MqttOptions::new(client_id, "127.0.0.1", port), 64);
    let (sender, heard) = mpsc::unbounded_channel();
    (client, heard, tokio::spawn(listen(events, sender)))
}

/// Ends with its broker.
async fn listen(mut events: EventLoop, sender: mpsc::UnboundedSender<Publish>) {
    while let Ok(event) = events.poll().await {
        if let Event::Incoming(Packet::Publish(message)) = event
            && sender.send(message).is_err()
        {
            return;
        }
    }
}

struct Engine {
    id: Id,
    engine: AsyncClient,
    net: AsyncClient,
    prefix: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    async fn work(self, mut commands: mpsc::UnboundedReceiver<Publish>) {
        let mut running = BTreeSet::new();
        let mut period = tokio::time::interval(REPORT_PERIOD);
        loop {
            tokio::select! {
                Some(command) = commands.recv() => self.obey(&command, &mut running).await,
                _ = period.tick() => self.report(&running).await,
            }
        }
    }

    async fn obey(&self, message: &Publish, running: &mut BTreeSet<(String, u64)>) {
        let command: Value = serde_json::from_slice(&message.payload).unwrap();
        let name = command["job_name"].as_str().unwrap().to_owned();
        let number = command["instance_number"].as_u64().unwrap();
        let is_deploy = message.topic.ends_with("control/deploy");
        let verb = if is_deploy { "deploy" } else { "delete" };
        self.told.lock().unwrap().push(format!("{verb} {name} {number}"));
        let own = (name.clone(), number);
        let (status, topic) = if is_deploy {
            running.insert(own);
            ("CREATED", NodeTopic::ServiceDeployed)
        } else {
            running.remove(&own);
            ("UNDEPLOYED", NodeTopic::ServiceUndeployed)
        };
        let place = json!({ "appname": name, "status": "DEPLOYED", "instance_number": number,
            "nsip": format!("{}.{}", self.prefix, number + 2), "nsipv6": "fc00::102", "host_port": "50103",
            "host_ip": "192.0.2.11" });
        self.say(&self.net, topic, &place).await;
        let report = json!({ "sname": name, "instance": number, "status": status, "status_detail": "",
            "publicip": "192.0.2.11" });
        self.say(&self.engine, NodeTopic::Job, &report).await;
    }

    async fn report(&self, running: &BTreeSet<(String, u64)>) {
        let node = json!({ "ip": "192.0.2.11", "cpu_percent": 5.0, "vcpus": 2, "memory_percent": 10.0, "memory": 1000 });
        self.say(&self.engine, NodeTopic::Information, &node).await;
        let services: Value = running
            .iter()
            .map(|(name, number)| {
                json!({ "job_name": name, "instance": number, "virtualization": "docker", "cpu_percent": "0.250000",
                    "memory_percent": "1.500000", "disk": "8192", "logs": "hello" })
            })
            .collect();
        self.say(&self.engine, NodeTopic::Resources, &json!({ "services": services })).await;
    }

    /// The broker may be gone, with its cluster.
    async fn say(&self, client: &AsyncClient, topic: NodeTopic, payload: &Value) {
        drop(client.publish(topic.of(&self.id), QoS::AtLeastOnce, false, payload.to_string()).await);
    }
}
