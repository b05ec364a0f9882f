//! The `node-engine` binary: flags, logging, signals, exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use node_engine::config::{Args, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

const CANNOT_START: u8 = 1;
const WRONG_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let config = match Config::from_args(args) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("wrong configuration: {error}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    // One thread: the work is done by containerd and the kernel, and memory is dear on the machines that this runs on.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::from(CANNOT_START);
        }
    };
    let outcome = runtime.block_on(run(config));
    // A blocking call that hangs, on a dead disk say, does not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("node-engine cannot run: {error:#}");
            ExitCode::from(CANNOT_START)
        }
    }
}

/// Runs the daemon until SIGTERM or SIGINT; the second one does not wait any more.
async fn run(config: Config) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut asked = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let shutdown = CancellationToken::new();
    let daemon = node_engine::app::run(config, shutdown.clone());
    tokio::pin!(daemon);
    tokio::select! {
        outcome = &mut daemon => return outcome,
        () = asked() => shutdown.cancel(),
    }
    tokio::select! {
        outcome = &mut daemon => outcome,
        () = asked() => anyhow::bail!("asked twice to stop: did not wait for the jobs in hand"),
    }
}
