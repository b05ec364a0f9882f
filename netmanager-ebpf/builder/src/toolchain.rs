//! The compiler for the kernel side.
//!
//! Rust's BPF target comes without a prebuilt `core`. Debian ships one beside a stable compiler; everywhere
//! else a nightly compiler builds it from `rust-src`.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, TARGET};

/// A pair of cargo and rustc that can make code for [`TARGET`].
#[derive(Debug)]
pub struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    core: Core,
}

/// Where `core` for the BPF target comes from.
#[derive(Debug)]
enum Core {
    /// Prebuilt, of the distribution.
    Distribution,
    /// Built along from the sources of a nightly compiler.
    Nightly,
}

impl Toolchain {
    /// The distribution's first: it needs no second build of `core` and changes less often than a nightly.
    pub fn find() -> Result<Self, Error> {
        Self::distribution().or_else(Self::nightly).ok_or(Error::NoToolchain)
    }

    fn distribution() -> Option<Self> {
        let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
        if !cargo.is_file() || !rustc.is_file() {
            return None;
        }
        let libraries =
            first_line(Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
        let has_core = std::fs::read_dir(libraries).ok()?.flatten().any(|entry| is_core(&entry.file_name()));
        has_core.then_some(Self { cargo, rustc, core: Core::Distribution })
    }

    fn nightly() -> Option<Self> {
        let mut rustup = Command::new("rustup");
        rustup.args(["run", "nightly", "rustc", "--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN");
        let sysroot = PathBuf::from(first_line(&mut rustup)?);
        let sources = sysroot.join("lib/rustlib/src/rust/library/core");
        sources.is_dir().then(|| Self {
            cargo: sysroot.join("bin/cargo"),
            rustc: sysroot.join("bin/rustc"),
            core: Core::Nightly,
        })
    }

    /// Whether the distribution made it, with the libraries that it was built with.
    pub fn is_of_distribution(&self) -> bool {
        matches!(self.core, Core::Distribution)
    }

    pub fn cargo(&self) -> &Path {
        &self.cargo
    }

    pub fn rustc(&self) -> &Path {
        &self.rustc
    }

    /// The BPF target is unstable everywhere: a stable compiler has to be told that this is known.
    pub(crate) fn configure(&self, command: &mut Command) {
        command.env("RUSTC", &self.rustc);
        if let Core::Distribution = self.core {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
    }

    pub(crate) fn cargo_arguments(&self) -> &'static [&'static str] {
        match self.core {
            Core::Distribution => &[],
            Core::Nightly => &["-Z", "build-std=core"],
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.core {
            Core::Distribution => "the distribution's compiler",
            Core::Nightly => "rustup's nightly",
        };
        write!(f, "{kind} ({})", self.rustc.display())
    }
}

fn is_core(file_name: &OsStr) -> bool {
    file_name.to_str().is_some_and(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
}

/// What a program prints first, or nothing when it is not there or fails.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}
