//! MQTT between the cluster and its workers: by a broker in this process ([`embedded`]), or through another one
//! ([`external`]). The rest of the cluster sees [`Broker`] and [`Event`], and does not know which it is.
//!
//! Oakestra runs Mosquitto beside the cluster, open to everybody who reaches the port. Here a rule says for each topic who
//! may use it ([`access`]): the embedded broker judges by it, and for Mosquitto it is written down ([`acl`]).

pub mod access;
pub mod acl;
mod complaints;
pub mod embedded;
pub mod external;

use std::fmt;
use std::net::SocketAddr;

use protocol::id::Id;
use protocol::topic::NodeTopic;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::access::{Client, Roster};
use self::embedded::Embedded;
use self::external::External;
use crate::http::BindError;

/// The largest packet taken. Oakestra's largest is a deployment with the histories of 50 instances, 20 KB.
pub const PACKET_MAX: u32 = 256 * 1024;

/// What happened at the broker.
#[derive(Debug)]
pub enum Event {
    Message(Message),
    Subscribed {
        client: Client,
        filter: String,
    },
    Unsubscribed {
        client: Client,
        filter: String,
    },
    Disconnected {
        client: Client,
    },
    /// Nothing is heard of anybody for now: an external broker is out of reach.
    Away,
    /// It is there, or there again. What it was told before may be lost.
    Back,
}

/// Something a node said, on a topic that it may use.
#[derive(Debug)]
pub struct Message {
    pub node: Id,
    pub topic: NodeTopic,
    pub payload: Vec<u8>,
}

/// Which broker it is to be.
#[derive(Debug, Clone)]
pub enum Settings {
    /// One that listens here (port 0: any).
    Embedded(SocketAddr),
    External(external::Settings),
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("speak to the broker {0} (--broker)")]
    Credentials(String, #[source] external::CredentialsError),
}

/// The cluster's end of MQTT.
#[derive(Debug, Clone)]
pub enum Broker {
    Embedded(Embedded),
    External(External),
}

impl Broker {
    /// Listens, or begins to look for the other broker, until `shutdown`; what happens is told through `events`. The nodes
    /// of `roster` are known already.
    ///
    /// # Errors
    /// When the address cannot be bound, or the files for an external broker cannot be read.
    pub async fn start(
        settings: Settings,
        roster: Roster,
        events: mpsc::Sender<Event>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, BrokerError> {
        match settings {
            Settings::Embedded(address) => {
                Ok(Self::Embedded(Embedded::start(address, roster, events, tasks, shutdown).await?))
            }
            Settings::External(settings) => {
                let location = settings.location.to_string();
                External::start(settings, roster, events, tasks, shutdown)
                    .await
                    .map(Self::External)
                    .map_err(|source| BrokerError::Credentials(location, source))
            }
        }
    }

    /// Says `payload` on `topic` to all who listen there now, with QoS 1. Nothing is kept for whoever is not there, and
    /// nothing is said while the broker is away: what matters is said again.
    pub async fn publish(&self, topic: String, payload: Vec<u8>) {
        match self {
            Self::Embedded(broker) => broker.publish(topic, payload).await,
            Self::External(broker) => broker.publish(topic, payload),
        }
    }

    /// A node has registered, for the first time or again.
    pub fn admit(&self, node: Id) {
        match self {
            Self::Embedded(broker) => broker.roster().admit(node),
            Self::External(broker) => broker.admit(node),
        }
    }

    /// A node is not known any more.
    pub fn dismiss(&self, node: Id) {
        match self {
            Self::Embedded(broker) => broker.roster().dismiss(node),
            Self::External(broker) => broker.dismiss(node),
        }
    }

    /// The port that workers are told.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Embedded(broker) => broker.address().port(),
            Self::External(broker) => broker.port(),
        }
    }

    /// Whether workers can be spoken to and heard. Nothing: the broker is embedded, and always there.
    #[must_use]
    pub fn is_connected(&self) -> Option<bool> {
        match self {
            Self::Embedded(_) => None,
            Self::External(broker) => Some(broker.is_connected()),
        }
    }
}

/// Where it is.
impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(broker) => broker.address().fmt(f),
            Self::External(broker) => broker.location().fmt(f),
        }
    }
}
