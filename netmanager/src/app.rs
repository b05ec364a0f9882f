//! The daemon's composition: what is made first, what runs, what stops first.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Look, Socket, bind_loopback, bind_metrics};
use crate::config::Config;
use crate::heap;
use crate::lock::Lock;
use crate::node::Node;
use crate::plane::Mode;
use crate::state::Store;

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Paths {
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    pub bpffs: PathBuf,
}

/// Where the API is served beside its UNIX socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listen {
    /// All of it, on loopback.
    pub port: Option<u16>,
    /// The metrics alone.
    pub metrics: Option<SocketAddr>,
}

/// After a signal, for what is under way.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the daemon until SIGTERM or SIGINT; a second one ends it at once. Containers stay connected, if the data plane is
/// in the kernel.
///
/// # Errors
/// When it cannot start. Then nothing of another daemon was touched: lock and sockets are taken before anything else.
pub async fn run(config: Config, paths: &Paths, listen: Listen) -> Result<()> {
    let store = Store::open(&paths.state_dir)?;
    let _lock = Lock::take(store.dir())?;
    let socket = Socket::bind(&paths.socket).await?;
    let loopback = match listen.port {
        Some(port) => Some(bind_loopback(port).await?),
        None => None,
    };
    let metrics = match listen.metrics {
        Some(address) => Some(bind_metrics(address).await?),
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;

    let (stop_api, stop_node) = (CancellationToken::new(), CancellationToken::new());
    let tasks = TaskTracker::new();
    let choice = config.datapath;
    let node = Node::open(config, store, &paths.bpffs, choice, tasks.clone(), stop_node.clone()).await?;
    heap::give_back();
    let mode = node.mode();
    let look = node.tables().map(|tables| Look {
        tables,
        state_dir: paths.state_dir.clone(),
        stop: stop_api.clone(),
    });
    let (commands, queue) = mpsc::channel(64);
    tasks.spawn(node.run(queue));
    let api = tasks.spawn(api::run(commands, look, socket, api::Tcp { loopback, metrics }, stop_api.clone()));
    tracing::info!(socket = %paths.socket.display(), port = listen.port, metrics = ?listen.metrics, "netmanager is ready");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    match mode {
        Mode::Ebpf => tracing::info!("stopping; containers stay connected"),
        Mode::Userspace => {
            tracing::warn!("stopping; containers are cut off from the overlay until netmanager runs again")
        }
    }
    // No new requests, then no more work: what was accepted is answered.
    stop_api.cancel();
    let finish = async {
        api.await.ok();
        stop_node.cancel();
        tasks.close();
        tasks.wait().await;
    };
    tokio::select! {
        () = finish => {}
        () = tokio::time::sleep(GRACE) => tracing::warn!("not everything ended in time"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
