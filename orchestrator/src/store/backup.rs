//! A store as a single file to be put away, and put in place of another one.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::file::{LAYOUT, damage, layout};

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no store {0}")]
    Absent(PathBuf),
    #[error("{0} exists already, and is not written over")]
    Exists(PathBuf),
    #[error("{0} is a database, but no store of an orchestrator")]
    Foreign(PathBuf),
    #[error("write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("copy {from} to {to}")]
    Copy { from: PathBuf, to: PathBuf, source: rusqlite::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Copies the store `from`, as it is at one moment, into the new file `to`, readable by its owner only. The store may be in
/// use meanwhile.
///
/// # Errors
/// When there is no store, or a damaged one; when there is something at `to` already, or it cannot be written. Then nothing
/// is left there.
pub fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    if !from.is_file() {
        return Err(BackupError::Absent(from.to_owned()));
    }
    let connection = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|source| StoreError::Open { path: from.to_owned(), source })?;
    let found = layout(&connection, from)?;
    if found == 0 {
        return Err(BackupError::Foreign(from.to_owned()));
    }
    if found > LAYOUT {
        return Err(StoreError::Newer { path: from.to_owned(), found, known: LAYOUT }.into());
    }
    damage(&connection, from)?;
    // SQLite would make it with the umask's mode.
    let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to);
    let made = made.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => BackupError::Exists(to.to_owned()),
        _ => BackupError::Write { path: to.to_owned(), source },
    })?;
    let copied = match to.to_str() {
        Some(path) => connection.execute("VACUUM INTO ?1", [path]).map(drop),
        None => Err(rusqlite::Error::InvalidPath(to.to_owned())),
    };
    let copied = copied
        .map_err(|source| BackupError::Copy { from: from.to_owned(), to: to.to_owned(), source })
        .and_then(|()| made.sync_all().map_err(|source| BackupError::Write { path: to.to_owned(), source }));
    if copied.is_err() {
        let _nothing_to_remove = fs::remove_file(to);
    }
    copied
}

/// Puts a copy of the store `from` at `to`. What is there goes to `<to>.replaced`, in place of what was put there before.
/// Nobody may use `to` meanwhile. A crash leaves either store, whole.
///
/// # Errors
/// As [`copy`]; and when files cannot be renamed.
pub fn replace(from: &Path, to: &Path) -> Result<(), BackupError> {
    let beside = |suffix: &str| {
        let mut path = to.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    };
    let new = beside(".new");
    remove(&new)?;
    copy(from, &new)?;
    let kept = beside(".replaced");
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| BackupError::Write { path, source }
    };
    for suffix in ["", "-wal", "-shm"] {
        remove(&beside(&format!(".replaced{suffix}")))?;
    }
    if to.exists() {
        fs::hard_link(to, &kept).map_err(failed(&kept))?;
    }
    // Its log is of the old one, and would be taken for the new one's.
    for suffix in ["-wal", "-shm"] {
        let log = beside(suffix);
        if log.exists() {
            fs::rename(&log, beside(&format!(".replaced{suffix}"))).map_err(failed(&log))?;
        }
    }
    fs::rename(&new, to).map_err(failed(to))?;
    let directory = to.parent().unwrap_or(Path::new("."));
    fs::File::open(directory).and_then(|it| it.sync_all()).map_err(failed(directory))
}

/// What is not there is removed already.
fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(BackupError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::Store;
    use super::{BackupError, copy, replace};

    #[tokio::test]
    async fn a_store_in_use_is_copied_as_it_is_and_put_back_in_place_of_what_came_after() {
        let dir = tempfile::tempdir().unwrap();
        let (path, backup) = (dir.path().join("state.db"), dir.path().join("backup.db"));
        let store = Store::open(&path).unwrap();
        store.put("a", &1_u32).await.unwrap();
        copy(&path, &backup).unwrap();
        assert_eq!(std::fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
        store.put("a", &2_u32).await.unwrap();
        store.put("b", &3_u32).await.unwrap();
        drop(store);

        for _twice in 0..2 {
            replace(&backup, &path).unwrap();
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.get::<u32>("a").await.unwrap().unwrap().value, 1);
        assert!(store.get::<u32>("b").await.unwrap().is_none());
        assert!(dir.path().join("state.db.replaced").is_file());
    }

    #[tokio::test]
    async fn what_is_replaced_can_be_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (name, value) in [("state.db", 1_u32), ("other.db", 2)] {
            Store::open(&path(name)).unwrap().put("a", &value).await.unwrap();
        }
        replace(&path("other.db"), &path("state.db")).unwrap();
        std::fs::rename(path("state.db.replaced"), path("kept.db")).unwrap();
        if path("state.db.replaced-wal").exists() {
            std::fs::rename(path("state.db.replaced-wal"), path("kept.db-wal")).unwrap();
        }
        replace(&path("kept.db"), &path("state.db")).unwrap();
        let store = Store::open(&path("state.db")).unwrap();
        assert_eq!(store.get::<u32>("a").await.unwrap().unwrap().value, 1);
    }

    #[test]
    fn what_is_no_store_is_not_copied_and_nothing_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(matches!(copy(&path("none.db"), &path("copy.db")), Err(BackupError::Absent(_))));
        assert!(!path("none.db").exists());
        std::fs::write(path("text.db"), "this is not a database, and long enough to be told so").unwrap();
        let error = copy(&path("text.db"), &path("copy.db")).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
        rusqlite::Connection::open(path("foreign.db")).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(copy(&path("foreign.db"), &path("copy.db")), Err(BackupError::Foreign(_))));
        assert!(!path("copy.db").exists());
        drop(Store::open(&path("state.db")).unwrap());
        assert!(matches!(copy(&path("state.db"), &path("text.db")), Err(BackupError::Exists(_))));
        assert!(replace(&path("text.db"), &path("state.db")).is_err());
        drop(Store::open(&path("state.db")).unwrap());
    }
}
