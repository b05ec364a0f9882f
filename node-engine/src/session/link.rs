//! One MQTT connection, from its opening to its end. It is not re-used: what was on its way when it was lost is the
//! business of the outbox.

use std::time::Duration;

use protocol::id::Id;
use protocol::topic::NodeTopic;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A deploy message carries the histories of all instances of a service.
const INCOMING_MAX: usize = 4 << 20;
const OUTGOING_MAX: usize = 1 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Messages that are handed over and not yet written.
const QUEUE: usize = 256;

/// What happens on the connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Connected,
    Message {
        topic: String,
        payload: Vec<u8>,
    },
    /// An acknowledged message was written, as this packet; in the order in which they were handed over.
    Sent(u16),
    Acknowledged(u16),
    Lost(String),
}

#[derive(Debug)]
pub(super) struct Link {
    client: AsyncClient,
    events: mpsc::Receiver<LinkEvent>,
    /// Drives the connection; ends with the link.
    driver: JoinSet<()>,
}

impl Link {
    pub(super) fn open(node: &Id, host: &str, port: u16) -> Self {
        // The client joins the two with a colon.
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut options = MqttOptions::new(format!("{node}-ne"), host, port);
        // By which a broker that knows nothing of nodes can tell their topics apart; the client id is not the node's.
        options.set_credentials(node.to_string(), "");
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(INCOMING_MAX, OUTGOING_MAX);
        let (client, mut connection) = AsyncClient::new(options, QUEUE);
        let mut network = connection.network_options();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(5);
        connection.set_network_options(network);
        let (sender, events) = mpsc::channel(QUEUE);
        let mut driver = JoinSet::new();
        driver.spawn(drive(connection, sender));
        Self { client, events, driver }
    }

    pub(super) async fn next(&mut self) -> LinkEvent {
        self.events.recv().await.unwrap_or_else(|| LinkEvent::Lost("the connection has ended".to_owned()))
    }

    /// Everything that the cluster tells this node.
    pub(super) fn subscribe(&self, node: &Id) {
        for topic in [NodeTopic::ControlDeploy, NodeTopic::ControlDelete, NodeTopic::ControlError] {
            // The queue is empty at the beginning of a connection; a connection that is lost begins anew.
            if let Err(error) = self.client.try_subscribe(topic.of(node), QoS::AtLeastOnce) {
                tracing::warn!(?topic, %error, "not subscribed");
            }
        }
    }

    /// Whether the message was taken.
    pub(super) fn publish(&self, topic: String, payload: Vec<u8>, acknowledged: bool) -> bool {
        let quality = if acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        self.client.try_publish(topic, quality, false, payload).is_ok()
    }

    /// Says good-bye, so that the broker does not wait for a node that is gone.
    pub(super) async fn close(&mut self) {
        if self.client.try_disconnect().is_err() {
            return;
        }
        let closed = async { while !matches!(self.next().await, LinkEvent::Lost(_)) {} };
        if tokio::time::timeout(Duration::from_secs(1), closed).await.is_err() {
            self.driver.abort_all();
        }
    }
}

/// Polls the connection until it is lost. Its owner never waits for the client's queue, so passing events on to it
/// cannot block for ever.
async fn drive(mut connection: EventLoop, events: mpsc::Sender<LinkEvent>) {
    loop {
        let event = match connection.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => LinkEvent::Connected,
            Ok(Event::Incoming(Packet::Publish(message))) => {
                LinkEvent::Message { topic: message.topic, payload: message.payload.into() }
            }
            Ok(Event::Incoming(Packet::PubAck(packet))) => LinkEvent::Acknowledged(packet.pkid),
            Ok(Event::Outgoing(Outgoing::Publish(packet))) if packet != 0 => LinkEvent::Sent(packet),
            Ok(_) => continue,
            Err(error) => LinkEvent::Lost(crate::verdict::chain(&error)),
        };
        let last = matches!(event, LinkEvent::Lost(_));
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}
