//! The directory that belongs to one daemon: its store, its secrets, and the lock that keeps a second one out.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::watch;

use crate::relay::{self, Door};
use crate::store::etcd::{Etcd, Leader, Leadership, Location, Secret};
use crate::store::{Store, StoreError};

/// An open data directory. The lock is held as long as this lives; the kernel drops it when the process ends, however
/// it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("create data directory {path} (--data-dir)")]
    Create { path: PathBuf, source: io::Error },
    #[error("open {path} (--data-dir)")]
    OpenLock { path: PathBuf, source: io::Error },
    #[error(
        "data directory {0} is in use by another orchestrator: stop that one, or give this one its own --data-dir"
    )]
    InUse(PathBuf),
    #[error("lock {path}")]
    Lock { path: PathBuf, source: Errno },
    #[error("open the store")]
    Store(#[from] StoreError),
    #[error("find out which port was given")]
    OwnAddress(#[source] io::Error),
}

/// The file of the store in a data directory.
#[must_use]
pub fn store_in(data_dir: &Path) -> PathBuf {
    data_dir.join("state.db")
}

impl DataDir {
    /// Opens the directory, made if need be readable by its owner only, and takes its lock.
    ///
    /// # Errors
    /// When it cannot be made or written, and when another process holds it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| DataDirError::Create { path: path.to_owned(), source })?;
        let lock_path = path.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| DataDirError::OpenLock { path: lock_path.clone(), source })?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err((_file, Errno::EWOULDBLOCK)) => Err(DataDirError::InUse(path.to_owned())),
            Err((_file, source)) => Err(DataDirError::Lock { path: lock_path, source }),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store of this directory, or `elsewhere`, as far as it is to be had without being the one that leads. `prefix` is that of
    /// the keys there if nothing else is said.
    ///
    /// # Errors
    /// When the file cannot be opened or is no store, or etcd is out of reach.
    pub(crate) async fn state(
        &self,
        elsewhere: Option<&Location>,
        prefix: &str,
    ) -> Result<State, DataDirError> {
        match elsewhere {
            None => Ok(State::Own(Store::open(&store_in(&self.path))?)),
            Some(location) => {
                let etcd = Box::new(Etcd::open(location, prefix).await?);
                Ok(State::Shared { etcd, location: location.clone() })
            }
        }
    }
}

/// Where the state of a daemon is.
pub(crate) enum State {
    /// In its data directory: nobody else has it.
    Own(Store),
    /// In an etcd, where other daemons may have the same.
    Shared { etcd: Box<Etcd>, location: Location },
}

impl State {
    /// Waits until no other daemon leads, and passes on to the one that does what comes to these doors.
    ///
    /// # Errors
    /// When etcd is out of reach.
    pub(crate) async fn lead(self, doors: &[&Door]) -> Result<(Store, Option<Leadership>), DataDirError> {
        let (etcd, location) = match self {
            Self::Own(store) => return Ok((store, None)),
            Self::Shared { etcd, location } => (etcd, location),
        };
        let host = nix::unistd::gethostname().unwrap_or_default();
        let name = format!("{}, process {}", host.to_string_lossy(), std::process::id());
        let reached = location.own_address().await;
        let at = doors.iter().map(|door| door.reached_at(reached)).collect::<io::Result<_>>();
        let at = at.map_err(DataDirError::OwnAddress)?;
        let own = Leader { name, at, secret: Secret::random() };
        if own.at.iter().any(|at| at.ip().is_loopback() || at.ip().is_unspecified()) {
            let at = &own.at;
            tracing::warn!(
                ?at,
                "others with the same store on other machines cannot reach this one there (--advertise)"
            );
        }
        let (tell, told) = watch::channel(None);
        let (store, leadership) = tokio::select! {
            led = etcd.lead(&own, &tell) => led?,
            never = relay::pass_on(doors, &told) => match never {},
        };
        // Whoever still waits is passed on to this one itself.
        tell.send_replace(Some(own));
        Ok((store, Some(leadership)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{DataDir, DataDirError};

    #[test]
    fn a_second_holder_is_kept_out_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(_))));
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[tokio::test]
    async fn nobody_else_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&dir.path().join("deep/root")).unwrap();
        let _store = data_dir.state(None, "").await.unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(data_dir.path().to_owned()), 0o700);
        assert_eq!(mode(data_dir.path().join("state.db")), 0o600);
    }
}
