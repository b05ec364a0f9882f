//! What the numbers were taken on.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::process;
use netmanager::bench::busy_seconds;
use serde::{Deserialize, Serialize};

/// How long the machine is watched before anything is measured.
const WATCH: Duration = Duration::from_secs(1);
/// What others may use of the machine: a part of all CPUs.
const IDLE: f64 = 0.05;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) architecture: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mb: u64,
    /// The part of all CPUs that others used before anything was measured.
    pub(crate) busy_before: f64,
}

impl Machine {
    /// Takes a second.
    pub(crate) fn look() -> Result<Self> {
        let uname = nix::sys::utsname::uname().context("ask for the kernel's version")?;
        let text = |it: &std::ffi::OsStr| it.to_string_lossy().into_owned();
        let cpus = thread::available_parallelism().context("count CPUs")?.get();
        let before = busy_seconds()?;
        thread::sleep(WATCH);
        #[expect(clippy::cast_precision_loss, reason = "a count of CPUs")]
        let busy_before = (busy_seconds()? - before) / WATCH.as_secs_f64() / cpus as f64;
        Ok(Self {
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            architecture: text(uname.machine()),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cpus,
            memory_mb: field("/proc/meminfo", "MemTotal")
                .and_then(|total| total.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kilobytes| kilobytes / 1024),
            busy_before,
        })
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.busy_before <= IDLE
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let Self { kernel, architecture, cpu, cpus, memory_mb, .. } = self;
        format!("{kernel} {architecture}, {cpus} CPUs ({cpu}), {} GB", memory_mb.div_ceil(1024))
    }
}

/// The value of the first line `name : value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

/// In UTC, as in `2026-01-31T12:00:00Z`.
pub(crate) fn now() -> Result<String> {
    let text = process::output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(text.trim().to_owned())
}

/// Of the source that this program was built from, as far as that is still there.
pub(crate) fn commit() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut git = Command::new("git");
    git.current_dir(source).args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    process::output(&mut git).map_or_else(|_no_git| "unknown".to_owned(), |text| text.trim().to_owned())
}
