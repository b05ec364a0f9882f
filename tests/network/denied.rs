//! What a sandbox does: system calls that are refused.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Runs `work` on a thread that may not call bpf(2), nor may the processes that it starts and theirs.
pub(crate) fn without_bpf<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let refused = BTreeMap::from([(libc::SYS_bpf, Vec::new())]);
    let refusal = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into().context("seccomp on this architecture")?;
    let filter: BpfProgram = SeccompFilter::new(refused, SeccompAction::Allow, refusal, architecture)
        .and_then(TryInto::try_into)
        .context("make a filter of system calls")?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            seccompiler::apply_filter(&filter).context("filter system calls")?;
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
