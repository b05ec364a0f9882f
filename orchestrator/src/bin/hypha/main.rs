//! `hypha`: the command line of the root's HTTP API.
//!
//! stdout is the answer, stderr is the talk, the exit code says how it ended ([`exit`]). Read [`args`] for the words,
//! [`command`] for what each of them does. Decisions ([`plan`], [`rollout`], [`name`], [`tail`]) are pure functions on
//! the documents of the root; [`api`] is the only one that speaks to it, [`terminal`] the only one that prints.
#![forbid(unsafe_code)]

mod address;
mod api;
mod args;
mod command;
mod context;
mod exit;
mod failure;
mod fleet;
mod locate;
mod manifest;
mod name;
mod output;
mod plan;
mod rollout;
#[cfg(test)]
mod sample;
mod session;
mod tail;
mod terminal;
mod view;
mod yaml;

use std::process::ExitCode;

use crate::api::Word;
use crate::args::Command;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::terminal::{Terminal, write_to_stderr};

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return refused(&error).into(),
    };
    let context = Context::new(cli.global);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&context, &Failure::new(Exit::Failed, format!("start: {error}"))).into(),
    };
    let exit = runtime.block_on(async {
        tokio::select! {
            done = run(&context, cli.command) => done.map_or_else(|failure| report(&context, &failure), |()| Exit::Done),
            _ = tokio::signal::ctrl_c() => interrupted(&context),
        }
    });
    // A thread may still wait for somebody to type.
    runtime.shutdown_background();
    exit.into()
}

async fn run(context: &Context, command: Option<Command>) -> Result<(), Failure> {
    match command {
        None if context.knows_a_root()? => command::status::status(context).await,
        None => {
            context.terminal.say("not logged in yet: hypha login URL\n");
            command::help::help(&[])
        }
        Some(Command::Login(arguments)) => command::login::login(context, &arguments).await,
        Some(Command::Logout) => command::login::logout(context),
        Some(Command::Whoami) => command::login::whoami(context).await,
        Some(Command::Apply(arguments)) => command::apply::apply(context, &arguments).await,
        Some(Command::Get(arguments)) => command::get::get(context, &arguments).await,
        Some(Command::Scale(arguments)) => command::scale::scale(context, &arguments).await,
        Some(Command::Delete(arguments)) => command::delete::delete(context, &arguments).await,
        Some(Command::Logs(arguments)) => command::logs::logs(context, &arguments).await,
        Some(Command::Events(arguments)) => command::events::events(context, &arguments).await,
        Some(Command::Why(arguments)) => command::why::why(context, &arguments).await,
        Some(Command::Cordon(arguments)) => {
            command::worker::hold(context, &arguments.workers, Word::Cordon).await
        }
        Some(Command::Drain(arguments)) => command::worker::drain(context, &arguments).await,
        Some(Command::Uncordon(arguments)) => {
            command::worker::hold(context, &arguments.workers, Word::Uncordon).await
        }
        Some(Command::Status) => command::status::status(context).await,
        Some(Command::Version) => version(context),
        Some(Command::Completion { shell }) => completion(shell),
        Some(Command::Help { words }) => command::help::help(&words),
    }
}

fn version(context: &Context) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if context.global.output.is_json() {
        return Terminal::answer(&serde_json::json!({ "version": version }).to_string());
    }
    Terminal::answer(&format!("hypha {version}"))
}

fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::grammar(), "hypha", &mut script);
    Terminal::answer(&String::from_utf8_lossy(&script))
}

/// Tells the failure in the form of the answer, and gives its exit code.
fn report(context: &Context, failure: &Failure) -> Exit {
    if context.global.output.is_json() {
        write_to_stderr(&failure.json().to_string());
    } else {
        write_to_stderr(&failure.text(context.terminal.stderr_paint()));
    }
    failure.exit
}

/// Wrong arguments, or a request for help, which clap treats alike.
fn refused(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // A pipe that nobody reads is no failure.
        drop(error.print());
        return Exit::Done;
    }
    if args::wants_json(std::env::args_os()) {
        let text = error.to_string();
        let title = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        write_to_stderr(&Failure::new(Exit::Usage, title).hint("hypha --help").json().to_string());
    } else {
        drop(error.print());
    }
    Exit::Usage
}

fn interrupted(context: &Context) -> Exit {
    if let Some(farewell) = context.terminal.farewell() {
        write_to_stderr(&format!("\n{farewell}"));
    }
    Exit::Interrupted
}
