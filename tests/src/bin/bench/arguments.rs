//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Error};
use clap::Parser;

use crate::subject::Variant;

/// Measure Hypha's overlay against plain routing, VXLAN and others, on nodes that are network namespaces of this machine.
///
/// Everything is measured in turns, so that whatever else the machine does meets all alike. Trust ratios within one run,
/// and those only of a machine that is idle otherwise.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Arguments {
    /// The most important measures in about two minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Fractions of a second for each: whether it works, not how fast it is
    #[arg(long, conflicts_with = "quick", hide = true)]
    pub(crate) tiny: bool,
    /// Only these measures, variants or underlays, or those whose names begin so: tcp, rr-udp, wire, hypha
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// How often everything is measured (5; 3 with --quick)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// How long each measure takes (3 s; 0.5 s with --quick)
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: Option<Duration>,
    /// Say what has changed since an older run
    #[arg(long, value_name = "RESULTS.JSON")]
    pub(crate) compare: Option<PathBuf>,
    /// Say which of the project's marks are missed; always ends well
    #[arg(long)]
    pub(crate) check: bool,
    /// Measure another system, too: SCRIPT builds it (see tests/src/bin/bench/cell/extra.rs)
    #[arg(long, value_name = "NAME=SCRIPT", value_parser = extra)]
    pub(crate) extra: Vec<Extra>,
    /// Where results go (target/bench/DATE)
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Name all measures, variants and underlays, and measure nothing
    #[arg(long)]
    pub(crate) list: bool,
}

/// A variant that whoever runs this has brought along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extra {
    pub(crate) variant: Variant,
    pub(crate) script: PathBuf,
}

fn extra(text: &str) -> Result<Extra, Error> {
    let (name, script) = text.split_once('=').context("expected NAME=SCRIPT")?;
    let variant: Variant = name.parse()?;
    anyhow::ensure!(
        matches!(variant, Variant::Extra(_)),
        "{name} is the name of a variant that there is already"
    );
    let script = std::fs::canonicalize(script).with_context(|| format!("find {script}"))?;
    Ok(Extra { variant, script })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.01..=600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("expected 0.01 to 600".to_owned())
    }
}
