//! `cargo xtask fuzz`: the fuzzing that belongs to the tests, for longer and with other input each time.

use anyhow::Result;

use crate::process::Process;
use crate::rights;
use crate::setup::{self, Purpose};
use crate::workspace::SELECTION;

/// Where the campaigns look for how long to go on: `integration::fuzz`.
const SECONDS: &str = "HYPHA_FUZZ_SECONDS";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this
    #[arg(value_enum)]
    target: Option<Target>,
    /// How long each campaign goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// What cluster, root and workers say to each other, and people to the root
    Payloads,
    /// Frames through the programs in the kernel
    Packets,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = arguments.target.map_or_else(|| vec![Target::Payloads, Target::Packets], |only| vec![only]);
    if targets.contains(&Target::Packets) {
        rights::require("running programs in the kernel")?;
        setup::provide(Purpose::Tests)?;
    } else {
        setup::provide(Purpose::Daemons)?;
    }
    targets.into_iter().try_for_each(|target| {
        let process = Process::cargo().args(["test", "--locked"]).args(SELECTION);
        let process = match target {
            Target::Payloads => process.args(["--test", "fuzz"]),
            Target::Packets => process.args(["--test", "datapath", "fuzz"]),
        };
        let seconds = arguments.seconds.to_string();
        process.args(["--", "--nocapture", "--test-threads=1"]).env(SECONDS, seconds).run()
    })
}
