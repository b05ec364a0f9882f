//! A branch: between a root, or another branch, and clusters. To the one above it is a cluster, to its clusters it is a root, so
//! that neither need know of it.
//!
//! It keeps little: which cluster has which instance, what clusters have yet to be told, and who wants to hear of which table.
//! Everything about addresses it passes on.
//!
//! ```text
//!  above ──> orders ──> control (state) ──> store ──> downlink ──> clusters
//!  above <── uplink <── control (state) <── reports, grpc <────── clusters
//!  above <──────────────── net <───────────────────────────────── clusters
//! ```
//!
//! [`run`] puts the parts together. [`control`] owns the [`state`], which decides everything and does nothing. Around it the
//! edges: [`orders`] (from above), [`downlink`], [`reports`] and [`net`] (to and from clusters). What a branch does as a root does
//! it is in [`crate::children`], what it does as a cluster does it in [`crate::parent`].

pub mod config;
mod control;
mod downlink;
mod instance;
mod key;
mod net;
mod orders;
mod reports;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::id::Id;
use serde::de::IgnoredAny;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::{Args, Config, ConfigError};
use self::control::{Control, Handle, Wakes};
use self::downlink::Commands;
use self::net::Net;
use self::orders::{Orders, Status};
use self::state::{Restored, State};
use crate::children::cluster::{self, Registration};
use crate::children::grpc::{self, Registry};
use crate::children::notices::Notices;
use crate::children::{call, lane};
use crate::clock;
use crate::data_dir::{DataDir, DataDirError};
use crate::error::chain;
use crate::http::{self, BindError, Service, Version};
use crate::parent::client::{Introduction, ParentClient};
use crate::parent::net_api;
use crate::parent::summary::{Scope, Summary};
use crate::parent::uplink::{Link, Reporter, Uplink};
use crate::reach::{self, Passing};
use crate::relay::{Door, Greeting};
use crate::store::etcd::lost;
use crate::store::{Store, StoreError};

/// Clusters that were heard of, for workers that wait for one.
const HEARD: usize = 64;

/// Why the branch could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    #[error("open the branch's data")]
    Data(#[from] DataDirError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("read the branch's state")]
    Read(#[source] StoreError),
    #[error("the branch stops, since its state could not be made durable")]
    Keep(#[source] StoreError),
    #[error("set up the HTTP client")]
    HttpClient(#[source] reqwest::Error),
    /// It was silent for too long.
    #[error("another process may lead this branch now: etcd did not hear of this one in time")]
    Deposed,
    #[error("find out which port was given")]
    LocalAddress(#[source] std::io::Error),
}

/// Where a started branch is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub reports: SocketAddr,
    pub grpc: SocketAddr,
    pub addresses: SocketAddr,
    pub api: SocketAddr,
    pub net: SocketAddr,
}

/// Runs the branch until `shutdown`.
///
/// # Errors
/// When it cannot start: the data directory or a port is not to be had; and when the disk takes no more.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), BranchError> {
    reach::come_back(&shutdown, async |serves: &AtomicBool| {
        let tell = |_addresses| serves.store(true, Ordering::Relaxed);
        run_and_tell(config.clone(), shutdown.clone(), tell).await
    })
    .await
}

impl Passing for BranchError {
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
) -> Result<(), BranchError> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let prefix = format!("hypha/branch/{}", config.name);
    let kept = data_dir.state(config.store.as_ref(), &prefix).await?;
    let door = |address, purpose, option| Door::try_open(address, purpose, option, Greeting::Announced);
    let reports = door(config.reports, "reports of clusters", "--reports-port").await?;
    let grpc = door(config.grpc, "registration of clusters", "--grpc-port").await?;
    let addresses = door(config.addresses, "service addresses", "--addresses-port").await?;
    let api = door(config.api, "orders from above", "--port").await?;
    let net = door(config.net, "table updates from above", "--net-port").await?;
    let doors = [&reports, &grpc, &addresses, &api, &net];
    let (store, leadership) = tokio::select! {
        led = kept.lead(&doors) => led?,
        // It may wait for another one to be gone.
        () = shutdown.cancelled() => return Ok(()),
    };
    let restored = read(&store).await.map_err(BranchError::Read)?;
    let id = restored.id;
    let state = State::new(config.name.clone(), config.cluster_timeout, restored, clock::moment());
    let (reports, grpc, addresses) = (reports.open().await?, grpc.open().await?, addresses.open().await?);
    let (api, net) = (api.open().await?, net.open().await?);
    let local = |listener: &TcpListener| listener.local_addr().map_err(BranchError::LocalAddress);
    let at = Addresses {
        reports: local(&reports)?,
        grpc: local(&grpc)?,
        addresses: local(&addresses)?,
        api: local(&api)?,
        net: local(&net)?,
    };
    tracing::info!(
        name = %config.name, reports = %at.reports, grpc = %at.grpc, addresses = %at.addresses, api = %at.api,
        net = %at.net, "branch listens"
    );
    tell(at);

    let (link, link_seen) = watch::channel(Link { id, connected: false });
    let parent = ParentClient::new(&config.parent, link_seen.clone()).map_err(BranchError::HttpClient)?;
    let client = call::client().map_err(BranchError::HttpClient)?;
    let wakes = Wakes {
        commands: Arc::new(Notify::new()),
        notices: Arc::new(Notify::new()),
        report: Arc::new(Notify::new()),
        heard: broadcast::channel(HEARD).0,
    };
    let (control, handle) = Control::new(state, store.clone(), wakes.clone());
    let tasks = TaskTracker::new();
    // Stops everything, when the outside says so or when the state cannot be kept.
    let stop = shutdown.child_token();
    let _stop_at_the_end = stop.clone().drop_guard();

    let relays = leadership.as_ref().map(|leadership| leadership.secret().clone());
    let serve = |listener, version, router| {
        let service = Service { router, version, relays: relays.clone() };
        tasks.spawn(http::serve(listener, service, stop.clone()));
    };
    let clusters = Arc::new(Clusters { store: store.clone(), handle: handle.clone() });
    let overlay = Net { handle: handle.clone(), store: store.clone(), parent: parent.clone() };
    let orders = Orders { handle: handle.clone(), client: client.clone() };
    let status = Status { name: config.name.clone(), link: link_seen };
    serve(reports, Version::Http1, reports::router(handle.clone()));
    serve(grpc, Version::Http2, grpc::router(clusters));
    serve(addresses, Version::Http1, net::router(Arc::new(overlay)));
    serve(api, Version::Http1, orders::router(orders.clone(), status));
    serve(net, Version::Http1, net_api::router(orders));
    let notices = Notices {
        store: store.clone(),
        client: client.clone(),
        wake: Arc::clone(&wakes.notices),
        heard: wakes.heard.clone(),
    };
    let commands = Commands { handle: handle.clone(), store, client, wakes: wakes.clone() };
    tasks.spawn(lane::run(commands, stop.clone()));
    tasks.spawn(lane::run(notices, stop.clone()));
    let uplink = Uplink {
        root: parent,
        introduction: Introduction {
            name: config.name,
            location: config.location,
            api_port: at.api.port(),
            net_port: at.net.port(),
        },
        link,
        news: wakes.report,
        reporter: handle,
    };
    tasks.spawn(uplink.run(stop.clone()));

    let outcome = tokio::select! {
        outcome = control.run(stop.clone()) => outcome.map_err(BranchError::Keep),
        () = lost(leadership.as_ref()) => Err(BranchError::Deposed),
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    if let (Ok(()), Some(leadership)) = (&outcome, leadership) {
        leadership.give_up().await;
    }
    outcome
}

/// The clusters that register here.
struct Clusters {
    store: Store,
    handle: Handle,
}

impl Registry for Clusters {
    async fn register(&self, registration: Registration) -> Result<Id, &'static str> {
        let (cluster, _is_new) = cluster::register(&self.store, registration).await.map_err(|error| {
            tracing::error!(error = %chain(&error), "cluster could not be registered");
            "the branch's store failed"
        })?;
        let id = cluster.id;
        let known = self.handle.ask(move |state, now| state.cluster_is_back(cluster, now)).await;
        known.map(|()| id).map_err(|_stopping| "the branch is stopping")
    }
}

impl Reporter for Handle {
    async fn registered(&self, id: Id) -> Option<()> {
        self.ask(move |state, _| state.parent_is_back(id)).await.ok()
    }

    async fn summary(&self, scope: Scope) -> Option<Summary> {
        self.ask(move |state, now| state.summary(scope, now)).await.ok()
    }

    async fn reported(&self, departed: usize) -> Option<()> {
        self.ask(move |state, _| state.departed_told(departed)).await.ok()
    }
}

async fn read(store: &Store) -> Result<Restored, StoreError> {
    let instances = store.list(key::INSTANCES).await?;
    let interests = store.list::<IgnoredAny>(key::INTERESTS).await?;
    let interest = |path: &str| {
        let (name, cluster) = path.strip_prefix(key::INTERESTS)?.split_once('/')?;
        Some((name.parse().ok()?, cluster.parse().ok()?))
    };
    Ok(Restored {
        id: store.get(key::OWN_ID).await?.map(|entry| entry.value),
        clusters: cluster::all(store).await?,
        instances: instances.into_iter().map(|(_, entry)| entry.value).collect(),
        interests: interests.iter().filter_map(|(path, _)| interest(path)).collect(),
    })
}
