//! The file system in which the data plane is pinned.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Where the kernel's BPF file system belongs.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    #[error("mount the BPF file system at {MOUNT_POINT} (root is needed)")]
    Mount(#[source] io::Error),
    #[error("--bpffs {0} is not in a BPF file system; choose a directory under {MOUNT_POINT}")]
    Elsewhere(PathBuf),
}

/// Mounts the BPF file system where it belongs, if `dir` lies there and nobody has done it.
///
/// # Errors
/// When it cannot be mounted, or `dir` is in another file system.
pub fn ensure(dir: &Path) -> Result<(), BpffsError> {
    if is_bpffs(dir) {
        return Ok(());
    }
    if !can_be_mounted(dir) {
        return Err(BpffsError::Elsewhere(dir.to_owned()));
    }
    let failed = |error: io::Error| BpffsError::Mount(error);
    fs::create_dir_all(MOUNT_POINT).map_err(failed)?;
    mount(Some("bpf"), MOUNT_POINT, Some("bpf"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| failed(errno.into()))?;
    tracing::info!(at = MOUNT_POINT, "mounted the BPF file system");
    Ok(())
}

/// Whether `dir`, which is in no BPF file system, would be in one if that were mounted where it belongs.
#[must_use]
pub fn can_be_mounted(dir: &Path) -> bool {
    dir.starts_with(MOUNT_POINT) && !is_bpffs(Path::new(MOUNT_POINT))
}

/// Whether `path`, or what there is of it, lies in a BPF file system.
#[must_use]
pub fn is_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    existing.is_some_and(|path| statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC))
}
