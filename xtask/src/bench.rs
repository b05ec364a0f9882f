//! `cargo xtask bench` and `cargo xtask bench control`: the programs `bench` and `bench-control` of the `integration` package,
//! with everything they need installed and built.

use std::ffi::OsString;

use anyhow::Result;

use crate::lab::BINARIES;
use crate::process::Process;
use crate::progress::heading;
use crate::setup::{self, Purpose};
use crate::{daemons, rights};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `--help` shows what it takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    rights::require("the benchmark")?;
    setup::provide(Purpose::Bench)?;
    let binaries = daemons::build_release()?;
    let (program, rest) = match arguments.rest.split_first() {
        Some((first, rest)) if first == "control" => ("bench-control", rest),
        _ => ("bench", arguments.rest.as_slice()),
    };
    heading(program);
    Process::new(binaries.join(program)).args(rest).env(BINARIES, &binaries).become_it()
}
