use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why there is no BPF object. Each message is one line that says what to do.
#[derive(Debug)]
pub enum Error {
    /// Neither of the two supported compilers is installed.
    NoToolchain,
    /// The compiler is there, the linker is not.
    NoLinker,
    /// A program that was found does not run.
    Start { program: PathBuf, source: io::Error },
    /// The inner cargo has said on standard error what is wrong.
    Failed { subcommand: &'static str, status: ExitStatus, toolchain: String },
    /// Cargo reported success without leaving the file.
    NoObject { path: PathBuf },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToolchain => f.write_str(
                "no compiler for the BPF target: run `cargo xtask setup`, or install Debian's rustc-web, \
                 cargo-web and libstd-rust-web-dev-bpf, or elsewhere `rustup toolchain install nightly \
                 --component rust-src`",
            ),
            Self::NoLinker => f.write_str(
                "no bpf-linker: run `cargo xtask setup`, or install it with cargo for the LLVM of the compiler",
            ),
            Self::Start { program, source } => write!(f, "cannot run {}: {source}", program.display()),
            Self::Failed { subcommand, status, toolchain } => {
                write!(f, "cargo {subcommand} of netmanager-ebpf with {toolchain} failed ({status}), see above")
            }
            Self::NoObject { path } => write!(f, "cargo made no BPF object at {}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start { source, .. } => Some(source),
            _ => None,
        }
    }
}
