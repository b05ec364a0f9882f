//! A worker as Oakestra's is seen from outside: both MQTT clients, with the payloads that were captured.

use std::time::Duration;

use protocol::topic::{NodeTopic, updates_available};
use rumqttc::{AsyncClient, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bed::{PATIENCE, eventually};

pub(crate) struct Worker {
    pub(crate) id: protocol::id::Id,
    pub(crate) host: String,
    engine: Connection,
    net: Connection,
}

struct Connection {
    client: AsyncClient,
    messages: mpsc::UnboundedReceiver<(String, Value)>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    async fn open(port: u16, client_id: &str, user: Option<&str>, filters: &[String]) -> Self {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(5));
        if let Some(user) = user {
            options.set_credentials(user, "");
        }
        let (client, mut events) = AsyncClient::new(options, 64);
        events.network_options.set_tcp_nodelay(true);
        for filter in filters {
            client.subscribe(filter, QoS::AtLeastOnce).await.expect("room in the queue");
        }
        let mut subscribed = 0;
        while subscribed < filters.len() {
            let event = tokio::time::timeout(PATIENCE, events.poll())
                .await
                .expect("an answer")
                .expect("a connection");
            if let rumqttc::Event::Incoming(Packet::SubAck(ack)) = event {
                assert!(!ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure), "{filters:?}");
                subscribed += 1;
            }
        }
        let (sender, messages) = mpsc::unbounded_channel();
        Self { client, messages, task: tokio::spawn(forward(events, sender)) }
    }

    async fn say(&self, topic: String, payload: Vec<u8>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.expect("a connection");
    }
}

pub(crate) struct KeepAlive {
    topic: String,
    client: AsyncClient,
}

impl KeepAlive {
    /// Until it is dropped.
    pub(crate) async fn run(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.client.publish(&self.topic, QoS::AtMostOnce, false, []).await.expect("a connection");
        }
    }
}

async fn forward(mut events: EventLoop, sender: mpsc::UnboundedSender<(String, Value)>) {
    while let Ok(event) = events.poll().await {
        if let rumqttc::Event::Incoming(Packet::Publish(publish)) = event {
            let payload = serde_json::from_slice(&publish.payload).expect("JSON");
            if sender.send((publish.topic, payload)).is_err() {
                return;
            }
        }
    }
}

impl Worker {
    pub(crate) async fn connect(mqtt: u16, id: protocol::id::Id, host: &str) -> Self {
        Self::connect_as(mqtt, id, host, None).await
    }

    /// With a user name, as Hypha's workers have one.
    pub(crate) async fn connect_as(mqtt: u16, id: protocol::id::Id, host: &str, user: Option<&str>) -> Self {
        let commands = [format!("nodes/{id}/control/+")];
        let engine = Connection::open(mqtt, &format!("{id}-ne"), user, &commands).await;
        let topics = [NodeTopic::SubnetResult.of(&id), NodeTopic::TableResult.of(&id)];
        let net = Connection::open(mqtt, &id.to_string(), user, &topics).await;
        Self { id, host: host.to_owned(), engine, net }
    }

    /// The next command, deploy or delete.
    pub(crate) async fn command(&mut self) -> (String, Value) {
        let (topic, payload) = tokio::time::timeout(PATIENCE, self.engine.messages.recv())
            .await
            .unwrap_or_else(|_late| panic!("no command came to {}", self.host))
            .expect("a connection");
        (topic.rsplit('/').next().unwrap_or_default().to_owned(), payload)
    }

    pub(crate) async fn no_command(&mut self, during: Duration) {
        if let Ok(Some(command)) = tokio::time::timeout(during, self.engine.messages.recv()).await {
            panic!("{} was told {command:?}", self.host);
        }
    }

    /// The next message to the netmanager.
    pub(crate) async fn net_message(&mut self) -> (String, Value) {
        tokio::time::timeout(PATIENCE, self.net.messages.recv())
            .await
            .unwrap_or_else(|_late| panic!("no message came to the netmanager of {}", self.host))
            .expect("a connection")
    }

    pub(crate) async fn listen_to(&mut self, name_or_address: &str) {
        let filter = updates_available(name_or_address);
        self.net.client.subscribe(filter, QoS::AtLeastOnce).await.expect("a connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Says that it is there, and nothing else.
    pub(crate) fn keep_alive(&self) -> KeepAlive {
        KeepAlive { topic: NodeTopic::Alive.of(&self.id), client: self.engine.client.clone() }
    }

    pub(crate) async fn say_engine(&self, topic: NodeTopic, payload: &Value) {
        self.engine.say(topic.of(&self.id), payload.to_string().into_bytes()).await;
    }

    pub(crate) async fn say_net(&self, topic: NodeTopic, payload: &Value) {
        self.net.say(topic.of(&self.id), payload.to_string().into_bytes()).await;
    }

    pub(crate) async fn say_rubbish(&self, topic: NodeTopic) {
        self.engine.say(topic.of(&self.id), b"{\"services\":[{\xff".to_vec()).await;
    }

    /// `nodes/{id}/information` as captured.
    pub(crate) async fn say_information(&self) {
        let information = json!({"id":"","host":"","ip":"192.0.2.32","port":"","system_info":null,
            "cpu_percent":6.8,"vcpus":2,"architecture":"","memory_percent":2.4,"memory":23206,"disk_info":null,
            "network_info":null,"gpu_driver":"-","gpu_usage":0,"vgpus":0,"gpu_temp":0,"vram_percent":0,"vram":0,
            "virtualization":null,"supported_addons":null,"csi_drivers":null,"Overlay":false,"OverlaySocket":"",
            "LogDirectory":"","NetManagerPort":0,"ClusterAddress":""});
        self.say_engine(NodeTopic::Information, &information).await;
    }

    /// `nodes/{id}/jobs/resources` as captured.
    pub(crate) async fn say_resources(&self, instances: &[(&str, u32)]) {
        let services: Vec<_> = instances
            .iter()
            .map(|(name, number)| {
                json!({"cpu_percent":"0.000000","memory_percent":"0.000031","disk":"8192","logs":"hello",
                    "job_name":name,"virtualization":"docker","instance":number})
            })
            .collect();
        self.say_engine(NodeTopic::Resources, &json!({ "services": services })).await;
    }

    /// `nodes/{id}/job` as captured.
    pub(crate) async fn say_status(&self, name: &str, number: u32, status: &str, detail: &str) {
        let report = json!({"sname":name,"status":status,"status_detail":detail,"instance":number,
            "publicip":"192.0.2.32"});
        self.say_engine(NodeTopic::Job, &report).await;
    }

    /// `nodes/{id}/net/service/deployed` as captured.
    pub(crate) async fn say_address(&self, name: &str, number: u32, nsip: &str) {
        let deployed = json!({"appname":name,"status":"DEPLOYED","instance_number":number,"nsip":nsip,
            "nsipv6":"fc00::102","host_port":"50103","host_ip":"192.0.2.32"});
        self.say_net(NodeTopic::ServiceDeployed, &deployed).await;
    }

    pub(crate) async fn query(&mut self, sname: &str, sip: &str) -> Value {
        self.say_net(NodeTopic::TableQuery, &json!({ "sname": sname, "sip": sip })).await;
        loop {
            let (topic, payload) = self.net_message().await;
            if topic == NodeTopic::TableResult.of(&self.id) {
                return payload;
            }
        }
    }

    /// Waits until the table has so many instances.
    pub(crate) async fn sees_instances(&mut self, sname: &str, count: usize) -> Value {
        let mut last = Value::Null;
        for _ in 0..100 {
            last = self.query(sname, "").await;
            if last["instance_list"].as_array().is_some_and(|list| list.len() == count) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} sees {last}, not {count} instances", self.host);
    }

    /// Waits for the notice that a table changed.
    pub(crate) async fn hears_of(&mut self, name_or_address: &str) -> Value {
        let topic = updates_available(name_or_address);
        loop {
            let (heard, payload) = self.net_message().await;
            if heard == topic {
                return payload;
            }
        }
    }
}

/// Waits until the root was told that the instance is in this state.
pub(crate) async fn is_reported(root: &crate::root::Root, number: u32, status: &str) {
    eventually(&format!("instance {number} {status} at the root"), || {
        let instance = root.reported(number);
        let reached = instance.as_ref().is_some_and(|instance| instance.status.as_str() == status);
        (reached, format!("{instance:?}"))
    })
    .await;
}
