//! What comes from others, judged by cargo-deny with the rules of `deny.toml`.

use anyhow::{Context, Result};

use crate::process::Process;
use crate::progress::say;
use crate::setup::CARGO_DENY;

/// The database of advisories comes from the network: long enough for a clone, short enough for a dead end.
const PATIENCE: &str = "60";

pub(crate) fn check() -> Result<()> {
    deny()?.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]).run_quietly()
}

/// A machine without a way to the database must still be able to check the rest, so that is no failure; it is
/// said, so that nobody takes it for a clean bill.
pub(crate) fn check_advisories() -> Result<()> {
    let Err(error) = deny()?.args(["check", "advisories"]).run_quietly() else { return Ok(()) };
    let said = format!("{error:#}");
    let Some(reason) = said.lines().find(|line| line.contains("failed to fetch advisory database")) else {
        return Err(error);
    };
    say(format_args!("    skipped: {}", reason.trim()));
    Ok(())
}

fn deny() -> Result<Process> {
    let program = CARGO_DENY.find().context("cargo-deny has gone since setup found it")?;
    Ok(Process::new("timeout").arg(PATIENCE).arg(program))
}
