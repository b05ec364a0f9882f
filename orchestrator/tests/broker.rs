//! The embedded broker against real MQTT clients: each rule, both ways.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use orchestrator::broker::Event;
use orchestrator::broker::access::Roster;
use orchestrator::broker::embedded::Embedded;
use protocol::id::Id;
use protocol::topic::{NodeTopic, updates_available};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, LastWill, MqttOptions, Packet, QoS, SubscribeReasonCode,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const NODE: &str = "6b033dc62c1f07cbdcd88440";
const OTHER: &str = "6b033dc52c1f07cbdcd8843f";
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must come before "it did not come" is believed. The broker answers in well under a millisecond.
const SILENCE: Duration = Duration::from_millis(300);

struct Bed {
    broker: Embedded,
    events: mpsc::Receiver<Event>,
    shutdown: CancellationToken,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn bed() -> Bed {
    let roster = Roster::default();
    roster.admit(id(NODE));
    roster.admit(id(OTHER));
    let (sender, events) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let broker = Embedded::start(address, roster, sender, &TaskTracker::new(), shutdown.clone())
        .await
        .expect("a broker on a free port");
    Bed { broker, events, shutdown }
}

fn id(text: &str) -> Id {
    text.parse().expect("an id")
}

struct Client {
    client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Packet>,
}

impl Client {
    fn options(bed: &Bed, client_id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", bed.broker.address().port());
        options.set_keep_alive(Duration::from_secs(5)).set_max_packet_size(512 * 1024, 512 * 1024);
        options
    }

    async fn connect(bed: &Bed, client_id: &str) -> Result<Self, ConnectionError> {
        Self::connect_with(Self::options(bed, client_id)).await
    }

    async fn connect_with(options: MqttOptions) -> Result<Self, ConnectionError> {
        let (client, mut events) = AsyncClient::new(options, 16);
        events.network_options.set_tcp_nodelay(true);
        loop {
            match timeout(PATIENCE, events.poll()).await.expect("an answer to CONNECT")? {
                rumqttc::Event::Incoming(Packet::ConnAck(_)) => break,
                _ => continue,
            }
        }
        let (sender, packets) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let rumqttc::Event::Incoming(packet) = event
                    && sender.send(packet).is_err()
                {
                    break;
                }
            }
        });
        Ok(Self { client, packets })
    }

    async fn subscribe(&mut self, filter: &str) -> SubscribeReasonCode {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.expect("room in the request queue");
        loop {
            match timeout(PATIENCE, self.packets.recv()).await.expect("SUBACK").expect("connection") {
                Packet::SubAck(ack) => return ack.return_codes[0],
                _ => continue,
            }
        }
    }

    async fn message(&mut self) -> Option<(String, Vec<u8>)> {
        loop {
            match timeout(SILENCE, self.packets.recv()).await {
                Ok(Some(Packet::Publish(publish))) => return Some((publish.topic, publish.payload.to_vec())),
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

async fn heard(bed: &mut Bed) -> Option<(Id, NodeTopic, Vec<u8>)> {
    loop {
        match timeout(SILENCE, bed.events.recv()).await {
            Ok(Some(Event::Message(message))) => return Some((message.node, message.topic, message.payload)),
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_daemons_of_a_registered_node_are_let_in() {
    let bed = bed().await;
    Client::connect(&bed, NODE).await.expect("netmanager");
    Client::connect(&bed, &format!("{NODE}-ne")).await.expect("node-engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_else_is_refused() {
    let bed = bed().await;
    for client_id in ["mosquitto", "6b033dc52c1f07cbdcd88aaa", "6b033dc52c1f07cbdcd88aaa-ne", "orchestrator"]
    {
        let refused = Client::connect(&bed, client_id).await.map(|_client| ()).unwrap_err();
        assert!(
            matches!(refused, ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)),
            "{client_id}: {refused:?}"
        );
    }
    let mut named = Client::options(&bed, "6b033dc52c1f07cbdcd88aaa");
    named.set_credentials("admin", "admin");
    Client::connect_with(named).await.map(|_client| ()).expect_err("a user name opened the door");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_will_for_another_node_is_refused() {
    let bed = bed().await;
    for (topic, let_in) in [
        (format!("nodes/{OTHER}/control/deploy"), false),
        (format!("nodes/{NODE}/control/deploy"), false),
        (format!("nodes/{NODE}/information"), true),
    ] {
        let mut options = Client::options(&bed, NODE);
        options.set_last_will(LastWill::new(&topic, "{}", QoS::AtLeastOnce, false));
        assert_eq!(Client::connect_with(options).await.is_ok(), let_in, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_heard_on_its_own_topics_only() {
    let mut bed = bed().await;
    let worker = Client::connect(&bed, &format!("{NODE}-ne")).await.unwrap();
    for (topic, allowed) in [
        (format!("nodes/{NODE}/information"), true),
        (format!("nodes/{NODE}/job"), true),
        (format!("nodes/{NODE}/jobs/resources"), true),
        (format!("nodes/{NODE}/net/tablequery/request"), true),
        (format!("nodes/{NODE}/control/deploy"), false),
        (format!("nodes/{OTHER}/information"), false),
        ("jobs/a.b.c.d/updates_available".to_owned(), false),
    ] {
        worker.client.publish(&topic, QoS::AtLeastOnce, false, topic.clone()).await.unwrap();
        let message = heard(&mut bed).await;
        assert_eq!(message.is_some(), allowed, "{topic}");
        if let Some((node, kind, payload)) = message {
            assert_eq!((node, kind.of(&node), payload), (id(NODE), topic.clone(), topic.into_bytes()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_forged_by_a_node_reaches_nobody() {
    let bed = bed().await;
    let mut victim = Client::connect(&bed, &format!("{OTHER}-ne")).await.unwrap();
    victim.subscribe(&format!("nodes/{OTHER}/control/#")).await;
    let attacker = Client::connect(&bed, NODE).await.unwrap();
    let topic = format!("nodes/{OTHER}/control/deploy");
    attacker.client.publish(&topic, QoS::AtLeastOnce, false, "{}").await.unwrap();
    assert_eq!(victim.message().await, None);
    bed.broker.publish(topic.clone(), b"{}".to_vec()).await;
    assert_eq!(victim.message().await, Some((topic, b"{}".to_vec())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_listens_to_its_own_commands_and_to_updates_only() {
    let bed = bed().await;
    let mut worker = Client::connect(&bed, NODE).await.unwrap();
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    for (filter, expected) in [
        (format!("nodes/{NODE}/control/#"), granted),
        (format!("nodes/{NODE}/net/#"), granted),
        (updates_available("smp.bed.srv.bed"), granted),
        (format!("nodes/{OTHER}/control/#"), SubscribeReasonCode::Failure),
        ("nodes/+/net/#".to_owned(), SubscribeReasonCode::Failure),
        ("#".to_owned(), SubscribeReasonCode::Failure),
    ] {
        assert_eq!(worker.subscribe(&filter).await, expected, "{filter}");
    }
    bed.broker.publish(format!("nodes/{OTHER}/control/deploy"), b"{}".to_vec()).await;
    assert_eq!(worker.message().await, None);
    bed.broker.publish(updates_available("smp.bed.srv.bed"), b"{}".to_vec()).await;
    assert!(worker.message().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_above_the_limit_ends_the_connection() {
    let mut bed = bed().await;
    let mut worker = Client::connect(&bed, &format!("{NODE}-ne")).await.unwrap();
    let topic = format!("nodes/{NODE}/information");
    worker.client.publish(&topic, QoS::AtLeastOnce, false, vec![b' '; 300 * 1024]).await.unwrap();
    assert!(heard(&mut bed).await.is_none());
    let ended = timeout(PATIENCE, async { while worker.packets.recv().await.is_some() {} }).await;
    assert!(ended.is_ok(), "the connection is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let bed = bed().await;
    let (sender, _events) = mpsc::channel(1);
    let address = bed.broker.address();
    let second =
        Embedded::start(address, Roster::default(), sender, &TaskTracker::new(), CancellationToken::new())
            .await;
    assert!(second.unwrap_err().to_string().contains(&address.to_string()));
}

/// A query and its answer must not wait for a delayed acknowledgement (40 ms): the first packet of a connection waits
/// for just this round trip. Prints what it measured.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_answered_within_milliseconds() {
    let mut bed = bed().await;
    let mut worker = Client::connect(&bed, NODE).await.unwrap();
    worker.subscribe(&format!("nodes/{NODE}/net/#")).await;
    let query = NodeTopic::Information.of(&id(NODE));
    let result = NodeTopic::TableResult.of(&id(NODE));
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        worker.client.publish(&query, QoS::AtLeastOnce, false, vec![b'q'; 60]).await.unwrap();
        heard(&mut bed).await.expect("the query");
        bed.broker.publish(result.clone(), vec![b'r'; 600]).await;
        worker.message().await.expect("the answer");
        times.push(start.elapsed());
    }
    times.sort();
    let (median, p99) = (times[100], times[198]);
    println!("mqtt query and answer over loopback: median {median:?}, p99 {p99:?}, worst {:?}", times[199]);
    assert!(median < Duration::from_millis(20), "median {median:?}");
}
