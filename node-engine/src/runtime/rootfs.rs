//! Reading a file of a root file system that is not mounted yet: straight from the directories a mount would join.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Longer than any honest `/etc/passwd`.
const FILE_MAX: u64 = 1 << 20;

/// The text of `path` (relative to the root) in the file system that `mounts` describe; `None` when there is no such
/// file.
///
/// # Errors
/// When a directory cannot be read.
pub(super) fn read(mounts: &[Mount], path: &Path) -> io::Result<Option<String>> {
    for directory in directories(mounts) {
        if let Some(text) = read_in(&directory, path)? {
            return Ok(text);
        }
    }
    Ok(None)
}

/// The directories to look in, the uppermost first.
fn directories(mounts: &[Mount]) -> Vec<PathBuf> {
    let Some(mount) = mounts.first() else { return Vec::new() };
    if mount.r#type != "overlay" {
        return vec![PathBuf::from(&mount.source)];
    }
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    let upper = option("upperdir=").into_iter();
    let lower = option("lowerdir=").unwrap_or_default().split(':').filter(|path| !path.is_empty());
    upper.chain(lower).map(PathBuf::from).collect()
}

/// The image decides what links its layers hold, so the path is resolved with `root` as the root: no link leads out
/// of it. The outer `None` says to look in the directory below, the inner one that the file is deleted here.
fn read_in(root: &Path, path: &Path) -> io::Result<Option<Option<String>>> {
    let root = match File::open(root) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(root.as_fd(), path, how) {
        Ok(file) => File::from(file),
        // An overlay's mark for a deleted file is a device without a driver.
        Err(Errno::ENXIO | Errno::ENODEV) => return Ok(Some(None)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() {
        return Ok(Some(None));
    }
    if !kind.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(Some(Some(String::from_utf8_lossy(&bytes).into_owned())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use containerd_client::types::Mount;

    use super::read;

    fn overlay(directory: &Path) -> Vec<Mount> {
        let option = |name: &str, path: &str| format!("{name}={}", directory.join(path).display());
        let lower = format!("{}:{}", option("lowerdir", "middle"), directory.join("low").display());
        vec![Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: vec!["index=off".to_owned(), option("upperdir", "up"), lower],
            ..Mount::default()
        }]
    }

    #[test]
    fn the_uppermost_file_counts_and_no_link_leads_out() {
        let directory = tempfile::tempdir().unwrap();
        for layer in ["up", "middle", "low"] {
            fs::create_dir_all(directory.path().join(layer).join("etc")).unwrap();
        }
        let mounts = overlay(directory.path());
        let passwd = Path::new("etc/passwd");
        assert_eq!(read(&mounts, passwd).unwrap(), None);
        fs::write(directory.path().join("low/etc/passwd"), "low").unwrap();
        assert_eq!(read(&mounts, passwd).unwrap().as_deref(), Some("low"));
        fs::write(directory.path().join("middle/etc/passwd"), "middle").unwrap();
        assert_eq!(read(&mounts, passwd).unwrap().as_deref(), Some("middle"));

        let secret = directory.path().join("secret");
        fs::write(&secret, "of the host").unwrap();
        std::os::unix::fs::symlink(&secret, directory.path().join("up/etc/passwd")).unwrap();
        assert_ne!(read(&mounts, passwd).unwrap().as_deref(), Some("of the host"));
    }
}
