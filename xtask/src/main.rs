//! The one door of the repository: everything a developer or a CI machine does begins with `cargo xtask`.
//!
//! Each subcommand makes sure by itself that what it needs is installed ([`setup`]), says on standard error
//! what it is doing and how long that took ([`progress`]), and keeps standard output for its answer.

#![forbid(unsafe_code)]

mod bench;
mod check;
mod coverage;
mod daemons;
mod ebpf;
mod fuzz;
mod lab;
mod process;
mod progress;
mod rights;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, checks, tests and shows Hypha.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing on this machine; says what and why before it does
    Setup(setup::Arguments),
    /// Build the BPF object and list its programs and maps
    BuildEbpf(ebpf::Arguments),
    /// Build the daemons, the command line client and the BPF object
    Build(daemons::Arguments),
    /// Formatting, lints, documentation, licences, dependency arrows and file lengths
    Check,
    /// Run the tests: all of them after `check`, or those of one kind
    Test(test::Arguments),
    /// Feed the daemons and the programs with broken input, longer than the tests do
    Fuzz(fuzz::Arguments),
    /// Run the datapath tests with marks in the programs, and list the code that no test reaches
    Coverage(coverage::Arguments),
    /// Measure the overlay against plain routing, VXLAN and others on nodes made of network namespaces
    #[command(disable_help_flag = true)]
    Bench(bench::Arguments),
    /// Run the main job before your eyes on nodes made of network namespaces, and clean up
    Demo(lab::DemoArguments),
    /// Hold the same nodes open to try things by hand
    Lab(lab::LabArguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup(arguments) => setup::run(&arguments),
        Command::Coverage(arguments) => coverage::run(&arguments),
        Command::BuildEbpf(arguments) => ebpf::run(&arguments),
        Command::Build(arguments) => daemons::run(&arguments),
        Command::Check => check::run(),
        Command::Test(arguments) => test::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Demo(arguments) => lab::demo(&arguments),
        Command::Lab(arguments) => lab::lab(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `test` has already said everything, and its last line must stay the last one.
            if !error.is::<test::Failed>() {
                progress::say(format_args!("error: {error:#}"));
            }
            ExitCode::FAILURE
        }
    }
}
