//! `cargo xtask build`: the binaries that run on nodes and on desks.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::Process;
use crate::progress::step;
use crate::setup::{self, Purpose};
use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Optimise, as for the binaries that are given to people
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::provide(Purpose::Daemons)?;
    if arguments.release { build_release() } else { build_debug() }.map(drop)
}

/// Builds the binaries as they are debugged and tested, and returns the directory where they lie.
pub(crate) fn build_debug() -> Result<PathBuf> {
    step("build", || build(&[]))?;
    Ok(workspace::target().join("debug"))
}

/// Builds the release binaries and returns the directory where they lie.
pub(crate) fn build_release() -> Result<PathBuf> {
    step("release build", || build(&["--release"]))?;
    Ok(workspace::target().join("release"))
}

fn build(profile: &[&str]) -> Result<()> {
    let ours = ["--exclude", "xtask"];
    Process::cargo()
        .args(["build", "--locked", "--bins"])
        .args(workspace::SELECTION)
        .args(ours)
        .args(profile)
        .run()
}
