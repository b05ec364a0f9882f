//! `cargo xtask bench`: the program of the same name in the `integration` package, with everything it needs installed and
//! built.

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
    heading("bench");
    Process::new(binaries.join("bench")).args(&arguments.rest).env(BINARIES, &binaries).become_it()
}
