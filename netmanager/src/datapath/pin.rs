//! Where things are pinned.
//!
//! ```text
//! <pin_dir>/abi-2/NODE, ENDPOINTS, ...   the tables of this ABI version
//! <pin_dir>/abi-2/since-1                an empty directory: their rows are as in version 1, for a downgrade to that
//! <pin_dir>/links/ingress-7              the attachment at the ingress of interface 7 (tcx; clsact needs no pin)
//! <pin_dir>/links/xdp-7                  the attachment in the driver of interface 7
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netmanager_common::ABI_VERSION;
use netmanager_common::map::{NODE, ROUTING_SINCE};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::DatapathError;

const TABLES_PREFIX: &str = "abi-";
const SINCE_PREFIX: &str = "since-";
const LINK_PREFIX: &str = "ingress-";
const XDP_PREFIX: &str = "xdp-";

/// The directory that everything is pinned under.
#[derive(Debug, Clone)]
pub(super) struct PinDir(PathBuf);

impl PinDir {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The tables of the ABI version that this binary has been built with.
    pub(super) fn tables(&self) -> PathBuf {
        self.tables_of(ABI_VERSION)
    }

    pub(super) fn tables_of(&self, version: u32) -> PathBuf {
        self.0.join(format!("{TABLES_PREFIX}{version}"))
    }

    /// The other ABI versions that there are tables of.
    pub(super) fn other_versions(&self) -> Result<Vec<u32>, DatapathError> {
        let names = names_in(&self.0)?;
        let versions = names.iter().filter_map(|name| name.strip_prefix(TABLES_PREFIX)?.parse().ok());
        Ok(versions.filter(|version| *version != ABI_VERSION).collect())
    }

    /// Since which version that one's rows are as they are; nothing if it does not say.
    pub(super) fn rows_since(&self, version: u32) -> Option<u32> {
        let names = names_in(&self.tables_of(version)).ok()?;
        names.iter().find_map(|name| name.strip_prefix(SINCE_PREFIX)?.parse().ok())
    }

    /// Removes the tables of our own version, if there are any.
    pub(super) fn remove_own_tables(&self) -> Result<(), DatapathError> {
        let path = self.tables();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{LINK_PREFIX}{ifindex}"))
    }

    pub(super) fn xdp_link(&self, ifindex: u32) -> PathBuf {
        self.links().join(format!("{XDP_PREFIX}{ifindex}"))
    }

    /// The interfaces that have a pinned attachment at their ingress.
    pub(super) fn linked_interfaces(&self) -> Result<Vec<u32>, DatapathError> {
        self.interfaces_with(LINK_PREFIX)
    }

    /// The interfaces that have a pinned attachment in their driver.
    pub(super) fn xdp_interfaces(&self) -> Result<Vec<u32>, DatapathError> {
        self.interfaces_with(XDP_PREFIX)
    }

    fn interfaces_with(&self, prefix: &str) -> Result<Vec<u32>, DatapathError> {
        let names = names_in(&self.links())?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect())
    }

    /// Whether the tables are where they were pinned.
    pub(super) fn has_tables(&self) -> bool {
        self.tables().join(NODE).exists()
    }

    fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    /// Makes the directories.
    pub(super) fn create(&self) -> Result<(), DatapathError> {
        self.check()?;
        let since = self.tables().join(format!("{SINCE_PREFIX}{ROUTING_SINCE}"));
        for path in [since, self.links()] {
            fs::create_dir_all(&path).map_err(at("make", &path))?;
        }
        Ok(())
    }

    /// Removes the tables of other ABI versions. Programs that still run keep theirs without a name.
    pub(super) fn remove_other_versions(&self) -> Result<(), DatapathError> {
        let current = self.tables();
        for name in names_in(&self.0)? {
            let path = self.0.join(&name);
            if name.starts_with(TABLES_PREFIX) && path != current {
                fs::remove_dir_all(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes everything, and the directory itself. A link that is no longer pinned is detached.
    pub(super) fn remove(&self) -> Result<(), DatapathError> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", &self.0)(error)),
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<(), DatapathError> {
        let mut existing = self.0.as_path();
        while !existing.exists() {
            let Some(parent) = existing.parent() else { break };
            existing = parent;
        }
        let file_system =
            statfs(existing).map_err(|errno| at("look at the file system of", existing)(errno.into()))?;
        if file_system.filesystem_type() != BPF_FS_MAGIC {
            return Err(DatapathError::NotBpffs { path: self.0.clone() });
        }
        let new = self.0.strip_prefix(existing).unwrap_or(&self.0);
        if new.as_os_str().as_encoded_bytes().contains(&b'.') {
            return Err(DatapathError::DottedPinDirectory { path: self.0.clone() });
        }
        Ok(())
    }
}

/// Names in a directory; none if it is not there.
fn names_in(directory: &Path) -> Result<Vec<String>, DatapathError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at("read", directory)(error)),
    };
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(at("read", directory))
}

/// Completes an input or output error with what was being done to which path.
pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DatapathError {
    let path = path.to_owned();
    move |source| DatapathError::PinDirectory { action, path, source }
}
