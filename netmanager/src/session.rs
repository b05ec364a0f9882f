//! The link to the cluster: one MQTT connection after another.
//!
//! A connection starts from nothing and says [`Event::Up`] when it is subscribed to what is addressed to this node;
//! whoever listens then asks for everything it needs. So there is no queue over a lost connection whose old messages
//! could contradict new ones, and a broker that lost its memory is as good as one that did not.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use protocol::id::Id;
use protocol::net::{SubnetResult, TableResult, UpdateAvailable};
use protocol::rtt::RttPeers;
use protocol::topic::{NodeTopic, parse_updates_available};
use rand::Rng as _;
use rumqttc::{
    AsyncClient, ConnectionError, EventLoop, MqttOptions, NetworkOptions, Packet, Publish, QoS,
    SubscribeReasonCode,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::chain;

/// A table of several thousand instances.
const LARGEST_PACKET: usize = 4 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// With the time that a connection takes to fail, a link that is good again is used within ten seconds.
const BACKOFF_LAST: Duration = Duration::from_secs(5);
/// By chance each pause is a bit shorter or longer, so that the workers of a cluster that is back do not all knock at once.
const JITTER: Range<f64> = 0.75..1.25;
/// How long the broker may take to accept the node's own subscriptions.
const SUBSCRIBING: Duration = Duration::from_secs(5);
/// Topics of which a malformed payload is remembered, so that it is logged once.
const MALFORMED: usize = 256;

/// Where to connect, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub node: Id,
    pub host: String,
    pub port: u16,
}

/// What the cluster says, or happens to the connection.
#[derive(Debug)]
pub enum Event {
    Up,
    Down {
        reason: String,
    },
    Subnet(SubnetResult),
    Table(TableResult),
    /// Whom the node is to measure.
    Peers(RttPeers),
    /// A service's name, or an address, whose table changed, and how it is now if the cluster says so.
    Changed {
        subject: String,
        table: Option<Box<TableResult>>,
    },
}

/// What is sent. Lost if the connection is down.
#[derive(Debug)]
enum Message {
    Publish { topic: String, payload: Vec<u8> },
    Subscribe(String),
    Unsubscribe(String),
}

/// Speaks to the cluster; dropping it ends the connection.
#[derive(Debug)]
pub struct Session {
    target: Target,
    outgoing: mpsc::UnboundedSender<Message>,
    stop: CancellationToken,
}

impl Session {
    /// Makes the session and the task that drives it, which the caller must run.
    pub fn new(
        target: Target,
        events: mpsc::Sender<Event>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let driver = Driver { target: target.clone(), queue, events, malformed: HashSet::new() };
        let task = driver.run(stop.clone());
        (Self { target, outgoing, stop }, task)
    }

    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn publish(&self, topic: NodeTopic, payload: &impl Serialize) {
        match serde_json::to_vec(payload) {
            Ok(payload) => self.send(Message::Publish { topic: topic.of(&self.target.node), payload }),
            Err(error) => tracing::error!(?topic, %error, "payload cannot be written as JSON"),
        }
    }

    pub fn subscribe(&self, topic: String) {
        self.send(Message::Subscribe(topic));
    }

    pub fn unsubscribe(&self, topic: String) {
        self.send(Message::Unsubscribe(topic));
    }

    /// The driver is gone only while the daemon stops.
    fn send(&self, message: Message) {
        self.outgoing.send(message).ok();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Driver {
    target: Target,
    queue: mpsc::UnboundedReceiver<Message>,
    events: mpsc::Sender<Event>,
    malformed: HashSet<String>,
}

/// Why a connection ended.
enum End {
    Lost {
        reason: String,
        was_up: bool,
    },
    /// Nobody listens to our events any more.
    Unwanted,
}

impl Driver {
    async fn run(mut self, stop: CancellationToken) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.connection() => ended,
            };
            let End::Lost { reason, was_up } = ended else { return };
            if was_up {
                backoff = BACKOFF_FIRST;
            }
            // Whatever waited for the old connection would be out of date on the next.
            while self.queue.try_recv().is_ok() {}
            if self.events.send(Event::Down { reason }).await.is_err() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff.mul_f64(rand::rng().random_range(JITTER))) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    /// One connection from its start to its end.
    async fn connection(&mut self) -> End {
        let Target { node, host, port } = &self.target;
        let mut options = MqttOptions::new(node.to_string(), host.clone(), *port);
        options.set_keep_alive(KEEP_ALIVE).set_max_packet_size(LARGEST_PACKET, LARGEST_PACKET);
        // By which a broker that knows nothing of nodes can tell their topics apart: node-engine has the same.
        options.set_credentials(node.to_string(), "");
        let (client, mut eventloop) = AsyncClient::new(options, 64);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        eventloop.set_network_options(network);

        let Self { target, queue, events, malformed } = self;
        let mut incoming = Incoming {
            node: target.node,
            client: client.clone(),
            events,
            malformed,
            up: false,
            subscribed_by: None,
        };
        // Both run side by side: polling the event loop must not be broken off by something to send.
        tokio::select! {
            end = incoming.run(&mut eventloop) => end,
            () = forward(queue, &client) => End::Unwanted,
        }
    }
}

async fn forward(queue: &mut mpsc::UnboundedReceiver<Message>, client: &AsyncClient) {
    while let Some(message) = queue.recv().await {
        let sent = match message {
            Message::Publish { topic, payload } => {
                client.publish(topic, QoS::AtLeastOnce, false, payload).await
            }
            Message::Subscribe(topic) => client.subscribe(topic, QoS::AtLeastOnce).await,
            Message::Unsubscribe(topic) => client.unsubscribe(topic).await,
        };
        if let Err(error) = sent {
            // The event loop ended: its own error tells why.
            tracing::debug!(%error, "message is not sent");
        }
    }
}

struct Incoming<'a> {
    node: Id,
    client: AsyncClient,
    events: &'a mut mpsc::Sender<Event>,
    malformed: &'a mut HashSet<String>,
    up: bool,
    /// Set while the answer to the node's own subscriptions is awaited.
    subscribed_by: Option<Instant>,
}

impl Incoming<'_> {
    async fn run(&mut self, eventloop: &mut EventLoop) -> End {
        loop {
            let packet = match self.poll(eventloop).await {
                Ok(rumqttc::Event::Incoming(packet)) => packet,
                Ok(rumqttc::Event::Outgoing(_)) => continue,
                Err(reason) => return End::Lost { reason, was_up: self.up },
            };
            let event = match packet {
                Packet::ConnAck(_) => {
                    if self.listen().is_err() {
                        // Waiting for room would be waiting for ourselves: only polling makes room.
                        let reason = "too much waited to be sent when the connection came up".to_owned();
                        return End::Lost { reason, was_up: false };
                    }
                    self.subscribed_by = Some(Instant::now() + SUBSCRIBING);
                    None
                }
                Packet::SubAck(ack) => {
                    self.subscribed_by = None;
                    if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                        if !self.up {
                            let reason = "the broker refused the node its own topics".to_owned();
                            return End::Lost { reason, was_up: false };
                        }
                        tracing::warn!("the broker refused to tell of a service's changes");
                    }
                    let first = !std::mem::replace(&mut self.up, true);
                    first.then_some(Event::Up)
                }
                Packet::Publish(publish) if publish.topic == NodeTopic::ControlError.of(&self.node) => {
                    let reason =
                        "the cluster may have missed something, and asks the node to begin anew".to_owned();
                    return End::Lost { reason, was_up: self.up };
                }
                Packet::Publish(publish) => self.read(&publish),
                Packet::Disconnect => {
                    let reason = "the broker ended the connection".to_owned();
                    return End::Lost { reason, was_up: self.up };
                }
                _ => None,
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return End::Unwanted;
            }
        }
    }

    /// The next packet, or why there will be none.
    async fn poll(&self, eventloop: &mut EventLoop) -> Result<rumqttc::Event, String> {
        let polled = match self.subscribed_by {
            Some(deadline) => match tokio::time::timeout_at(deadline, eventloop.poll()).await {
                Ok(polled) => polled,
                // The connection is given up, so it does no harm that polling was broken off.
                Err(_elapsed) => return Err("the broker does not answer the node's subscriptions".to_owned()),
            },
            None => eventloop.poll().await,
        };
        polled.map_err(|error| describe(&error))
    }

    fn listen(&self) -> Result<(), rumqttc::ClientError> {
        let topics =
            [NodeTopic::SubnetResult, NodeTopic::TableResult, NodeTopic::ControlError, NodeTopic::RttPeers];
        let filters =
            topics.map(|topic| rumqttc::SubscribeFilter::new(topic.of(&self.node), QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters)
    }

    fn read(&mut self, publish: &Publish) -> Option<Event> {
        if let Some(changed) = parse_updates_available(&publish.topic) {
            let subject = changed.to_owned();
            // Whatever else it says, it says that the table changed.
            let update: Option<UpdateAvailable> = self.decode(publish);
            return Some(Event::Changed { subject, table: update.and_then(|update| update.table) });
        }
        match NodeTopic::parse(&publish.topic) {
            Some((node, NodeTopic::SubnetResult)) if node == self.node => {
                self.decode(publish).map(Event::Subnet)
            }
            Some((node, NodeTopic::TableResult)) if node == self.node => {
                self.decode(publish).map(Event::Table)
            }
            Some((node, NodeTopic::RttPeers)) if node == self.node => self.decode(publish).map(Event::Peers),
            _ => None,
        }
    }

    fn decode<T: DeserializeOwned>(&mut self, publish: &Publish) -> Option<T> {
        match serde_json::from_slice(&publish.payload) {
            Ok(payload) => Some(payload),
            Err(error) => {
                if self.malformed.len() < MALFORMED && self.malformed.insert(publish.topic.clone()) {
                    tracing::warn!(topic = publish.topic, %error, "malformed payload ignored (logged once per topic)");
                }
                None
            }
        }
    }
}

/// Without the words of the library that tell nobody anything.
fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::NetworkTimeout => "no answer within 5 s".to_owned(),
        ConnectionError::ConnectionRefused(code) => format!("the broker refused the connection: {code:?}"),
        other => chain(other),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::{Event, Session, Target};

    /// A broker that accepts the connection and answers pings, and nothing else.
    async fn half_dead_broker(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 512];
        assert!(stream.read(&mut bytes).await.unwrap() > 0);
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            if bytes[..read].contains(&0xc0) {
                stream.write_all(&[0xd0, 0]).await.ok();
            }
        }
    }

    #[tokio::test]
    async fn a_broker_that_does_not_answer_subscriptions_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target =
            Target { node: "6b033dc62c1f07cbdcd88440".parse().unwrap(), host: "127.0.0.1".to_owned(), port };
        let (sender, mut events) = mpsc::channel(8);
        let (_session, task) = Session::new(target, sender, CancellationToken::new());
        tokio::spawn(half_dead_broker(listener));
        tokio::spawn(task);
        match events.recv().await {
            Some(Event::Down { reason }) => assert!(reason.contains("subscriptions"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
