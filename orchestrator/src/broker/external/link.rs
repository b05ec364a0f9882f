//! The connection to the broker: one after another, each from nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::FutureExt;
use protocol::id::Id;
use protocol::topic::NodeTopic;
use rumqttc_v4::mqttbytes::{self, QoS};
use rumqttc_v4::{
    AsyncClient, Broker, ConnectionError, EventLoop, MqttOptions, Packet, Publish, StateError,
    SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::credentials::{Credentials, CredentialsError};
use super::{Location, Settings, Shared};
use crate::backoff::Backoff;
use crate::broker::access::{Client, Daemon, Side, speaker};
use crate::broker::complaints::Complained;
use crate::broker::{Event, Message, PACKET_MAX};
use crate::error::chain;

/// Seconds. As long again, and half of it, a broker that is gone without a word is taken to be there.
const KEEP_ALIVE: u16 = 5;
/// Longer ones break the connection. What is longer than [`PACKET_MAX`] is only not listened to.
const INCOMING_MAX: usize = 1 << 20;
/// A command carries the history of its instance, and an answer the table of a service.
const OUTGOING_MAX: usize = 4 << 20;
/// Workers look for a broker every 5 s at least; the cluster should not be there last.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that held this long was a good one: the next failure is a new story.
const SETTLED: Duration = Duration::from_secs(10);
/// How long the broker may take to accept the subscriptions.
const SUBSCRIBING: Duration = Duration::from_secs(5);
/// Messages that are handed to the client and not yet written.
const HANDED: usize = 64;

/// What the cluster says.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

/// Keeps a connection, for as long as it is polled.
pub(super) struct Driver {
    settings: Settings,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<Event>,
    complained: Complained,
    /// What the broker kept breaks the connection: it is to be thrown away.
    forget_session: bool,
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    Lost {
        reason: String,
        up_since: Option<Instant>,
    },
    /// The cluster has stopped.
    Unwanted,
}

impl Driver {
    pub(super) fn new(
        settings: Settings,
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Outgoing>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self { settings, shared, queue, events, complained: Complained::default(), forget_session: false }
    }

    /// Runs until nobody listens to its events any more.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::up_to(LONGEST_PAUSE);
        // Until there is a connection nobody is heard.
        let mut was_up = true;
        loop {
            if was_up && self.events.send(Event::Away).await.is_err() {
                return;
            }
            if backoff.is_failing() {
                backoff.wait().await;
            }
            let End::Lost { reason, up_since } = self.connection().await else { return };
            self.shared.is_up.store(false, Ordering::Relaxed);
            // What waited for this connection would be out of date on the next.
            while self.queue.try_recv().is_ok() {}
            was_up = up_since.is_some();
            if up_since.is_some_and(|since| since.elapsed() >= SETTLED) {
                backoff.succeeded();
            }
            backoff.failed(|| {
                let broker = &self.settings.location;
                tracing::warn!(%broker, reason, "no connection to the broker; trying on, and deciding by what is known");
            });
        }
    }

    /// One connection from its start to its end.
    async fn connection(&mut self) -> End {
        let options = match self.options().await {
            Ok(options) => options,
            Err(error) => return End::Lost { reason: chain(&error), up_since: None },
        };
        let (client, mut eventloop) = AsyncClient::builder(options).capacity(HANDED).build();
        let Self { settings, shared, queue, events, complained, forget_session } = self;
        // Of an earlier connection.
        let _permit = shared.overflow.notified().now_or_never();
        let mut incoming = Incoming {
            location: &settings.location,
            shared,
            client: &client,
            events,
            complained,
            up_since: None,
            subscribed_by: None,
        };
        // Side by side: polling the event loop must not be broken off by something to say.
        let stop = tokio::select! {
            stop = incoming.run(&mut eventloop) => stop,
            () = forward(queue, &client) => Stop::Unwanted,
            () = shared.overflow.notified() => Stop::Lost("more waits to be said than the broker takes".to_owned()),
        };
        let up_since = incoming.up_since;
        match stop {
            Stop::Unwanted => End::Unwanted,
            Stop::Lost(reason) => End::Lost { reason, up_since },
            Stop::Unreadable => {
                *forget_session = true;
                let reason = format!(
                    "a message of more than {INCOMING_MAX} bytes; what the broker kept is thrown away"
                );
                End::Lost { reason, up_since }
            }
        }
    }

    async fn options(&mut self) -> Result<MqttOptions, CredentialsError> {
        let Settings { location, files, session, .. } = &self.settings;
        let Credentials { password, tls } = Credentials::read(files, location.is_encrypted).await?;
        let id = session.clone().unwrap_or_else(new_session);
        let mut options = MqttOptions::new(id, Broker::tcp(location.host.clone(), location.port));
        options
            .set_clean_session(session.is_none() || std::mem::take(&mut self.forget_session))
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(INCOMING_MAX, OUTGOING_MAX);
        match (&location.user, password) {
            (Some(user), Some(password)) => options.set_credentials(user, password),
            (Some(user), None) => options.set_username(user),
            (None, _) => &mut options,
        };
        if let Some(tls) = tls {
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
        }
        // The client joins host and port by a colon, which an IPv6 address is not made for.
        let place = (location.host.clone(), location.port);
        options.set_socket_connector(move |_joined, _options| {
            let place = place.clone();
            async move {
                let stream = TcpStream::connect((place.0.as_str(), place.1)).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
        });
        Ok(options)
    }
}

/// A client id that nobody guesses. Brokers have to take 23 letters and digits.
#[must_use]
pub fn new_session() -> String {
    format!("hypha{:016x}", rand::random::<u64>())
}

async fn forward(queue: &mut mpsc::Receiver<Outgoing>, client: &AsyncClient) {
    while let Some(Outgoing { topic, payload }) = queue.recv().await {
        if let Err(error) = client.publish(topic, QoS::AtLeastOnce, false, payload).await {
            // The event loop ended: its own error tells why.
            tracing::debug!(%error, "message not said");
        }
    }
}

/// Why a connection is not listened to any more.
#[derive(Debug)]
enum Stop {
    Lost(String),
    /// By a message that is too long.
    Unreadable,
    Unwanted,
}

struct Incoming<'a> {
    location: &'a Location,
    shared: &'a Shared,
    client: &'a AsyncClient,
    events: &'a mpsc::Sender<Event>,
    complained: &'a Complained,
    up_since: Option<Instant>,
    /// Set while the answer to the subscriptions is awaited.
    subscribed_by: Option<tokio::time::Instant>,
}

impl Incoming<'_> {
    async fn run(&mut self, eventloop: &mut EventLoop) -> Stop {
        loop {
            let taken = match self.poll(eventloop).await {
                Ok(rumqttc_v4::Event::Incoming(packet)) => self.take(packet).await,
                Ok(rumqttc_v4::Event::Outgoing(_)) => Ok(()),
                Err(stop) => Err(stop),
            };
            if let Err(stop) = taken {
                return stop;
            }
        }
    }

    async fn poll(&self, eventloop: &mut EventLoop) -> Result<rumqttc_v4::Event, Stop> {
        let polled = match self.subscribed_by {
            Some(deadline) => match tokio::time::timeout_at(deadline, eventloop.poll()).await {
                Ok(polled) => polled,
                Err(_elapsed) => {
                    return Err(Stop::Lost("the broker does not answer the subscriptions".to_owned()));
                }
            },
            None => eventloop.poll().await,
        };
        polled.map_err(|error| match error {
            ConnectionError::MqttState(StateError::Deserialization(
                mqttbytes::Error::PayloadSizeLimitExceeded(_),
            )) => Stop::Unreadable,
            error => Stop::Lost(describe(&error)),
        })
    }

    async fn take(&mut self, packet: Packet) -> Result<(), Stop> {
        match packet {
            Packet::ConnAck(_) => {
                self.shared.lobby().opened();
                self.listen()?;
                self.subscribed_by = Some(tokio::time::Instant::now() + SUBSCRIBING);
            }
            Packet::SubAck(ack) => {
                self.subscribed_by = None;
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    let reason = "the broker does not let the cluster hear what nodes say; `orchestrator broker-acl` \
                                  prints the rules that it needs";
                    return Err(Stop::Lost(reason.to_owned()));
                }
                self.up_since = Some(Instant::now());
                self.shared.is_up.store(true, Ordering::Relaxed);
                tracing::info!(broker = %self.location, "connected to the broker");
                self.tell(Event::Back).await?;
                self.ask_all_to_begin_anew();
            }
            Packet::Publish(publish) => self.hear(&publish).await?,
            Packet::Disconnect => return Err(Stop::Lost("the broker ended the connection".to_owned())),
            _ => {}
        }
        Ok(())
    }

    /// To everything that nodes say.
    fn listen(&self) -> Result<(), Stop> {
        let filters = NodeTopic::all()
            .filter(|topic| speaker(*topic) == Side::Node)
            .map(|topic| SubscribeFilter::new(topic.of_all(), QoS::AtLeastOnce));
        // Waiting for room would be waiting for ourselves: only polling makes room.
        let full = |_| Stop::Lost("too much waited to be said when the connection came up".to_owned());
        self.client.try_subscribe_many(filters).map_err(full)
    }

    async fn hear(&self, publish: &Publish) -> Result<(), Stop> {
        let Ok(text) = std::str::from_utf8(&publish.topic) else { return Ok(()) };
        // An id may be written in capitals, too, for which the broker's rules are not made.
        let is_ours =
            |(node, topic): &(Id, NodeTopic)| speaker(*topic) == Side::Node && topic.of(node) == text;
        let Some((node, topic)) = NodeTopic::parse(text).filter(is_ours) else { return Ok(()) };
        let refused = if publish.retain {
            Some("it was kept by the broker, and may be old")
        } else if publish.payload.len() > PACKET_MAX as usize {
            Some("it is too long")
        } else {
            None
        };
        if let Some(reason) = refused {
            if self.complained.first(text, reason) {
                tracing::warn!(
                    topic = text,
                    reason,
                    "mqtt message ignored; more of the kind are ignored in silence"
                );
            }
            return Ok(());
        }
        let now = Instant::now();
        if !self.shared.roster.contains(node) {
            if self.complained.first(text, "unregistered") {
                tracing::warn!(topic = text, "mqtt message of a node that is not registered here");
            }
            if self.shared.lobby().heard_stranger(node, now) {
                self.ask_to_begin_anew(node);
            }
            return Ok(());
        }
        let heard = self.shared.lobby().heard(node, topic, now);
        if heard.ask {
            self.ask_to_begin_anew(node);
        }
        if heard.listens {
            let client = Client { node, daemon: Daemon::NodeEngine };
            self.tell(Event::Subscribed { client, filter: NodeTopic::ControlDeploy.of(&node) }).await?;
        }
        self.tell(Event::Message(Message { node, topic, payload: publish.payload.to_vec() })).await
    }

    /// A broker that was started anew has taken what nodes said before anybody listened. They registered perhaps, but their
    /// netmanagers do not say it again by themselves. Who connects later finds that somebody listens.
    fn ask_all_to_begin_anew(&self) {
        let now = Instant::now();
        for node in self.shared.roster.all() {
            if self.ask_to_begin_anew(node) {
                self.shared.lobby().asked(node, now);
            }
        }
    }

    /// What is not taken now is asked for again when the node speaks. Says whether it was taken.
    fn ask_to_begin_anew(&self, node: Id) -> bool {
        let payload = json!({ "message": "the cluster may have missed something: begin anew" }).to_string();
        let asked =
            self.client.try_publish(NodeTopic::ControlError.of(&node), QoS::AtLeastOnce, false, payload);
        if let Err(error) = &asked {
            tracing::debug!(%node, %error, "node not asked to begin anew");
        }
        asked.is_ok()
    }

    async fn tell(&self, event: Event) -> Result<(), Stop> {
        self.events.send(event).await.map_err(|_stopped| Stop::Unwanted)
    }
}

/// Without the words of the library that tell nobody anything.
fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::NetworkTimeout => "no answer within 5 s".to_owned(),
        ConnectionError::ConnectionRefused(code) => format!("the broker refused the cluster: {code:?}"),
        other => chain(other),
    }
}
