//! CPUs: which one a thread runs on, and how busy all of them are.

use std::fs;
use std::io;
use std::thread;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::hash::fnv1a;

/// Keeps the calling thread, and those that it starts later, on this CPU.
///
/// # Errors
/// When there is no such CPU, or the process may not use it.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

/// Best effort: where it does not work, the measure is only less steady.
pub(super) fn pin_if(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        pin(cpu).ok();
    }
}

/// All CPUs that the machine has; the kernel takes away those that the process may not use.
pub(super) fn unpin() {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        all.set(cpu).ok();
    }
    sched_setaffinity(Pid::from_raw(0), &all).ok();
}

/// Runs `work` on a thread that stays on this CPU.
pub(super) fn on<T: Send>(cpu: Option<usize>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let Some(cpu) = cpu else { return work() };
    let pinned = || {
        pin(cpu)?;
        work()
    };
    thread::scope(|scope| match scope.spawn(pinned).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// CPU seconds that this machine has spent since boot on anything but waiting; the sum of all CPUs.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub fn busy_seconds() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let ticks = busy_ticks(&text).ok_or(io::ErrorKind::InvalidData)?;
    let a_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    #[expect(clippy::cast_precision_loss, reason = "2^53 ticks are three million years")]
    Ok(ticks as f64 / a_second as f64)
}

/// The first line's user, nice, system, irq and softirq. Guests are within user; idle, iowait and steal are not work
/// that was done.
fn busy_ticks(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    [0, 1, 2, 5, 6].into_iter().map(|field| ticks.get(field)).sum()
}

/// Tells this machine, in this boot, from others.
pub(super) fn machine() -> io::Result<u64> {
    Ok(fnv1a(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::busy_ticks;

    #[test]
    fn waiting_is_not_work() {
        let text = "cpu  100 20 3 4000 500 6 7 8000 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(busy_ticks(text), Some(100 + 20 + 3 + 6 + 7));
        assert_eq!(busy_ticks("intr 1"), None);
    }
}
