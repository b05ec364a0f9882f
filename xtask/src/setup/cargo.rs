//! Tools that come from crates.io, and parts of the Rust toolchain.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{self, Process};
use crate::workspace;

/// A program of crates.io. A newer one than this will do as well.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

pub(crate) static CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

// === impl Tool ===

impl Tool {
    /// Ours first, then the user's.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let ours = workspace::tools().join("bin").join(self.name);
        [Some(ours), process::find(self.name)].into_iter().flatten().find(|path| self.is_served_by(path))
    }

    fn is_served_by(&self, path: &PathBuf) -> bool {
        let Ok(answer) = Process::new(path).arg("--version").read() else { return false };
        let version = answer.split_whitespace().nth(1).and_then(numbers);
        version.is_some() && version >= numbers(self.version)
    }

    /// Builds the tool, in a third of the time that the optimiser would take. None of them works long enough to
    /// be worth that: the linker's time is spent in LLVM.
    pub(crate) fn install(&self, features: &[&str], environment: &[(&str, &str)]) -> Result<()> {
        let install = Process::cargo()
            .args(["install", "--locked", "--quiet", "--profile", "dev", "--root"])
            .arg(workspace::tools())
            .arg(format!("{}@{}", self.name, self.version))
            .args(features)
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        environment.iter().fold(install, |install, (name, value)| install.env(name, value)).run()
    }
}

/// Whether cargo has the subcommand; rustup leaves a proxy on the PATH for each one that it could have.
pub(crate) fn has_component(subcommand: &str) -> bool {
    Process::cargo().args([subcommand, "--version"]).succeeds()
}

pub(crate) fn add_component(name: &str) -> Result<()> {
    Process::new("rustup").args(["component", "add", name]).run_quietly()
}

fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(numbers("0.20.2") > numbers("0.9.10"));
        assert!(numbers("1.0.0") > numbers("0.20.2"));
        assert_eq!(numbers("0.21.0-rc1"), None);
    }
}
