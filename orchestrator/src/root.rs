//! The root: what people ask for, and which cluster gets it; service addresses.
//!
//! What is wanted is in the store, and a change is stored before it is answered. Everything that then has to be done
//! (choose a cluster, tell a cluster) is stored in the same transaction, done in the background, tried again until it
//! is done, and only then deleted. So a crash of the root loses nothing, and neither does a cluster that is away.
//!
//! ```text
//!  people ──> api ──> application, instance ──> store ──> placement ──> store ──> dispatch ──> clusters
//!  clusters ─> report (api), grpc, net ───────> store, live
//! ```
//!
//! - Pure: [`record`] (a service and its instances), [`pool`] and [`subnet`] (addresses),
//!   [`token`], [`access`] (who may do what), [`limit`] (how often), [`event`] (what has
//!   happened).
//! - The store's users: [`services`] (all of them, in memory as they are stored; [`layout`] reads older stores),
//!   [`application`], [`creation`], [`change`], [`instance`], [`cluster`], [`account`] and [`organization`] (users),
//!   [`session`] (logins), [`reset`]; the keys are in [`key`].
//! - In the background: [`placement`], [`dispatch`], [`outage`] (clusters that fall silent), [`unfinished`] (what was begun is
//!   ended), [`expiry`]. From clusters: [`report`], [`net`].
//! - With the clusters below, as a branch does it, too: [`crate::children`] (also [`place`], which cluster, and [`live`], what is
//!   only observed and never stored).

pub mod access;
mod account;
pub mod admin;
mod api;
mod application;
mod block;
mod change;
mod cluster;
pub mod config;
mod creation;
mod dispatch;
mod escalation;
mod event;
mod expiry;
mod failure;
mod instance;
mod key;
mod layout;
pub mod limit;
pub mod mail;
mod net;
pub mod organization;
mod outage;
mod overview;
pub mod password;
mod placement;
pub mod plan;
pub mod pool;
pub mod record;
mod report;
mod reset;
pub mod role;
mod services;
mod session;
pub mod signing_key;
mod stream;
mod streams;
pub mod subnet;
pub mod token;
mod unfinished;
pub mod user;
mod validation;
mod why;
mod worker;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::id::Id;
use protocol::plan::Plan;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::config::{AccountArgs, Args, Config, ConfigError, PlanArgs};
pub use self::mail::{MailConfig, MailError};

use self::admin::AdminError;
use self::event::Events;
use self::instance::Wanted;
use self::live::Live;
use self::mail::Mailer;
use self::password::Gate;
use self::plan::PlanError;
use self::pool::{Given, Pool};
use self::services::Services;
use self::session::Attempts;
use self::signing_key::KeyError;
use self::streams::Streams;
use self::token::Tokens;
use self::unfinished::Leftovers;
use crate::children::notices::Notices;
use crate::children::{call, command, grpc, lane, live, place};
use crate::clock;
use crate::data_dir::{DataDir, DataDirError};
use crate::http::{self, BindError, Service, Version};
use crate::reach::{self, Passing};
use crate::relay::{Door, Greeting};
use crate::store::etcd::{Leadership, lost};
use crate::store::{Store, StoreError};

/// Why the root could not start.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("open the root's data")]
    Data(#[from] DataDirError),
    #[error("read the root's state")]
    Store(#[from] StoreError),
    #[error("prepare the user Admin")]
    Admin(#[from] AdminError),
    #[error("prepare the key that signs tokens")]
    Key(#[from] KeyError),
    #[error("prepare to send mail (--smtp-url)")]
    Mail(#[from] MailError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("set up the HTTP client")]
    Client(#[from] reqwest::Error),
    /// It was silent for too long. What it had answered is kept.
    #[error("another root may lead now: etcd did not hear of this one in time")]
    Deposed,
}

/// What the parts of the root share.
struct Root {
    store: Store,
    tokens: Tokens,
    gate: Gate,
    /// Tries to log in.
    attempts: Attempts,
    /// Mails that were asked for.
    resets: Attempts,
    mailer: Option<Mailer>,
    /// Whether a refresh token is good more than once: see [`AccountArgs`].
    reusable_refresh_tokens: bool,
    /// The silence after which a cluster is given up.
    cluster_timeout: Duration,
    /// Id of the organization `root`.
    root_organization: Id,
    /// Which addresses the overlay has.
    plan: Plan,
    /// What goes on after a request was answered.
    tasks: TaskTracker,
    /// All services: what the store has of them.
    services: Arc<Services>,
    /// What has happened.
    events: Arc<Events>,
    /// Who waits for one more instance.
    wanted: Wanted,
    leftovers: Leftovers,
    /// Always what the store says of addresses, plus those of transactions in hand.
    pool: Mutex<Pool>,
    live: Mutex<Live>,
    client: reqwest::Client,
    /// An instance waits for a cluster, or a cluster changed.
    placement: Notify,
    /// A command for a cluster was stored.
    commands: Notify,
    /// A notice for a cluster was stored.
    notices: Arc<Notify>,
    /// A cluster was heard of: whoever waits to try it again need not wait longer.
    heard: tokio::sync::broadcast::Sender<Id>,
    streams: Streams,
}

/// A root that holds its data directory and its ports, and answers nobody yet.
pub struct Bound {
    api: TcpListener,
    net: TcpListener,
    grpc: TcpListener,
    root: Arc<Root>,
    data_dir: DataDir,
    /// Where there may be other roots.
    leadership: Option<Leadership>,
}

/// Where a root listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub api: SocketAddr,
    pub net: SocketAddr,
    pub grpc: SocketAddr,
}

/// Runs the root until `shutdown`.
///
/// # Errors
/// When it cannot start: the data directory or a port is not to be had.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RootError> {
    reach::come_back(&shutdown, async |serves: &AtomicBool| {
        let bound = tokio::select! {
            bound = Bound::open(config.clone()) => bound?,
            // It may wait for another root to be gone.
            () = shutdown.cancelled() => return Ok(()),
        };
        serves.store(true, Ordering::Relaxed);
        bound.serve(shutdown.clone()).await
    })
    .await
}

impl Passing for RootError {
    fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Deposed => true,
            Self::Data(DataDirError::Store(error)) | Self::Store(error) => error.is_out_of_reach(),
            _ => false,
        }
    }
}

impl Bound {
    /// Takes the data directory, the state, the ports, and the lead if there may be others: while another one leads, what comes
    /// to the ports is passed on to that one. A second root on the same ports or directory must not get as far as making a
    /// password.
    ///
    /// # Errors
    /// When one of them is not to be had.
    pub async fn open(config: Config) -> Result<Self, RootError> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let state = data_dir.state(config.store.as_ref(), "hypha/root").await?;
        let door = |address, purpose, option| Door::try_open(address, purpose, option, Greeting::Announced);
        let api = door(config.api, "the root's API", "--port, in standalone --root-port").await?;
        let net = door(config.net, "service addresses", "--net-port, in standalone --root-net-port").await?;
        let grpc = door(config.grpc, "registration of clusters", "--grpc-port").await?;
        let (store, leadership) = state.lead(&[&api, &net, &grpc]).await?;
        let (api, net, grpc) = (api.open().await?, net.open().await?, grpc.open().await?);
        let root_organization =
            admin::ensure(&store, data_dir.path(), config.insecure_admin_password.as_deref()).await?;
        let root = Arc::new(Root::new(store, root_organization, config).await?);
        Ok(Self { api, net, grpc, root, data_dir, leadership })
    }

    /// Where it listens; not where it was told to, when that was port 0.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> std::io::Result<Addresses> {
        Ok(Addresses {
            api: self.api.local_addr()?,
            net: self.net.local_addr()?,
            grpc: self.grpc.local_addr()?,
        })
    }

    /// Everything that runs in a root, until `shutdown`. Listeners stop first, then the work in the background.
    ///
    /// # Errors
    /// When another root may lead.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), RootError> {
        let Self { api, net, grpc, root, data_dir, leadership } = self;
        // Also ends when the lead is lost.
        let shutdown = shutdown.child_token();
        let show = |listener: &TcpListener| {
            listener.local_addr().map_or_else(|_| String::new(), |at| at.to_string())
        };
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            data_dir = %data_dir.path().display(),
            api = %show(&api),
            grpc = %show(&grpc),
            net = %show(&net),
            "root started"
        );
        let background = CancellationToken::new();
        let tasks = root.tasks.clone();
        tasks.spawn(placement::run(root.clone(), background.clone()));
        tasks.spawn(lane::run(dispatch::Commands(root.clone()), background.clone()));
        tasks.spawn(lane::run(root.notices(), background.clone()));
        tasks.spawn(outage::run(root.clone(), background.clone()));
        tasks.spawn(expiry::run(root.clone(), background.clone()));
        tasks.spawn(unfinished::run(root.clone(), background.clone()));
        let streams = root.streams.stop.clone();
        let end_streams = async {
            let is_deposed = tokio::select! {
                () = shutdown.cancelled() => false,
                () = lost(leadership.as_ref()) => true,
            };
            shutdown.cancel();
            streams.cancel();
            is_deposed
        };
        let relays = leadership.as_ref().map(|leadership| leadership.secret().clone());
        let service = |version, router| Service { router, version, relays: relays.clone() };
        let (is_deposed, ..) = tokio::join!(
            end_streams,
            http::serve(api, service(Version::Http1, api::router(root.clone())), shutdown.clone()),
            http::serve(net, service(Version::Http1, net::router(root.clone())), shutdown.clone()),
            http::serve(grpc, service(Version::Http2, grpc::router(root)), shutdown.clone()),
        );
        background.cancel();
        tasks.close();
        tasks.wait().await;
        if is_deposed {
            return Err(RootError::Deposed);
        }
        if let Some(leadership) = leadership {
            leadership.give_up().await;
        }
        tracing::info!("root stopped");
        Ok(())
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl Root {
    async fn new(store: Store, root_organization: Id, config: Config) -> Result<Self, RootError> {
        let taken = store.list::<Id>(key::ADDRESSES).await?;
        plan::ensure(&store, &config.plan).await?;
        let given = Given::of(config.plan.services());
        let pool = Pool::of_taken(
            given,
            taken.iter().filter_map(|(key, _)| key.strip_prefix(key::ADDRESSES)?.parse().ok()),
        );
        let events = Events::load(&store, root_organization).await?;
        Ok(Self {
            tokens: Tokens::new(&signing_key::ensure(&store).await?)?,
            gate: Gate::default(),
            attempts: Attempts::default(),
            resets: Attempts::new(reset::OF_USER, reset::OF_ADDRESS),
            mailer: config.mail.map(Mailer::new).transpose()?,
            reusable_refresh_tokens: config.reusable_refresh_tokens,
            root_organization,
            plan: config.plan,
            tasks: TaskTracker::new(),
            services: Arc::new(Services::load(&store).await?),
            events: Arc::new(events),
            wanted: Wanted::default(),
            leftovers: Leftovers::load(&store).await?,
            store,
            pool: Mutex::new(pool),
            live: Mutex::new(Live::new(clock::moment(), config.cluster_timeout.as_secs_f64())),
            cluster_timeout: config.cluster_timeout,
            client: call::client()?,
            placement: Notify::new(),
            commands: Notify::new(),
            notices: Arc::new(Notify::new()),
            heard: tokio::sync::broadcast::channel(64).0,
            streams: Streams::new(),
        })
    }

    /// The ServiceIPs that there are.
    fn given(&self) -> Given {
        Given::of(self.plan.services())
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane of what is stored for clusters that have tables.
    fn notices(&self) -> Notices {
        Notices {
            store: self.store.clone(),
            client: self.client.clone(),
            wake: Arc::clone(&self.notices),
            heard: self.heard.clone(),
        }
    }

    /// Something was stored that the background has to do.
    fn wake(&self) {
        self.commands.notify_one();
        self.notices.notify_one();
    }

    /// A cluster registered or reported: there may be room, and it can be reached. Commands are looked through again as
    /// well, so that one of which nobody was woken waits no longer than until the next report.
    fn cluster_heard(&self, cluster: Id) {
        self.placement.notify_one();
        self.wake();
        let _nobody_waits = self.heard.send(cluster);
    }
}

#[cfg(test)]
mod tests;
