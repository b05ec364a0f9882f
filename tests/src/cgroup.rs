//! The control groups of containers, which are not part of any namespace and so are common to all nodes of a lab.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The group of node-engine's containers; below it is a group for each node.
pub const HYPHA: &str = "hypha";

/// The groups below `group` and the group itself, in all hierarchies, from the innermost outwards.
#[must_use]
pub fn below(group: &str) -> Vec<PathBuf> {
    // The unified hierarchy is the root itself, the separate ones are folders in it.
    let hierarchies = directories(Path::new(ROOT)).into_iter().chain([PathBuf::from(ROOT)]);
    hierarchies.map(|hierarchy| hierarchy.join(group)).filter(|path| path.is_dir()).flat_map(tree).collect()
}

/// Removes `group` with all below it. What still has processes stays.
pub fn remove(group: &str) {
    for path in below(group) {
        fs::remove_dir(path).ok();
    }
}

fn tree(directory: PathBuf) -> Vec<PathBuf> {
    directories(&directory).into_iter().flat_map(tree).chain([directory.clone()]).collect()
}

fn directories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
