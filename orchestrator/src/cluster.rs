//! A cluster: its workers, where instances are placed, and what they are told.
//!
//! In reading order: [`run`] puts the parts together. [`control`] owns the [`state`], which decides everything and does
//! nothing: workers ([`worker`]), the life of instances ([`instance`]), tables of addresses ([`directory`],
//! [`table`]). Around it the edges: [`intake`] (MQTT), [`api`] (HTTP), [`announcer`] and, as a branch has them, too, the
//! parts of [`crate::parent`] (to and from the root).

mod announcer;
mod api;
pub mod config;
mod control;
mod decisions;
mod directory;
mod instance;
mod intake;
mod places;
mod round_trips;
mod state;
mod table;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::{Args, Config, ConfigError};
use self::control::Control;
use self::state::{INSTANCES, Kept, OWN_ID, RETURNS, Rules, SERVICES, State, TABLES, WORKERS};
use crate::broker::access::Roster;
use crate::broker::{self, Broker, BrokerError};
use crate::data_dir::{DataDir, DataDirError};
use crate::http::{self, BindError, Service, Version};
use crate::parent::client::{Introduction, ParentClient};
use crate::parent::net_api;
use crate::parent::uplink::{Link, Uplink};
use crate::reach::{self, Passing};
use crate::relay::{Door, Greeting};
use crate::store::etcd::lost;
use crate::store::{Store, StoreError, Transaction};

/// Events that wait for the one task that takes them. A full queue slows down the connections they come from.
const QUEUE: usize = 4096;
/// Where the name is kept under which an external broker knows the cluster.
const SESSION: &str = "session";

/// Why the cluster could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("open the cluster's data")]
    Data(#[from] DataDirError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("read the cluster's state")]
    Read(#[source] StoreError),
    #[error("the cluster stops, since its state could not be made durable")]
    Keep(#[source] StoreError),
    #[error("set up the HTTP client")]
    HttpClient(#[source] reqwest::Error),
    /// It was silent for too long.
    #[error("another process may lead this cluster now: etcd did not hear of this one in time")]
    Deposed,
    #[error("find out which port was given")]
    LocalAddress(#[source] std::io::Error),
}

/// Where a started cluster is found.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub api: SocketAddr,
    pub net: SocketAddr,
    /// The port of the broker that workers are told.
    pub mqtt_port: u16,
}

/// Runs the cluster until `shutdown`.
///
/// # Errors
/// When it cannot start: the data directory or a port is not to be had; and when the disk takes no more.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ClusterError> {
    reach::come_back(&shutdown, async |serves: &AtomicBool| {
        let tell = |_addresses| serves.store(true, Ordering::Relaxed);
        run_and_tell(config.clone(), shutdown.clone(), tell).await
    })
    .await
}

impl Passing for ClusterError {
    fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Deposed => true,
            Self::Data(DataDirError::Store(error)) | Self::Read(error) | Self::Keep(error) => {
                error.is_out_of_reach()
            }
            _ => false,
        }
    }
}

/// As [`run`], and says where it listens as soon as it does: for a caller that gave port 0.
///
/// # Errors
/// As [`run`].
pub async fn run_and_tell(
    config: Config,
    shutdown: CancellationToken,
    tell: impl FnOnce(Addresses),
) -> Result<(), ClusterError> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let prefix = format!("hypha/cluster/{}", config.name);
    let state = data_dir.state(config.store.as_ref(), &prefix).await?;
    let door = |address, purpose, option| Door::try_open(address, purpose, option, Greeting::Announced);
    let api = door(config.api, "the cluster's API", "--port, in standalone --cluster-port").await?;
    let net = "--net-port, in standalone --cluster-net-port";
    let net = door(config.net, "table updates of the root", net).await?;
    // Without others there is nobody to pass anything on to, and the broker takes its port itself.
    let mqtt = match (&config.store, &config.broker) {
        (Some(_), broker::Settings::Embedded(address)) => {
            Some(Door::try_open(*address, "the workers' MQTT", "--mqtt-port", Greeting::Silent).await?)
        }
        _ => None,
    };
    let doors: Vec<_> = [&api, &net].into_iter().chain(&mqtt).collect();
    let (store, leadership) = tokio::select! {
        led = state.lead(&doors) => led?,
        // It may wait for another one to be gone.
        () = shutdown.cancelled() => return Ok(()),
    };
    let kept = read(&store).await.map_err(ClusterError::Read)?;
    let id = kept.id;
    let rules = Rules {
        worker_timeout: config.worker_timeout,
        forget_after: config.forget_workers,
        placement: config.placement,
        location: protocol::location::of_cluster(&config.location),
    };
    let state = State::new(kept, rules, Instant::now());
    let roster = Roster::default();
    state.workers().for_each(|worker| roster.admit(worker));

    let (api, net) = (api.open().await?, net.open().await?);
    let settings = match mqtt {
        // It is free again for the broker when this is over.
        Some(door) => broker::Settings::Embedded(door.address().map_err(ClusterError::LocalAddress)?),
        None => config.broker.clone(),
    };
    let (link, link_seen) = watch::channel(Link { id, connected: false });
    let root = ParentClient::new(&config.parent, link_seen.clone()).map_err(ClusterError::HttpClient)?;
    let tasks = TaskTracker::new();
    // Stops everything, when the outside says so or when the state cannot be kept.
    let stop = shutdown.child_token();
    let _stop_at_the_end = stop.clone().drop_guard();

    let (event_sender, events) = mpsc::channel(QUEUE);
    let settings = known_again(settings, &store).await?;
    let broker = Broker::start(settings, roster, event_sender, &tasks, stop.clone()).await?;
    let local =
        |listener: &tokio::net::TcpListener| listener.local_addr().map_err(ClusterError::LocalAddress);
    let addresses = Addresses { api: local(&api)?, net: local(&net)?, mqtt_port: broker.port() };
    tracing::info!(name = %config.name, api = %addresses.api, net = %addresses.net, mqtt = %broker, "cluster listens");
    tell(addresses);

    let (commands, inbox) = mpsc::channel(QUEUE);
    let (announcer, announcements) = mpsc::unbounded_channel();
    let news = Arc::new(Notify::new());

    let api_state = api::Api {
        commands: commands.clone(),
        link: link_seen,
        cluster_name: config.name.clone(),
        broker: broker.clone(),
        alive_every: worker::alive_every(config.worker_timeout),
    };
    let relays = leadership.as_ref().map(|leadership| leadership.secret().clone());
    let service = |router| Service { router, version: Version::Http1, relays: relays.clone() };
    tasks.spawn(http::serve(api, service(api::router(api_state)), stop.clone()));
    tasks.spawn(http::serve(net, service(net_api::router(api::Orders(commands.clone()))), stop.clone()));
    let uplink = Uplink {
        root: root.clone(),
        introduction: Introduction {
            name: config.name,
            location: config.location,
            api_port: addresses.api.port(),
            net_port: addresses.net.port(),
        },
        link,
        news: Arc::clone(&news),
        reporter: commands.clone(),
    };
    tasks.spawn(uplink.run(stop.clone()));
    tasks.spawn(announcer::Announcer { root: root.clone(), announcements }.run(stop.clone()));

    let control = Control { state, store, broker, root, announcer, news, tasks: tasks.clone(), commands };
    let outcome = tokio::select! {
        outcome = control.run(events, inbox, stop.clone()) => outcome.map_err(ClusterError::Keep),
        () = lost(leadership.as_ref()) => Err(ClusterError::Deposed),
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    if let (Ok(()), Some(leadership)) = (&outcome, leadership) {
        leadership.give_up().await;
    }
    outcome
}

/// An external broker knows the cluster again by a name that is made once, and kept: in a store that several processes of
/// the cluster share, by all of them.
async fn known_again(settings: broker::Settings, store: &Store) -> Result<broker::Settings, ClusterError> {
    let broker::Settings::External(mut settings) = settings else { return Ok(settings) };
    let kept: Option<String> = store.get(SESSION).await.map_err(ClusterError::Read)?.map(|entry| entry.value);
    settings.session = match kept {
        Some(session) => Some(session),
        None => {
            let session = broker::external::new_session();
            store.commit(Transaction::new().put(SESSION, &session)).await.map_err(ClusterError::Keep)?;
            Some(session)
        }
    };
    Ok(broker::Settings::External(settings))
}

async fn read(store: &Store) -> Result<Kept, StoreError> {
    Ok(Kept {
        id: store.get(OWN_ID).await?.map(|entry| entry.value),
        workers: values(store, WORKERS).await?,
        services: values(store, SERVICES).await?,
        instances: values(store, INSTANCES).await?,
        tables: values(store, TABLES).await?,
        returns: values(store, RETURNS).await?,
    })
}

async fn values<T: DeserializeOwned>(store: &Store, prefix: &str) -> Result<Vec<T>, StoreError> {
    Ok(store.list(prefix).await?.into_iter().map(|(_, entry)| entry.value).collect())
}
