//! What runs in this process, what it is made of, and in which order it stops.
//!
//! | task | does | stops |
//! |---|---|---|
//! | reconciler | owns the state of every instance, runs the jobs | first, after the jobs in hand |
//! | follower | containerd's events to the reconciler | with it |
//! | session | cluster: handshake, commands, reports | second, after the last reports |
//! | measurer | what instances use | with it |
//! | registrar | tells netmanager who this worker is | with it |

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use protocol::node::ResourceReport;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cgroup;
use crate::config::Config;
use crate::follow::follow;
use crate::lifecycle::Lifecycle;
use crate::measure::measure;
use crate::netmanager::Netmanager;
use crate::reconcile::Reconciler;
use crate::report::NodeReporter;
use crate::runtime::{NameFiles, Runtime, Settings};
use crate::session::{Channels, Session};
use crate::state::StateDir;

/// Commands that wait for the reconciler, which takes each at once.
const QUEUE: usize = 1024;

/// Runs the daemon until `shutdown`. Instances keep running after it.
///
/// # Errors
/// When it cannot start: directories that cannot be used, or another node-engine that uses them. Neither the cluster nor
/// containerd nor netmanager needs to be there: they are waited for.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let state = Arc::new(StateDir::open(&config.state_dir)?);
    make_log_dir(&config.log_dir)?;
    let records = state.load()?;
    let cgroup_parent = format!("/hypha/{}", config.hostname);
    let runtime = Arc::new(Runtime::new(Settings {
        socket: config.containerd.clone(),
        log_dir: config.log_dir.clone(),
        cgroup_parent: cgroup_parent.clone(),
        names: NameFiles::prepare(state.path())?,
        pull: config.pull,
        grace: config.grace,
    }));
    let netmanager = Arc::new(Netmanager::new(config.netmanager.clone()));
    let lifecycle =
        Arc::new(Lifecycle::new(Arc::clone(&runtime), Arc::clone(&netmanager), Arc::clone(&state)));

    let (commands_sender, commands) = mpsc::channel(QUEUE);
    let (notices_sender, notices) = mpsc::channel(QUEUE);
    let (changes_sender, changes) = mpsc::unbounded_channel();
    let (live_sender, live) = watch::channel(Vec::new());
    let (resources_sender, resources) = watch::channel(ResourceReport::default());
    let (identity_sender, identity) = watch::channel(None);

    let reconciler = Reconciler::new(
        lifecycle,
        Arc::clone(&runtime),
        state.boot_id().to_owned(),
        records,
        changes_sender,
        live_sender,
    );
    let session = Session::new(
        config.cluster(),
        config.cluster_host.clone(),
        NodeReporter::new(&config),
        Channels { commands: commands_sender, changes, resources, identity: identity_sender },
    );
    tracing::info!(
        cluster = %config.cluster(),
        host = config.hostname,
        containerd = %config.containerd.display(),
        netmanager = config.overlay_socket(),
        state = %config.state_dir.display(),
        logs = %config.log_dir.display(),
        "node-engine started"
    );

    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let mut containers = JoinSet::new();
    containers.spawn(reconciler.run(commands, notices, first.clone()));
    containers.spawn(follow(Arc::clone(&runtime), notices_sender, first.clone()));
    let mut reports = JoinSet::new();
    reports.spawn(session.run(second.clone()));
    reports.spawn(measure(live, resources_sender, runtime, config.log_dir.clone(), second.clone()));
    reports.spawn({
        let shutdown = second.clone();
        async move { netmanager.keep_registered(identity, shutdown).await }
    });

    // None of the tasks ends by itself: one that does has met a bug, and a daemon of which a part is missing would only
    // seem to work.
    let failure = tokio::select! {
        () = shutdown.cancelled() => None,
        Some(ended) = containers.join_next() => Some(ended),
        Some(ended) = reports.join_next() => Some(ended),
    };
    first.cancel();
    while containers.join_next().await.is_some() {}
    second.cancel();
    while reports.join_next().await.is_some() {}
    cgroup::remove_empty(&cgroup_parent);
    match failure {
        None => {
            tracing::info!("node-engine stopped; instances keep running");
            Ok(())
        }
        Some(ended) => {
            ended.context("a part of node-engine failed")?;
            anyhow::bail!("a part of node-engine ended unasked")
        }
    }
}

fn make_log_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make log directory {}", path.display()))
}
