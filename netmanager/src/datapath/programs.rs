//! The BPF programs that the kernel has loaded, ours and others'.

use std::collections::BTreeMap;
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};

/// A loaded program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Empty if its maker gave it none.
    pub name: String,
    /// The kernel's hash of its instructions: the same for the same build.
    pub tag: u64,
    /// How long it ran and how often; 0 unless the kernel counts it (`sysctl kernel.bpf_stats_enabled=1`).
    pub run_time: Duration,
    pub runs: u64,
}

/// All loaded programs, by the kernel's number.
#[derive(Debug, Clone, Default)]
pub struct Programs(BTreeMap<u32, Program>);

impl Programs {
    /// Asks the kernel. Programs that end meanwhile are left out, and without the right to ask all are.
    #[must_use]
    pub fn read() -> Self {
        let programs = loaded_programs().flatten().map(|info| {
            let name = info.name_as_str().unwrap_or_default().to_owned();
            let program =
                Program { name, tag: info.tag(), run_time: info.run_time(), runs: info.run_count() };
            (info.id(), program)
        });
        Self(programs.collect())
    }

    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Program> {
        self.0.get(&id)
    }
}

/// The numbers of the programs at the ingress of an interface by tcx, in the order in which they run. None before
/// Linux 6.6, and of an interface that is gone.
#[must_use]
pub fn at_tcx(interface: &str) -> Vec<u32> {
    SchedClassifier::query_tcx(interface, TcAttachType::Ingress)
        .map(|(_revision, programs)| programs.iter().map(aya::programs::ProgramInfo::id).collect())
        .unwrap_or_default()
}
