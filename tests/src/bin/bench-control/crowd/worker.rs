//! One of them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::id::Id;
use protocol::name::InstanceName;
use protocol::net::{NodeItself, ServiceDeployed, ServiceUndeployed, SubnetRequest, SubnetResult};
use protocol::node::{Delete, Deploy, InstanceReport, InstanceResources, Node, Registered, ResourceReport};
use protocol::port;
use protocol::status::Status;
use protocol::topic::NodeTopic;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;

use super::Tally;

const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The largest packet that Hypha's brokers take.
const PACKET_MAX: usize = 256 * 1024;
const QUEUE: usize = 64;
/// How long a worker waits before it joins again.
const PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Simulated {
    number: u32,
    cluster: Ipv4Addr,
    client: reqwest::Client,
    tally: Arc<Tally>,
    instances: BTreeSet<InstanceName>,
}

/// One connection: what the cluster says comes through `messages`, until it is lost.
struct Connection {
    client: AsyncClient,
    messages: mpsc::UnboundedReceiver<(NodeTopic, Vec<u8>)>,
    id: Id,
    tally: Arc<Tally>,
}

impl Simulated {
    pub(super) fn new(number: u32, cluster: Ipv4Addr, client: reqwest::Client, tally: Arc<Tally>) -> Self {
        Self { number, cluster, client, tally, instances: BTreeSet::new() }
    }

    /// Joins, and does as it is told; again when it was cut off.
    pub(super) async fn live(mut self, joining: Arc<Semaphore>) {
        loop {
            let ended = self.serve(&joining).await;
            self.tally.lost.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = ended {
                complain(self.number, &error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn serve(&mut self, joining: &Semaphore) -> Result<()> {
        let turn = joining.acquire().await.context("wait for the turn to join")?;
        let registered = self.register().await?;
        let id = registered.id;
        let port = registered.mqtt_broker_port.parse().context("the port of the broker")?;
        let mut net = Connection::open(
            &self.tally,
            (self.cluster, port),
            id,
            "",
            &[NodeTopic::SubnetResult, NodeTopic::TableResult],
        )
        .await?;
        let block = self.block(&mut net).await?;
        let commands = [NodeTopic::ControlDeploy, NodeTopic::ControlDelete, NodeTopic::ControlError];
        let mut engine = Connection::open(&self.tally, (self.cluster, port), id, "-ne", &commands).await?;
        engine.say(NodeTopic::Information, &self.node(), QoS::AtMostOnce).await?;
        self.report(&engine).await?;
        drop(turn);
        self.tally.joined.fetch_add(1, Ordering::Relaxed);

        let every = registered.alive_every.context("how often the cluster wants to hear of a worker")?;
        let mut ticks = tokio::time::interval(Duration::from_millis(every.get().into()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut spoke = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if !std::mem::take(&mut spoke) {
                        engine.say_alive().await?;
                    }
                }
                command = engine.messages.recv() => {
                    let (topic, payload) = command.context("the node-engine's connection was lost")?;
                    self.obey(topic, &payload, block, &engine, &net).await?;
                    spoke = true;
                }
                answer = net.messages.recv() => drop(answer.context("netmanager's connection was lost")?),
            }
        }
    }

    async fn register(&self) -> Result<Registered> {
        let url = format!("http://{}:{}/api/node/register", self.cluster, port::CLUSTER_API);
        let answer = self.client.post(url).json(&self.node()).send().await.context("register")?;
        let status = answer.status();
        let text = answer.text().await.context("register")?;
        ensure!(status.is_success(), "register: {status} {text}");
        serde_json::from_str(&text).with_context(|| format!("register: {text}"))
    }

    /// Asks for its addresses as netmanager does, and says under which of them the node itself is.
    async fn block(&self, net: &mut Connection) -> Result<Ipv4Addr> {
        net.say(NodeTopic::Subnet, &SubnetRequest { method: "GET".to_owned() }, QoS::AtLeastOnce).await?;
        let block = loop {
            let (topic, payload) = net.messages.recv().await.context("the connection was lost")?;
            if topic == NodeTopic::SubnetResult {
                let result: SubnetResult = serde_json::from_slice(&payload).context("read the block")?;
                break result.address;
            }
        };
        let itself = NodeItself {
            nsip: beyond(block, 62),
            nsipv6: None,
            host_port: port::TUNNEL,
            host_ip: self.address().into(),
            links: protocol::link::LinkOffer::default(),
        };
        net.say(NodeTopic::NodeItself, &itself, QoS::AtLeastOnce).await?;
        Ok(block)
    }

    async fn obey(
        &mut self,
        topic: NodeTopic,
        payload: &[u8],
        block: Ipv4Addr,
        engine: &Connection,
        net: &Connection,
    ) -> Result<()> {
        match topic {
            NodeTopic::ControlDeploy => {
                let deploy: Deploy = serde_json::from_slice(payload).context("read a deployment")?;
                let name =
                    InstanceName { service: deploy.service.job_name.clone(), number: deploy.instance_number };
                if self.instances.insert(name.clone()) {
                    self.tally.instances.fetch_add(1, Ordering::Relaxed);
                }
                let place = u32::try_from(self.instances.len()).unwrap_or(u32::MAX).min(59) + 1;
                let deployed = ServiceDeployed {
                    appname: name.service.clone(),
                    status: "DEPLOYED".to_owned(),
                    instance_number: name.number,
                    nsip: beyond(block, place),
                    nsipv6: String::new(),
                    host_port: port::TUNNEL,
                    host_ip: self.address().into(),
                    links: protocol::link::LinkOffer::default(),
                };
                net.say(NodeTopic::ServiceDeployed, &deployed, QoS::AtLeastOnce).await?;
                self.tell(engine, name, Status::Created).await?;
            }
            NodeTopic::ControlDelete => {
                let delete: Delete = serde_json::from_slice(payload).context("read an order to delete")?;
                let name = InstanceName { service: delete.job_name, number: delete.instance_number };
                if self.instances.remove(&name) {
                    self.tally.instances.fetch_sub(1, Ordering::Relaxed);
                }
                let undeployed = ServiceUndeployed {
                    appname: name.service.clone(),
                    status: "UNDEPLOYED".to_owned(),
                    instance_number: name.number,
                };
                net.say(NodeTopic::ServiceUndeployed, &undeployed, QoS::AtLeastOnce).await?;
                self.tell(engine, name, Status::Undeployed).await?;
            }
            _ => return Ok(()),
        }
        self.report(engine).await
    }

    async fn tell(&self, engine: &Connection, name: InstanceName, status: Status) -> Result<()> {
        let report = InstanceReport {
            sname: name.service,
            status,
            status_detail: String::new(),
            instance: name.number,
            publicip: self.address().to_string(),
        };
        engine.say(NodeTopic::Job, &report, QoS::AtLeastOnce).await
    }

    async fn report(&self, engine: &Connection) -> Result<()> {
        let measured = |name: &InstanceName| InstanceResources {
            cpu_percent: "0.100000".to_owned(),
            memory_percent: "0.100000".to_owned(),
            disk: "8192".to_owned(),
            logs: "ready\n".to_owned(),
            job_name: name.service.clone(),
            virtualization: "docker".to_owned(),
            instance: name.number,
        };
        let report = ResourceReport { services: self.instances.iter().map(measured).collect(), more: false };
        engine.say(NodeTopic::Resources, &report, QoS::AtMostOnce).await
    }

    fn node(&self) -> Node {
        Node {
            host: format!("simulated{}", self.number),
            ip: self.address().to_string(),
            port: "50011".to_owned(),
            vcpus: 8,
            architecture: "arm64".to_owned(),
            cpu_percent: 3.0,
            memory: 7000,
            memory_percent: 12.5,
            virtualization: vec!["docker".to_owned()],
            ..Node::default()
        }
    }

    /// Where nobody is.
    fn address(&self) -> Ipv4Addr {
        beyond(Ipv4Addr::new(198, 18, 0, 0), self.number)
    }
}

impl Connection {
    async fn open(
        tally: &Arc<Tally>,
        broker: (Ipv4Addr, u16),
        id: Id,
        suffix: &str,
        topics: &[NodeTopic],
    ) -> Result<Self> {
        let mut options = MqttOptions::new(format!("{id}{suffix}"), broker.0.to_string(), broker.1);
        options.set_keep_alive(KEEP_ALIVE).set_max_packet_size(PACKET_MAX, PACKET_MAX);
        let (client, mut events) = AsyncClient::new(options, QUEUE);
        events.network_options.set_tcp_nodelay(true);
        for topic in topics {
            client.subscribe(topic.of(&id), QoS::AtLeastOnce).await.context("subscribe")?;
        }
        let mut wanted = topics.len();
        while wanted > 0 {
            let event =
                events.poll().await.with_context(|| format!("connect to {}:{}", broker.0, broker.1))?;
            wanted -= usize::from(matches!(event, Event::Incoming(Packet::SubAck(_))));
        }
        // A full queue would keep the connection from being driven, on which whoever empties it may wait.
        let (sender, messages) = mpsc::unbounded_channel();
        tokio::spawn(forward(events, sender, Arc::clone(tally)));
        Ok(Self { client, messages, id, tally: Arc::clone(tally) })
    }

    async fn say(&self, topic: NodeTopic, what: &impl Serialize, quality: QoS) -> Result<()> {
        let payload = serde_json::to_vec(what).context("write a message")?;
        self.send(topic, payload, quality).await
    }

    async fn say_alive(&self) -> Result<()> {
        self.tally.alive.fetch_add(1, Ordering::Relaxed);
        self.send(NodeTopic::Alive, Vec::new(), QoS::AtMostOnce).await
    }

    async fn send(&self, topic: NodeTopic, payload: Vec<u8>, quality: QoS) -> Result<()> {
        self.tally.messages.fetch_add(1, Ordering::Relaxed);
        let sent = self.client.publish(topic.of(&self.id), quality, false, payload).await;
        sent.with_context(|| format!("say {topic:?}"))
    }
}

/// Until the connection is lost, or nobody listens.
async fn forward(
    mut events: EventLoop,
    sender: mpsc::UnboundedSender<(NodeTopic, Vec<u8>)>,
    tally: Arc<Tally>,
) {
    while let Ok(event) = events.poll().await {
        let Event::Incoming(Packet::Publish(publish)) = event else {
            if sender.is_closed() {
                return;
            }
            continue;
        };
        tally.messages.fetch_add(1, Ordering::Relaxed);
        let Some((_, topic)) = NodeTopic::parse(&publish.topic) else { continue };
        if sender.send((topic, publish.payload.to_vec())).is_err() {
            return;
        }
    }
}

fn beyond(first: Ipv4Addr, by: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits().wrapping_add(by))
}

#[expect(clippy::print_stderr, reason = "standard error is the log of this process")]
fn complain(number: u32, error: &anyhow::Error) {
    eprintln!("simulated{number}: {error:#}");
}
