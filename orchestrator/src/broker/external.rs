//! Another broker, Mosquitto for example: the cluster is one of its clients.
//!
//! Its word is believed: whose a message is, its topic says, and who may use that topic is for the broker to judge, by the
//! rules of [`acl`](super::acl).
//!
//! The cluster hears what nodes say over a session that the broker keeps: what they said with QoS 1 while the connection was
//! away comes afterwards. What the cluster says is not kept for later, as it is not where the broker is embedded. When the
//! connection is back, everybody begins anew ([`lobby`]), which leaves nothing to depend on what was lost.

mod args;
mod credentials;
mod link;
mod lobby;
mod location;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::id::Id;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::credentials::Credentials;
use self::link::{Driver, Outgoing};
use self::lobby::Lobby;
use super::Event;
use super::access::Roster;

pub use self::args::{BrokerArgs, InvalidBroker};
pub use self::credentials::{CredentialsError, Files};
pub use self::link::new_session;
pub use self::location::{InvalidLocation, Location};

/// Messages that wait for the broker. When there are more, the connection is given up, and everybody begins anew.
const QUEUE: usize = 8192;

/// Where it is, and how one is let in.
#[derive(Debug, Clone)]
pub struct Settings {
    pub location: Location,
    pub files: Files,
    /// The port at which workers find it under the cluster's address.
    pub port: u16,
    /// The client id, by which the broker knows the session again. Nobody else should be able to guess it: who connects
    /// with it ends the cluster's connection. Nothing: one that is not known again.
    pub session: Option<String>,
}

/// The cluster's end of the connection.
#[derive(Debug, Clone)]
pub struct External {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Outgoing>,
    location: Location,
    port: u16,
}

/// What both the cluster and the connection use.
#[derive(Debug, Default)]
struct Shared {
    roster: Roster,
    lobby: Mutex<Lobby>,
    /// The cluster is subscribed, so that what it says can be answered.
    is_up: AtomicBool,
    /// The queue was full.
    overflow: Notify,
}

impl External {
    /// Begins to look for the broker, and does so until `shutdown`.
    ///
    /// # Errors
    /// When the files cannot be read. A broker that is not there is waited for.
    pub async fn start(
        settings: Settings,
        roster: Roster,
        events: mpsc::Sender<Event>,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self, CredentialsError> {
        let Settings { location, files, port, .. } = &settings;
        Credentials::read(files, location.is_encrypted).await?;
        if location.is_exposed() {
            tracing::warn!(%location, "what is said to the broker can be read and changed on the way, a password too; mqtts:// \
                            encrypts it");
        }
        let (location, port) = (location.clone(), *port);
        let shared = Arc::new(Shared { roster, ..Shared::default() });
        let (queue, waiting) = mpsc::channel(QUEUE);
        let driver = Driver::new(settings, Arc::clone(&shared), waiting, events);
        tasks.spawn(async move { shutdown.run_until_cancelled(driver.run()).await });
        Ok(Self { shared, queue, location, port })
    }

    pub(super) fn publish(&self, topic: String, payload: Vec<u8>) {
        if !self.is_connected() {
            tracing::debug!(topic, "not said: the broker is away");
        } else if self.queue.try_send(Outgoing { topic, payload }).is_err() {
            self.shared.overflow.notify_one();
        }
    }

    pub(super) fn admit(&self, node: Id) {
        self.shared.roster.admit(node);
        self.shared.lobby().registered(node);
    }

    pub(super) fn dismiss(&self, node: Id) {
        self.shared.roster.dismiss(node);
        self.shared.lobby().forgotten(node);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.shared.is_up.load(Ordering::Relaxed)
    }

    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Shared {
    fn lobby(&self) -> MutexGuard<'_, Lobby> {
        self.lobby.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
