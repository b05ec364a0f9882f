//! Compiler and linker of the kernel side.
//!
//! Two ways lead to them. Debian has a compiler with a prebuilt `core` for BPF, and the LLVM it was built with,
//! for which the linker is built here. Where a distribution lacks these, rustup's nightly builds `core` along,
//! and the linker is the binary that its project publishes, which carries an LLVM new enough for it.

use anyhow::{Context, Result, bail};
use netmanager_ebpf_builder::{Linker, Toolchain};

use super::apt;
use super::cargo::Tool;
use crate::process::{self, Process};
use crate::progress::say;
use crate::workspace;

pub(crate) const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// What LLVM's own build was configured with, and what its linking therefore asks for.
const LIBRARIES: [&str; 3] = ["zlib1g-dev", "libzstd-dev", "libxml2-dev"];

static BPF_LINKER: Tool = Tool { name: "bpf-linker", version: "0.13.0" };

pub(crate) const BY_HAND: &str = "rustup toolchain install nightly --profile minimal --component rust-src";

pub(crate) const LINKER_BY_HAND: &str = "the binary 0.13.0 from https://github.com/aya-rs/bpf-linker/releases, unpacked into a directory of the PATH";

pub(crate) fn is_there() -> bool {
    Toolchain::find().is_ok()
}

pub(crate) fn linker_is_there() -> bool {
    Linker::find(&workspace::root())
        .is_ok_and(|linker| Process::new(linker.path()).arg("--version").succeeds())
}

pub(crate) fn install() -> Result<()> {
    if apt::has_all(&PACKAGES) {
        return apt::install(&PACKAGES);
    }
    say(format_args!("    this distribution has no {}: taking rustup's nightly", PACKAGES.join(", ")));
    if process::find("rustup").is_none() {
        bail!("rustup is not there: see https://rustup.rs, then `{BY_HAND}`");
    }
    Process::new("rustup")
        .args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"])
        .run_quietly()
}

/// The linker has to read what the compiler writes. Where the distribution has a compiler, the two are got as a pair
/// that is known to fit, even if a nightly would have done for the compiler.
pub(crate) fn install_linker() -> Result<()> {
    if !Toolchain::find()?.is_of_distribution() && apt::has_all(&PACKAGES) {
        say(format_args!("    apt: {}", PACKAGES.join(" ")));
        apt::install(&PACKAGES)?;
    }
    let toolchain = Toolchain::find()?;
    if toolchain.is_of_distribution() {
        build_linker(&llvm_version(&toolchain)?)
    } else {
        download_linker().with_context(|| format!("cannot fetch it (by hand: {LINKER_BY_HAND})"))
    }
}

/// The linker reads the compiler's bitcode, so it has to be built with the same LLVM.
fn build_linker(llvm: &str) -> Result<()> {
    let packages = [&format!("llvm-{llvm}-dev"), &format!("libpolly-{llvm}-dev")];
    let packages: Vec<_> = packages.into_iter().map(String::as_str).chain(LIBRARIES).collect();
    say(format_args!("    apt: {}", packages.join(" ")));
    apt::install(&packages)?;
    let features = ["--no-default-features", "--features", &format!("llvm-{llvm}")];
    // Without this it takes the first llvm-config on the PATH, of whatever version.
    BPF_LINKER.install(&features, &[("LLVM_PREFIX", &format!("/usr/lib/llvm-{llvm}"))])
}

fn download_linker() -> Result<()> {
    let missing: Vec<_> =
        ["curl", "zstd"].into_iter().filter(|program| process::find(program).is_none()).collect();
    if !missing.is_empty() {
        apt::install(&missing)?;
    }
    let archive = format!(
        "https://github.com/aya-rs/bpf-linker/releases/download/v{}/bpf-linker-{}-unknown-linux-musl.tar.zst",
        BPF_LINKER.version,
        std::env::consts::ARCH,
    );
    say(format_args!("    {archive}"));
    let directory = workspace::tools().join("bin");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let unpack = r#"set -e; curl -fsSL "$1" >"$2.zst"; tar --zstd -xf "$2.zst" -C "$3"; rm "$2.zst""#;
    let temporary = directory.join("bpf-linker.tar");
    Process::new("sh")
        .args(["-c", unpack, "sh", &archive])
        .arg(temporary)
        .arg(directory)
        .shown_as(format!("curl -fsSL {archive} | tar --zstd -x"))
        .run_quietly()
}

/// The major version of the LLVM inside a compiler.
fn llvm_version(toolchain: &Toolchain) -> Result<String> {
    let answer = Process::new(toolchain.rustc()).arg("-vV").read()?;
    major_version(&answer).context("rustc -vV names no LLVM version").map(str::to_owned)
}

fn major_version(answer: &str) -> Option<&str> {
    answer.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn llvm_is_read_from_the_compilers_answer() {
        assert_eq!(major_version("rustc 1.96.0\nhost: x86_64\nLLVM version: 22.1.8\n"), Some("22"));
        assert_eq!(major_version("rustc 1.96.0\n"), None);
    }
}
