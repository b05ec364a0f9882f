//! Builds the BPF object of `netmanager-ebpf`: for `netmanager/build.rs`, which embeds it, and for `cargo xtask`.
//!
//! Cargo cannot yet build one crate of a workspace with another compiler for another target, so this runs a
//! cargo of its own inside the outer one. Three things make that safe:
//!
//! * it has its own target directory ([`target_dir`]), because the outer cargo holds the lock of its own
//!   while build scripts run;
//! * it sees nothing of the outer cargo's environment ([`environment`]), which would otherwise select the
//!   wrong compiler, wrap it in clippy, or add flags meant for the host;
//! * it never writes `Cargo.lock` (`--locked`), so both cargos agree on every version.
//!
//! Only `std` is used: this is compiled before everything else in each clean build.

mod environment;
mod error;
mod linker;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use error::Error;
pub use linker::Linker;
pub use toolchain::Toolchain;

/// The package that holds the programs; also the name of its binary.
pub const PACKAGE: &str = "netmanager-ebpf";

/// Little endian, as every machine that Hypha runs on.
pub const TARGET: &str = "bpfel-unknown-none";

/// The profile in the workspace's `Cargo.toml`.
const PROFILE: &str = "bpf";

/// What is needed to build the object, found on this machine.
#[derive(Debug)]
pub struct Builder {
    workspace: PathBuf,
    toolchain: Toolchain,
    linker: Linker,
}

impl Builder {
    /// Looks for compiler and linker. The error says in one line how to get what is missing.
    pub fn find(workspace: &Path) -> Result<Self, Error> {
        Ok(Self {
            workspace: workspace.to_owned(),
            toolchain: Toolchain::find()?,
            linker: Linker::find(workspace)?,
        })
    }

    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    pub fn linker(&self) -> &Linker {
        &self.linker
    }

    /// Builds the object, or finds that it is still fresh, and returns where it lies.
    pub fn build(&self) -> Result<PathBuf, Error> {
        self.run("build")?;
        let object = target_dir(&self.workspace).join(TARGET).join(PROFILE).join(PACKAGE);
        if object.is_file() { Ok(object) } else { Err(Error::NoObject { path: object }) }
    }

    /// Type-checks the kernel side without making code.
    pub fn check(&self) -> Result<(), Error> {
        self.run("check")
    }

    /// Everything whose change makes the object stale, for cargo's `rerun-if-changed`.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let sources = [
            "Cargo.lock",
            "Cargo.toml",
            "netmanager-common/Cargo.toml",
            "netmanager-common/src",
            "netmanager-ebpf/Cargo.toml",
            "netmanager-ebpf/build.rs",
            "netmanager-ebpf/src",
        ];
        let sources = sources.iter().map(|path| self.workspace.join(path));
        sources.chain([self.toolchain.rustc().to_owned(), self.linker.path().to_owned()]).collect()
    }

    fn run(&self, subcommand: &'static str) -> Result<(), Error> {
        let mut command = self.cargo(subcommand);
        let status = command
            .status()
            .map_err(|source| Error::Start { program: self.toolchain.cargo().to_owned(), source })?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Failed { subcommand, status, toolchain: self.toolchain.to_string() })
        }
    }

    fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.toolchain.cargo());
        environment::scrub(&mut command);
        self.toolchain.configure(&mut command);
        command
            .current_dir(&self.workspace)
            .arg(subcommand)
            .args(["--locked", "--package", PACKAGE, "--bin", PACKAGE])
            .args(["--profile", PROFILE, "--target", TARGET])
            .args(self.toolchain.cargo_arguments())
            .env("CARGO_TARGET_DIR", target_dir(&self.workspace))
            .env("CARGO_ENCODED_RUSTFLAGS", self.linker.rustflags())
            .env(linker::VARIABLE, self.linker.path());
        command
    }
}

/// Where the inner cargo keeps its files: `bpf` inside of the workspace's target directory.
fn target_dir(workspace: &Path) -> PathBuf {
    let outer = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace.join(outer).join("bpf")
}
