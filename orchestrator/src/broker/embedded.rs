//! The broker in this process: MQTT 3.1.1, with a rule for every topic.
//!
//! A client is let in when it is one of the two daemons of a registered node, it may publish and hear only what
//! [`access`](super::access) allows, and what it publishes is handed to the cluster inside the hook that judged it, with no
//! loopback connection in between. What the cluster says goes straight into the sessions' queues.
//!
//! # Why rmqtt
//! rmqtt asks before it lets a client in, before each publish and before each subscription. rumqttd, the other broker
//! written as a library, authenticates but knows no rule for topics, so any node could command any other. A last will
//! is the one thing that rmqtt publishes without asking; it is judged when the client connects.
//!
//! What it costs (0.24, no default features, Linux): 113 of the orchestrator's 300 crates come with it alone, among
//! them rustls and quinn, which are not used; a release build of nothing but a broker takes 2 min 20 s on two cores.
//! The cluster with all its parts idles at 16 MB, a process with nothing but this broker at 4 MB. A query and its
//! answer take 0.2 ms over loopback, with `TCP_NODELAY` (without it Oakestra's take 44 ms and more).

mod hooks;

use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use rmqtt::codec::types::{Publish, QoS};
use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use rmqtt::session::SessionState;
use rmqtt::types::From as Sender;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Roster;
use super::{Event, PACKET_MAX};
use crate::http::BindError;

const CONNECTIONS_MAX: usize = 20_480;
/// Messages that wait for a slow client; when there are more, the oldest goes, and what it said is said again.
const QUEUE_MAX: usize = 256;

/// A running broker.
#[derive(Clone)]
pub struct Embedded {
    context: ServerContext,
    sender: Sender,
    address: SocketAddr,
    roster: Roster,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Listens on `address` (port 0: any) until `shutdown`; what happens is told through `events`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(
        address: SocketAddr,
        roster: Roster,
        events: mpsc::Sender<Event>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, BindError> {
        let failed = |error: rmqtt::Error| BindError {
            address,
            purpose: "the workers' MQTT",
            option: "--mqtt-port",
            source: error.downcast::<io::Error>().unwrap_or_else(|other| io::Error::other(other.to_string())),
        };
        let listener = limits(Builder::new()).laddr(address).bind().and_then(rmqtt::net::Listener::tcp);
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;

        // The load check reads /proc every few seconds and turns clients away on a busy machine, which an edge
        // machine often is; the limits above bound what clients can take.
        let context = ServerContext::new().busy_check_enable(false).task_exec_workers(64).build().await;
        hooks::Hooks::new(roster.clone(), events).install(&context).await;

        let node_id = context.node.id();
        let own_id = rmqtt::types::Id::new(node_id, address.port(), None, None, "orchestrator".into(), None);
        let broker = Self { context: context.clone(), sender: Sender::from_system(own_id), address, roster };
        let server = MqttServer::new(context).listener_by_id(listener, address.port()).build();
        let stopping = broker.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => stopping.disconnect_all().await,
                _ = server.run() => {}
            }
        });
        Ok(broker)
    }

    /// Who is let in.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says `payload` on `topic` to all who listen there now, with QoS 1: a connected client gets it at least once.
    /// Nothing is kept for a client that is not connected.
    pub async fn publish(&self, topic: String, payload: Vec<u8>) {
        let publish = Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: topic.into(),
            packet_id: None,
            payload: payload.into(),
            properties: None,
        };
        if let Err(error) =
            SessionState::forwards(&self.context, self.sender.clone(), publish.into(), false, None).await
        {
            tracing::warn!(%error, "mqtt message not passed on");
        }
    }

    async fn disconnect_all(&self) {
        let shared = self.context.extends.shared().await;
        let mut entries: Vec<_> = shared.iter().collect();
        drop(shared);
        for entry in &mut entries {
            if let Err(error) = entry.kick(true, true, true).await {
                tracing::debug!(%error, client = %entry.id().client_id, "mqtt client not disconnected");
            }
        }
    }
}

/// What a client may ask of us. No anonymous client: `false` sends each one, with or without a user name, through our
/// hook. SO_REUSEADDR, so that a restart does not wait for the old connections' TIME_WAIT.
fn limits(builder: Builder) -> Builder {
    builder
        .name("cluster")
        .nodelay(true)
        .reuseaddr(Some(true))
        .allow_anonymous(false)
        .max_connections(CONNECTIONS_MAX)
        .max_packet_size(PACKET_MAX)
        .max_clientid_len(32)
        .max_topic_levels(8)
        .max_subscriptions(4096)
        .max_qos_allowed(QoS::AtLeastOnce)
        .max_inflight(NonZeroU16::new(64).unwrap_or(NonZeroU16::MIN))
        .max_mqueue_len(QUEUE_MAX)
        .mqueue_rate_limit(NonZeroU32::MAX, Duration::from_secs(1))
        .handshake_timeout(Duration::from_secs(10))
        .session_expiry_interval(Duration::from_secs(60))
        .message_expiry_interval(Duration::from_secs(60))
}
