//! `netmanager`: the daemon and its commands.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use netmanager::cli::{Cli, Command, DaemonArgs, OutputArgs, TraceArgs, WhyArgs};
use netmanager::commands::exit::{Exit, NotFound};
use netmanager::config::Config;
use netmanager::why::Transport;
use netmanager::{app, commands};
use tracing_subscriber::EnvFilter;

/// Wrong usage or configuration: starting again without a change is pointless.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(command) => run(command),
        None => match Config::read(&cli.daemon.configuration.file) {
            Ok(config) => daemon(config, cli.daemon).map(|()| Exit::Done),
            Err(error) => {
                complain(&error.into());
                return ExitCode::from(MISUSE);
            }
        },
    };
    match result {
        Ok(exit) => exit.into(),
        // `netmanager flows | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            if error.is::<NotFound>() { ExitCode::from(NotFound::CODE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> Result<Exit> {
    let mut out = std::io::stdout().lock();
    match command {
        Command::Status(args) => {
            runtime()?.block_on(commands::status::run(&args.places.into(), args.format, &mut out))
        }
        Command::Services(args) => {
            let OutputArgs { format, places } = args.output;
            let wanted = commands::services::Wanted { service: args.service };
            runtime()?.block_on(commands::services::run(&places.into(), wanted, format, &mut out))
        }
        Command::Flows(args) => {
            let OutputArgs { format, places } = args.output;
            let wanted = commands::flows::Wanted { from: args.from, to: args.to };
            runtime()?.block_on(commands::flows::run(&places.into(), wanted, format, &mut out))
        }
        Command::Drops(args) => {
            let OutputArgs { format, places } = args.output;
            let paths = places.into();
            if args.watch {
                return runtime()?.block_on(commands::drops::watch(&paths, format, &mut out));
            }
            runtime()?.block_on(commands::drops::show(&paths, format, &mut out))
        }
        Command::Why(args) => {
            let OutputArgs { format, places } = args.output;
            let transport = match (args.udp, args.icmp) {
                (true, _) => Transport::Udp,
                (_, true) => Transport::Icmp,
                _ => Transport::Tcp,
            };
            let WhyArgs { from, to, count, from_port, .. } = args;
            let asked = commands::why::Asked { from, to, transport, count, from_port };
            return runtime()?.block_on(commands::why::run(&places.into(), asked, format, &mut out));
        }
        Command::Trace(args) => {
            let OutputArgs { format, places } = args.output;
            let TraceArgs { from, to, drops: drops_only, count, .. } = args;
            let wanted = commands::trace::Wanted { from, to, drops_only };
            let paths = places.into();
            let traced = commands::trace::run(&paths, &wanted, count, format, &mut out);
            return runtime()?.block_on(traced);
        }
        Command::Doctor(args) => {
            let OutputArgs { format, places } = args.output;
            let paths = places.into();
            return runtime()?.block_on(commands::doctor::run(&paths, &args.configuration, format, &mut out));
        }
        Command::Cleanup(places) => runtime()?.block_on(commands::cleanup::run(&places.into(), &mut out)),
        Command::Bench(command) => commands::bench::run(&command, &mut out),
    }
    .map(|()| Exit::Done)
}

fn daemon(mut config: Config, args: DaemonArgs) -> Result<()> {
    config.decapsulation = args.decapsulation.unwrap_or(config.decapsulation);
    config.link = args.link.unwrap_or(config.link);
    config.datapath = args.configuration.datapath.unwrap_or(config.datapath);
    let level = if config.debug { "debug" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_not_set| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    for key in &config.unknown_keys {
        tracing::warn!(key, file = %args.configuration.file.display(), "unknown key ignored");
    }
    let paths = args.places.into();
    runtime()?.block_on(app::run(config, &paths, app::Listen { port: args.port, metrics: args.metrics }))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.map(std::io::Error::kind).any(|kind| kind == std::io::ErrorKind::BrokenPipe)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")
}

#[allow(clippy::print_stderr, reason = "the one place where a command that failed says why")]
fn complain(error: &anyhow::Error) {
    eprintln!("netmanager: {error:#}");
}
