//! Builds the kernel side and hands its path to `include_bytes!` as `HYPHA_EBPF_OBJECT`.
//!
//! The object is built by whatever builds netmanager, so it is never older than the sources beside it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use netmanager_ebpf_builder::{Builder, PACKAGE};

/// Another object to embed, for tests.
const PROBED: &str = "HYPHA_PROBED_OBJECT";

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo:error={error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("netmanager is not inside a workspace")?;
    let builder = Builder::find(workspace)?;
    for input in builder.inputs() {
        println!("cargo:rerun-if-changed={}", input.display());
    }
    let embedded = Path::new(&std::env::var("OUT_DIR")?).join(PACKAGE);
    // `cargo xtask coverage` gives one that leaves marks where it ran.
    println!("cargo:rerun-if-env-changed={PROBED}");
    let object = std::env::var_os(PROBED).map_or_else(|| builder.build(), |probed| Ok(probed.into()))?;
    std::fs::copy(object, &embedded)?;
    println!("cargo:rustc-env=HYPHA_EBPF_OBJECT={}", embedded.display());
    if std::env::var("PROFILE")? == "release" && std::env::var("TARGET")? == "x86_64-unknown-linux-gnu" {
        // The daemon's task is compiled once for each data plane. What came out the same is kept once: 2 MB less. There the
        // linker that comes with Rust does it; other targets have others, which may not know this.
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
    Ok(())
}
