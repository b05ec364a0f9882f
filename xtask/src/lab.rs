//! `cargo xtask demo` and `cargo xtask lab`: the programs of the same names in the `integration` package, with
//! everything they need installed and built.

use anyhow::Result;

use crate::process::Process;
use crate::progress::heading;
use crate::setup::{self, Purpose};
use crate::{daemons, rights};

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// How many worker nodes
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
    /// Keep everything running at the end, until Enter or Ctrl-C
    #[arg(long)]
    hold: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LabArguments {
    /// How many worker nodes
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
}

pub(crate) fn demo(arguments: &DemoArguments) -> Result<()> {
    let hold = arguments.hold.then_some("--hold");
    run("demo", arguments.nodes, hold)
}

pub(crate) fn lab(arguments: &LabArguments) -> Result<()> {
    run("lab", arguments.nodes, None)
}

fn run(name: &str, nodes: Option<u32>, flag: Option<&str>) -> Result<()> {
    rights::require(&format!("the {name}"))?;
    setup::provide(Purpose::Lab)?;
    let binaries = daemons::build_release()?;
    heading(name);
    let nodes = nodes.map(|nodes| format!("--nodes={nodes}"));
    Process::new(binaries.join(name))
        .args(nodes.as_deref().into_iter().chain(flag))
        .env(BINARIES, &binaries)
        .become_it()
}

/// Tells demo, lab and tests where the daemons are.
pub(crate) const BINARIES: &str = "HYPHA_BIN_DIR";
