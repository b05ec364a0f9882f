//! The kinds of tests and how each is run.

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::lab::BINARIES;
use crate::process::Process;
use crate::workspace::SELECTION;

/// Tells the datapath tests how to attach programs: `tests/datapath/nodes.rs`.
const HOOK: &str = "HYPHA_HOOK";
/// Tells them where to take outer headers off, likewise.
const DECAPSULATION: &str = "HYPHA_DECAP";
/// Those of them that carry packets between nodes, and do not look for other XDP programs themselves.
const CARRYING: [&str; 4] = ["live::", "restart::", "slow_path::", "six::"];
/// Those that attach programs and look at what becomes of that. What single packets meet in a program does not depend on
/// how it was attached. (On kernels before 6.6 all of them run this way: [`Kind::Vm`].)
const ATTACHING: [&str; 9] = [
    "decapsulation::",
    "doctor::",
    "live::",
    "neighbours::",
    "node_itself::",
    "repair::",
    "restart::",
    "slow_path::",
    "upgrade::",
];

/// From the cheapest to the dearest; a failure is best understood at the first kind that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Decisions, in milliseconds, without any rights
    Unit,
    /// Single packets through the programs that netmanager embeds
    Datapath,
    /// Those that attach programs once more, as on kernels without tcx
    Clsact,
    /// Those that carry packets between nodes once more, unwrapped in the driver
    Xdp,
    /// netmanager in network namespaces
    Network,
    /// node-engine with a containerd of its own
    Engine,
    /// Everything together: the real binaries on several nodes
    E2e,
    /// The datapath tests on Debian's kernel in QEMU; only when asked for
    Vm,
}

impl Kind {
    /// Those that run when none is named. The virtual machine takes some minutes, and a distribution that has its kernel.
    pub(crate) const ALL: [Self; 7] =
        [Self::Unit, Self::Datapath, Self::Clsact, Self::Xdp, Self::Network, Self::Engine, Self::E2e];

    /// Needs root of the machine.
    pub(crate) fn is_privileged(self) -> bool {
        !matches!(self, Self::Unit | Self::Vm)
    }

    /// Runs the daemons.
    pub(crate) fn needs_daemons(self) -> bool {
        matches!(self, Self::Network | Self::Engine | Self::E2e)
    }

    /// The test target of the `integration` package; the unit tests are all that cargo runs when none is named, and
    /// the virtual machine's are not run by cargo.
    pub(crate) fn target(self) -> Option<&'static str> {
        match self {
            Self::Unit | Self::Vm => None,
            Self::Datapath | Self::Clsact | Self::Xdp => Some("datapath"),
            Self::Network => Some("network"),
            Self::Engine => Some("engine"),
            Self::E2e => Some("e2e"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
            Self::Vm => "vm",
            _ => self.target().unwrap_or("unit"),
        })
    }
}

/// Compiles everything first, so that the times of the stages are those of the tests.
pub(crate) fn build(kinds: &[Kind]) -> Result<()> {
    let targets: Vec<_> = kinds.iter().filter_map(|kind| kind.target()).collect();
    if targets.len() < kinds.len() {
        cargo_test().arg("--no-run").run()?;
    }
    if !targets.is_empty() {
        cargo_test().arg("--no-run").args(targets.iter().flat_map(|target| ["--test", target])).run()?;
    }
    Ok(())
}

pub(crate) fn command(
    kind: Kind,
    binaries: Option<&Path>,
    filter: Option<&str>,
    harness: &[String],
) -> Process {
    let mut process = cargo_test();
    if let Some(binaries) = binaries {
        process = process.env(BINARIES, binaries);
    }
    let mut threads = None;
    if let Some(target) = kind.target() {
        process = process.args(["--test", target]);
        // Nodes share two cores and the clock by which tests judge them.
        threads = Some("--test-threads=1");
    }
    let mut filters: Vec<_> = filter.into_iter().collect();
    let by_default: &[&str] = match kind {
        Kind::Clsact => {
            process = process.env(HOOK, "clsact");
            &ATTACHING
        }
        Kind::Xdp => {
            process = process.env(DECAPSULATION, "xdp");
            &CARRYING
        }
        _ => &[],
    };
    if filters.is_empty() {
        filters.extend(by_default);
    }
    // cargo takes one filter, the tests themselves take any number.
    process.arg("--").args(threads).args(filters).args(harness)
}

fn cargo_test() -> Process {
    Process::cargo().args(["test", "--locked", "--no-fail-fast"]).args(SELECTION)
}
