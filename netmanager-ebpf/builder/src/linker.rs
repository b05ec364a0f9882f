//! `bpf-linker`, which turns rustc's bitcode into one relocatable BPF object with BTF.

use std::path::{Path, PathBuf};

use crate::Error;

/// Tells `netmanager-ebpf/build.rs` which linker is in use.
pub(crate) const VARIABLE: &str = "HYPHA_BPF_LINKER";

/// A linker found on this machine.
#[derive(Debug)]
pub struct Linker {
    path: PathBuf,
}

impl Linker {
    /// Takes the workspace's own (`target/tools`, where `cargo xtask setup` puts it) before the user's.
    pub fn find(workspace: &Path) -> Result<Self, Error> {
        let path = tool_directories(workspace)
            .into_iter()
            .map(|directory| directory.join("bpf-linker"))
            .find(|candidate| candidate.is_file())
            .ok_or(Error::NoLinker)?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In the form of `CARGO_ENCODED_RUSTFLAGS`, where a path may hold spaces.
    pub(crate) fn rustflags(&self) -> String {
        format!("-Clinker={}\u{1f}-Clink-arg=--btf", self.path.display())
    }
}

/// Where programs installed by cargo may lie, most specific first.
fn tool_directories(workspace: &Path) -> Vec<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = vec![workspace.join("target/tools/bin")];
    directories.extend(cargo_home.map(|home| home.join("bin")));
    directories.extend(std::env::split_paths(&on_path));
    directories
}
