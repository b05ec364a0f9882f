//! `orchestrator root`, `orchestrator branch`, `orchestrator cluster`, `orchestrator standalone`; `orchestrator backup` and `restore`;
//! `orchestrator broker-acl`.
#![forbid(unsafe_code)]

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use orchestrator::broker::acl;
use orchestrator::{archive, branch, cluster, open_files, root, standalone};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What a clean stop may take before the process ends anyway.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const EXIT_CONFIG: u8 = 2;

/// Hypha's control plane.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The root: the API for people, and the choice of a cluster for each instance.
    Root(root::Args),
    /// A cluster: its workers, the choice of a worker for each instance, and the MQTT broker.
    Cluster(cluster::Args),
    /// A branch: a cluster to the root, or to another branch, and a root to clusters of its own.
    Branch(branch::Args),
    /// Root and one cluster in one process.
    Standalone(standalone::Args),
    /// Copy the state of a root, a branch or a cluster, which may be running, into a file.
    Backup(archive::BackupArgs),
    /// Put a backup in place of the state of a root, a branch or a cluster, which must not be running.
    Restore(archive::RestoreArgs),
    /// Print who may say and hear what at a cluster's broker, as an ACL file of Mosquitto: for `cluster --broker`.
    BrokerAcl(acl::AclArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match cli.command {
        Command::Root(args) => start(args, root::run),
        Command::Cluster(args) => start(args, cluster::run),
        Command::Branch(args) => start(args, branch::run),
        Command::Standalone(args) => start(args, standalone::run),
        Command::Backup(args) => tell(archive::backup(&args)),
        Command::Restore(args) => tell(archive::restore(&args)),
        Command::BrokerAcl(args) => tell(acl::broker_acl(&args)),
    }
}

/// What was done or asked for, or why not.
fn tell<E: std::error::Error + Send + Sync + 'static>(outcome: Result<String, E>) -> ExitCode {
    match outcome {
        Ok(done) => match writeln!(std::io::stdout(), "{done}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_stdout_gone) => ExitCode::FAILURE,
        },
        Err(error) => fail(&error.into(), 1),
    }
}

/// Checks the flags and runs until a signal: 0 after a clean stop, 2 for wrong flags, 1 for a failure.
fn start<A, C, R, E>(args: A, run: impl FnOnce(C, CancellationToken) -> R) -> ExitCode
where
    C: TryFrom<A, Error: std::error::Error + Send + Sync + 'static>,
    R: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let config = match C::try_from(args) {
        Ok(config) => config,
        Err(error) => return fail(&error.into(), EXIT_CONFIG),
    };
    open_files::allow_all();
    let shutdown = CancellationToken::new();
    match serve(run(config, shutdown.clone()), shutdown) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn serve<E>(run: impl Future<Output = Result<(), E>>, shutdown: CancellationToken) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the threads of the runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut run = std::pin::pin!(run);
        tokio::select! {
            outcome = run.as_mut() => return outcome.map_err(anyhow::Error::new),
            () = either(&mut terminate, &mut interrupt) => tracing::info!("stopping"),
        }
        shutdown.cancel();
        tokio::select! {
            outcome = run => outcome.map_err(anyhow::Error::new),
            () = either(&mut terminate, &mut interrupt) => anyhow::bail!("stopped at once by a second signal"),
            () = tokio::time::sleep(STOP_TIMEOUT) => anyhow::bail!("not stopped after {STOP_TIMEOUT:?}"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn either(first: &mut Signal, second: &mut Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

/// One line on stderr, with the chain of causes.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    let _stderr_gone = writeln!(std::io::stderr(), "orchestrator: {error:#}");
    ExitCode::from(code)
}
