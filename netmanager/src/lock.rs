//! One daemon per state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The file that is locked; it holds the pid of its holder.
pub const FILE: &str = "lock";

/// The state directory is ours as long as this value lives, whatever way the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "another netmanager (pid {pid}) uses the state directory {dir}; stop it first, or give this one a --state-dir of its own"
    )]
    Held { dir: PathBuf, pid: String },
    #[error("lock {path}")]
    Io { path: PathBuf, source: io::Error },
}

impl Lock {
    /// The pid of the process that has the directory, if there is one.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn holder(dir: &Path) -> Result<Option<String>, LockError> {
        let path = dir.join(FILE);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LockError::Io { path, source }),
        };
        let pid = read_pid(&mut file).map_err(|source| LockError::Io { path, source })?;
        // A shared lock is refused only while somebody has the exclusive one.
        Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err().then_some(pid))
    }

    /// # Errors
    /// When another process has the directory, or the file cannot be made.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(FILE);
        let fail = |source| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let pid = read_pid(&mut file).map_err(fail)?;
                return Err(LockError::Held { dir: dir.to_owned(), pid });
            }
            Err((_, errno)) => return Err(fail(errno.into())),
        };
        let mut note = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        note().map_err(fail)?;
        Ok(Self { _file: file })
    }
}

/// It is written after the lock is taken, so it may not be there yet.
fn read_pid(file: &mut File) -> io::Result<String> {
    let mut pid = String::new();
    file.read_to_string(&mut pid)?;
    let pid = pid.trim();
    Ok(if pid.is_empty() { "unknown" } else { pid }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Lock, LockError};

    #[test]
    fn the_second_is_told_who_is_first_and_gets_it_after_him() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Lock::holder(dir.path()).unwrap(), None);
        let first = Lock::take(dir.path()).unwrap();
        assert_eq!(Lock::holder(dir.path()).unwrap(), Some(std::process::id().to_string()));
        match Lock::take(dir.path()) {
            Err(LockError::Held { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert_eq!(Lock::holder(dir.path()).unwrap(), None);
        Lock::take(dir.path()).unwrap();
    }
}
