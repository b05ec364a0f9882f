//! The machine under a lab: what it must have, what earlier labs left on it, and that it carries one lab at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};

use crate::cgroup::{self, HYPHA};
use crate::netns::{self, require_root};
use crate::process;
use crate::wait::eventually;

const FOLDERS: &str = "/tmp";
const FOLDER_PREFIX: &str = "hypha-";
const LOCK: &str = "/run/hypha-lab.lock";
const BPFFS: &str = "/sys/fs/bpf";

/// The parent of each worker's `--bpffs` folder; its name tells the lab's process, as the names of namespaces do.
const PINS_PREFIX: &str = "hypha-lab-";

/// The right to run labs on this machine, one after the other. Others wait until it is dropped, because the nodes of
/// two labs would share control groups.
#[derive(Debug)]
pub struct Machine {
    _lock: Flock<File>,
}

impl Machine {
    /// Waits until no other process has it, telling `progress` when that takes time. Then removes what labs have left
    /// that were killed before they could clean up, and mounts the BPF file system where every distribution's init
    /// mounts it (a container or a minimal machine may not have it). That mount stays.
    pub fn reserve(mut progress: impl FnMut(&str)) -> Result<Self> {
        require_root()?;
        let file = File::create(LOCK).with_context(|| format!("make {LOCK}"))?;
        let mut told = false;
        let lock = eventually(Duration::from_secs(600), "another lab on this machine to end", || {
            let file = file.try_clone().map_err(|error| error.to_string())?;
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
                if !told {
                    progress("waiting for another lab on this machine to end");
                    told = true;
                }
                format!("{LOCK}: {errno}")
            })
        })?;
        prepare()?;
        Ok(Self { _lock: lock })
    }
}

/// What a lab, or a part of one, finds on a machine: nothing of earlier ones that were killed, and the BPF file system.
pub fn prepare() -> Result<()> {
    mount_bpffs()?;
    remove_stale()
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails, as it should, where a real node runs on this machine.
        cgroup::remove(HYPHA);
    }
}

/// The folder of a lab's logs, state and sockets. Removed when it is dropped, unless `HYPHA_LAB_KEEP` is set.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn make() -> Result<Self> {
        let path = Path::new(FOLDERS).join(format!("{FOLDER_PREFIX}{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("HYPHA_LAB_KEEP").is_none() {
            fs::remove_dir_all(&self.0).ok();
        }
        // `netmanager cleanup` has emptied it, unless something failed.
        fs::remove_dir_all(pins()).ok();
    }
}

/// Where this process' data planes are pinned.
#[must_use]
pub fn pins() -> PathBuf {
    Path::new(BPFFS).join(format!("{PINS_PREFIX}{}", std::process::id()))
}

/// The folders of all labs, of this process and of others.
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    marked(FOLDERS, FOLDER_PREFIX).into_iter().map(|(path, _)| path).collect()
}

fn remove_stale() -> Result<()> {
    netns::remove_stale()?;
    for (directory, prefix) in [(FOLDERS, FOLDER_PREFIX), (BPFFS, PINS_PREFIX)] {
        for (path, owner) in marked(directory, prefix) {
            if !process::is_alive(owner) {
                fs::remove_dir_all(&path).with_context(|| format!("remove the stale {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// What is in `directory` under the prefix and the number of a process, and that number.
fn marked(directory: &str, prefix: &str) -> Vec<(PathBuf, u32)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let owner = entry.file_name().to_string_lossy().strip_prefix(prefix)?.parse().ok()?;
            Some((entry.path(), owner))
        })
        .collect()
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {BPFFS}"))?;
    }
    ensure!(Path::new(BPFFS).is_dir(), "{BPFFS} is not there");
    Ok(())
}
