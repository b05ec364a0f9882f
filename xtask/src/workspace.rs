//! Where things lie in the repository.

use std::path::PathBuf;

/// The directory of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target)
}

/// Where [`crate::setup`] installs tools of cargo. Not the user's `~/.cargo/bin`, where another project may
/// rely on another version.
pub(crate) fn tools() -> PathBuf {
    root().join("target/tools")
}

/// The selection of packages for every cargo that builds for the host.
///
/// It is always the same one: cargo unifies the features of what is selected together, so each other selection
/// would compile some dependencies once more.
pub(crate) const SELECTION: [&str; 3] = ["--workspace", "--exclude", netmanager_ebpf_builder::PACKAGE];
