//! The cluster's side of the conversation: a real broker, and behind it as much of a cluster as a worker talks to.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rumqttc::{AsyncClient, Event, MqttOptions, NetworkOptions, Packet, QoS};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::mosquitto;
use crate::netns::Netns;
use crate::wait::eventually;

pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 20);
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x20);
pub const PORT: u16 = protocol::port::CLUSTER_MQTT;
/// A service with an address that no other one has.
pub const WEB: &str = "smp.bed.web.bed";
pub const WEB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 30, 109, 2);

/// What the cluster knows and has heard. Tests change and read it while it runs.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// The blocks that a node gets, of IPv4 and of IPv6; nothing: its request stays unanswered.
    pub block: Option<(Ipv4Addr, &'static str)>,
    /// The instances of each service, as they stand in a table.
    pub services: BTreeMap<String, Vec<Value>>,
    /// Nodes themselves, as they said it.
    pub nodes: Vec<Value>,
    /// Topic and payload of everything that nodes said.
    pub heard: Vec<(String, Value)>,
}

/// A broker and a cluster that answers. Stopped when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    pub broker: Daemon,
    pub netns: Arc<Netns>,
    pub knowledge: Arc<Mutex<Knowledge>>,
    client: AsyncClient,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Cluster {
    pub fn start(netns: &Arc<Netns>, folder: &Path) -> Result<Self> {
        let config = folder.join("mosquitto.conf");
        fs::write(
            &config,
            format!("listener {PORT} {ADDRESS}\nallow_anonymous true\nset_tcp_nodelay true\nuser root\n"),
        )
        .with_context(|| format!("write {}", config.display()))?;
        let broker = mosquitto::start(netns, config, folder.join("mosquitto.log"), (ADDRESS, PORT))?;

        let knowledge = Arc::new(Mutex::new(Knowledge {
            block: Some((Ipv4Addr::new(10, 18, 0, 64), "fc00::100")),
            ..Knowledge::default()
        }));
        let mut options = MqttOptions::new("cluster", ADDRESS.to_string(), PORT);
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut eventloop) = AsyncClient::new(options, 64);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        eventloop.set_network_options(network);
        let stop = CancellationToken::new();
        let thread = std::thread::spawn({
            let (netns, client) = (Arc::clone(netns), client.clone());
            let (knowledge, stop) = (Arc::clone(&knowledge), stop.clone());
            move || {
                netns.run(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(async {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = serve(&client, &mut eventloop, &knowledge) => {}
                        }
                    });
                    Ok(())
                })?
            }
        });
        let netns = Arc::clone(netns);
        Ok(Self { broker, netns, knowledge, client, stop, thread: Some(thread) })
    }

    pub fn knows(&self) -> MutexGuard<'_, Knowledge> {
        self.knowledge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something as the cluster would.
    pub fn say(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<()> {
        self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).context("publish")
    }

    /// A service whose instance runs on another node; told to whoever listens.
    pub fn deploy_elsewhere(&self, service: &str, number: u8, ns_ip: &str) -> Result<()> {
        self.knows().services.entry(service.to_owned()).or_default().push(instance(
            service,
            number,
            Some(ns_ip),
        ));
        self.tell_of(service)
    }

    /// A service one of whose instances will run here: its ServiceIP is there, its place is not yet. Done twice it is
    /// done once.
    pub fn schedule(&self, service: &str, number: u8) {
        let mut knowledge = self.knows();
        let instances = knowledge.services.entry(service.to_owned()).or_default();
        if instances.iter().all(|instance| instance["instance_number"] != number) {
            instances.push(instance(service, number, None));
        }
    }

    pub fn tell_of(&self, service: &str) -> Result<()> {
        self.say(&format!("jobs/{service}/updates_available"), r#"{"type":"DEPLOYMENT"}"#)
    }

    /// How often a topic that ends so was heard, with a payload that passes.
    pub fn heard(&self, topic_end: &str, passes: impl Fn(&Value) -> bool) -> usize {
        let knowledge = self.knows();
        knowledge
            .heard
            .iter()
            .filter(|(topic, payload)| topic.ends_with(topic_end) && passes(payload))
            .count()
    }

    /// Waits until something was heard that was not heard `before` times.
    pub fn wait_to_hear(
        &self,
        topic_end: &str,
        before: usize,
        passes: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        eventually(Duration::from_secs(10), &format!("{topic_end} from the node"), || {
            let heard = self.heard(topic_end, &passes);
            if heard > before { Ok(()) } else { Err(anyhow!("heard {:?}", self.knows().heard)) }
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A table's instance. Number 7 has the ServiceIPs 10.30.0.7 and fdff::7; those of the service are 10.30.109.1 and
/// fdff:2000::1, and for the closest instance 10.30.110.1 and fdff:1000::1. Those of [`WEB`] end in 2.
fn instance(service: &str, number: u8, ns_ip: Option<&str>) -> Value {
    let last = if service == WEB { 2 } else { 1 };
    let (own, own_v6) = (format!("10.30.0.{number}"), format!("fdff::{number}"));
    json!({
        "instance_number": number, "instance_ip": own, "instance_ip_v6": own_v6,
        "namespace_ip": ns_ip, "namespace_ip_v6": ns_ip.map(|_| format!("fc00::2:{number}")),
        "host_ip": ns_ip.map(|_| "192.0.2.99"), "host_port": ns_ip.map(|_| 50103),
        "service_ip": [
            {"IpType": "RR", "Address": format!("10.30.109.{last}"), "Address_v6": format!("fdff:2000::{last}")},
            {"IpType": "Closest", "Address": format!("10.30.110.{last}"), "Address_v6": format!("fdff:1000::{last}")},
            {"IpType": "instance_ip", "Address": own, "Address_v6": own_v6},
        ],
    })
}

async fn serve(client: &AsyncClient, eventloop: &mut rumqttc::EventLoop, knowledge: &Mutex<Knowledge>) {
    loop {
        match eventloop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                client.try_subscribe("nodes/+/net/#", QoS::AtLeastOnce).ok();
            }
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let payload = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
                let mut knowledge = knowledge.lock().unwrap_or_else(PoisonError::into_inner);
                for (topic, answer) in knowledge.hear(&message.topic, payload) {
                    client.try_publish(topic, QoS::AtLeastOnce, false, answer.to_string()).ok();
                }
            }
            Ok(_) => {}
            // The broker is stopped or restarted by a test.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

impl Knowledge {
    fn hear(&mut self, topic: &str, payload: Value) -> Vec<(String, Value)> {
        let Some((node, what)) = topic.strip_prefix("nodes/").and_then(|rest| rest.split_once('/')) else {
            return Vec::new();
        };
        let mut answers = Vec::new();
        match what {
            "net/subnet" => {
                let block = self.block.map(|(v4, v6)| json!({"address": v4, "addressv6": v6}));
                answers.extend(block.map(|block| (format!("nodes/{node}/net/subnetwork/result"), block)));
            }
            "net/tablequery/request" => {
                answers.push((format!("nodes/{node}/net/tablequery/result"), self.table(&payload)));
            }
            "net/host" => self.nodes.push(payload.clone()),
            "net/service/deployed" => {
                let service = payload["appname"].as_str().unwrap_or("").to_owned();
                for instance in self.services.get_mut(&service).into_iter().flatten() {
                    if instance["instance_number"] == payload["instance_number"] {
                        instance["namespace_ip"] = payload["nsip"].clone();
                        instance["namespace_ip_v6"] = payload["nsipv6"].clone();
                        instance["host_ip"] = payload["host_ip"].clone();
                        instance["host_port"] = json!(50103);
                        instance["links"] = payload["links"].clone();
                    }
                }
                answers.push((format!("jobs/{service}/updates_available"), json!({"type": "DEPLOYMENT"})));
            }
            _ => {}
        }
        self.heard.push((topic.to_owned(), payload));
        answers
    }

    fn table(&self, query: &Value) -> Value {
        let (name, address) = (query["sname"].as_str().unwrap_or(""), query["sip"].as_str().unwrap_or(""));
        let has = |instances: &[Value]| {
            let addresses =
                instances.iter().filter_map(|instance| instance["service_ip"].as_array()).flatten();
            addresses
                .into_iter()
                .any(|service_ip| service_ip["Address"] == address || service_ip["Address_v6"] == address)
        };
        let found = self.services.iter().find(|(service, instances)| *service == name || has(instances));
        let key = if name.is_empty() { address } else { name };
        let itself = self.nodes.iter().rfind(|node| node["nsip"] == address || node["nsipv6"] == address);
        if let Some(node) = itself {
            let instance = json!({"instance_number": 0, "namespace_ip": node["nsip"], "namespace_ip_v6": node["nsipv6"],
                "host_ip": node["host_ip"], "host_port": 50103, "links": node["links"]});
            return json!({"app_name": "", "instance_list": [instance], "query_key": key});
        }
        match found {
            Some((service, instances)) => {
                json!({"app_name": service, "instance_list": instances, "query_key": key})
            }
            None => json!({"app_name": name, "instance_list": [], "query_key": key}),
        }
    }
}
