//! `cargo xtask check`: what a machine can say about the code without running it.

mod arrows;
mod dependencies;
mod length;
mod source;

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use netmanager_ebpf_builder::PACKAGE;

use crate::process::Process;
use crate::progress::{say, step};
use crate::setup::{self, Purpose};
use crate::test::Kind;
use crate::workspace::{self, SELECTION};

type Check = (&'static str, fn() -> Result<()>);

/// Each check under its name, the quick ones first.
const CHECKS: [Check; 8] = [
    ("formatting", formatting),
    ("dependency arrows", arrows::check),
    ("file lengths", length::check),
    ("lints", lints),
    ("lints of the kernel side", kernel_lints),
    ("documentation", documentation),
    ("licences, bans and sources of dependencies", dependencies::check),
    ("advisories on dependencies", dependencies::check_advisories),
];

/// Runs all checks, also after one has failed, so that one run shows everything there is to mend.
pub(crate) fn run() -> Result<()> {
    setup::provide(Purpose::Check)?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Err(error) = step(name, check) {
            say(format_args!("error: {error:#}"));
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("these checks failed, see above: {}", failed.join("; ")) }
}

fn formatting() -> Result<()> {
    Process::cargo().args(["fmt", "--all", "--check"]).run()
}

fn lints() -> Result<()> {
    let warnings = ["--", "-D", "warnings"];
    Process::cargo()
        .args(["clippy", "--locked", "--keep-going", "--all-targets"])
        .args(SELECTION)
        .args(warnings)
        .run()?;
    // Those that need root are tests that `--all-targets` leaves out.
    let tests = Kind::ALL.into_iter().filter_map(Kind::target);
    let tests: BTreeSet<_> = tests.collect();
    Process::cargo()
        .args(["clippy", "--locked", "--keep-going", "--package", "integration"])
        .args(tests.into_iter().flat_map(|test| ["--test", test]))
        .args(warnings)
        .run()
}

/// Clippy knows no BPF, so it sees this crate as one for the host. The profile has it abort on panic, without
/// which a crate without `std` does not compile for the host; the directory is that of all BPF builds.
fn kernel_lints() -> Result<()> {
    Process::cargo()
        .args(["clippy", "--locked", "--package", PACKAGE, "--profile", "bpf", "--", "-D", "warnings"])
        .env("CARGO_TARGET_DIR", workspace::target().join("bpf"))
        .run()
}

fn documentation() -> Result<()> {
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    Process::cargo().args(["doc", "--locked", "--no-deps"]).args(SELECTION).env("RUSTDOCFLAGS", flags).run()
}
