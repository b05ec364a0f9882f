//! `cargo xtask setup`: what this machine must have, found or installed.
//!
//! A part counts as there when it works (a program on the PATH, say), wherever it came from: a machine with
//! Docker's containerd keeps it. Only what is missing is installed, after a table that says what and why.

mod apt;
mod cargo;
mod compiler;
mod kernel;
mod part;
mod parts;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::progress::{answer, heading, say, seconds, step};
use crate::{rights, vm};

pub(crate) use self::cargo::CARGO_DENY;
use self::part::{Part, Source};
pub(crate) use self::parts::Purpose;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only what this needs
    #[arg(long = "for", value_enum, default_value_t = Purpose::Everything)]
    purpose: Purpose,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    provide(arguments.purpose)?;
    let parts = parts::needed_for(arguments.purpose).len();
    answer(format_args!("all {parts} parts are there ({})", seconds(start.elapsed())))
}

/// Makes sure that everything `purpose` needs is there. Says nothing when it is.
pub(crate) fn provide(purpose: Purpose) -> Result<()> {
    let missing = missing(purpose);
    if !missing.is_empty() {
        heading("setup");
        say(format_args!("missing on this machine:"));
        for part in &missing {
            say(format_args!("    {:<18} {:<60} {}", part.name, part.why, part.source));
        }
        refuse_what_cannot_be_installed(&missing)?;
        install(&missing)?;
        refuse_what_is_still_missing(purpose)?;
    }
    if purpose.runs_programs() { kernel::prepare() } else { Ok(()) }
}

fn missing(purpose: Purpose) -> Vec<Part> {
    parts::needed_for(purpose).into_iter().filter(|part| !part.found.holds()).collect()
}

/// Stops before anything is touched if some part could not be had in the end.
fn refuse_what_cannot_be_installed(missing: &[Part]) -> Result<()> {
    let by_hand = |part: &Part| Some(format!("    {:<18} {}", part.name, part.source.by_hand()?));
    let by_hand: Vec<_> = missing.iter().filter_map(by_hand).collect();
    if by_hand.is_empty() {
        return Ok(());
    }
    let reason = if rights::is_root() { "this machine has no apt" } else { "installing packages takes root" };
    bail!("{reason}; get these by hand, then try again:\n{}", by_hand.join("\n"));
}

fn install(missing: &[Part]) -> Result<()> {
    if missing.iter().any(|part| part.source.uses_apt()) {
        step("apt-get update", apt::update)?;
    }
    let packages: Vec<_> = missing.iter().flat_map(|part| part.source.packages()).copied().collect();
    if !packages.is_empty() {
        step("apt-get install", || apt::install(&packages))?;
    }
    for part in missing {
        match part.source {
            Source::Apt(_) => {}
            Source::Compiler => step(part.name, compiler::install)?,
            Source::Kernel => step(part.name, vm::kernel::fetch)?,
            Source::Linker => step(part.name, compiler::install_linker)?,
            Source::Cargo(tool) => step(part.name, || tool.install(&[], &[]))?,
            Source::Rustup(component) => step(part.name, || cargo::add_component(component))?,
        }
    }
    Ok(())
}

fn refuse_what_is_still_missing(purpose: Purpose) -> Result<()> {
    let names: Vec<_> = missing(purpose).iter().map(|part| part.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    bail!("installed without an error, but still not usable: {}", names.join(", "))
}
