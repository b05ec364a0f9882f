//! The state directory: which instances this worker is to run, kept so that a reboot with no cluster in reach can start
//! them again. Written on a change only; an idle worker writes nothing. Only its owner can read it: what a service is
//! told through its environment is often a secret.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use protocol::name::InstanceName;
use serde::{Deserialize, Serialize};

use crate::assignment::Assignment;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state directory {} is in use by another node-engine{holder}; give this one its own with --state-dir", .path.display())]
    InUse { path: PathBuf, holder: String },
    #[error("cannot {doing} {}", .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One instance that is to run, and since which boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub assignment: Assignment,
    pub boot_id: String,
}

/// The directory, held by this process alone.
#[derive(Debug)]
pub struct StateDir {
    instances: PathBuf,
    path: PathBuf,
    boot_id: String,
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory if need be, and locks it for as long as the value lives.
    ///
    /// # Errors
    /// [`StateError::InUse`] when another process holds it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| StateError::Io { doing, path, source }
        };
        let instances = path.join("instances");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&instances);
        made.map_err(io("make directory", &instances))?;
        let lock_path = path.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, errno)| {
            if errno != nix::errno::Errno::EWOULDBLOCK {
                return StateError::Io { doing: "lock", path: lock_path.clone(), source: errno.into() };
            }
            let mut holder = String::new();
            // Only to say which: the lock itself is what counts.
            let holder = match file.read_to_string(&mut holder) {
                Ok(_) if !holder.trim().is_empty() => format!(" (process {})", holder.trim()),
                _ => String::new(),
            };
            StateError::InUse { path: path.to_path_buf(), holder }
        })?;
        write_pid(&mut lock).map_err(io("write", &lock_path))?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(io("read", Path::new("/proc/sys/kernel/random/boot_id")))?;
        Ok(Self { instances, path: path.to_path_buf(), boot_id: boot_id.trim().to_owned(), _lock: lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// All records. One that cannot be read is reported and left out: it must not keep the others from running.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn load(&self) -> Result<Vec<Record>, StateError> {
        let io = |source| StateError::Io { doing: "read", path: self.instances.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.instances).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let record = fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
            match record {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "instance record is ignored");
                }
            }
        }
        Ok(records)
    }

    /// Records that the instance is to run. After a power cut the record is there whole, or not at all.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remember(&self, assignment: &Assignment) -> Result<(), StateError> {
        let record = Record { assignment: assignment.clone(), boot_id: self.boot_id.clone() };
        let path = self.record_path(&assignment.name);
        let unfinished = path.with_extension("new");
        let write = || -> io::Result<()> {
            // One that was left half-written may have been made before, with another mode.
            match fs::remove_file(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&unfinished)?;
            file.write_all(&serde_json::to_vec(&record)?)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.instances)?.sync_all()
        };
        write().map_err(|source| StateError::Io { doing: "write", path: path.clone(), source })
    }

    /// The instance is no longer to run. Idempotent.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget(&self, name: &InstanceName) -> Result<(), StateError> {
        let path = self.record_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(()) => File::open(&self.instances).and_then(|directory| directory.sync_all()),
            Err(error) => Err(error),
        }
        .map_err(|source| StateError::Io { doing: "remove", path, source })
    }

    fn record_path(&self, name: &InstanceName) -> PathBuf {
        self.instances.join(format!("{name}.json"))
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::{StateDir, StateError};
    use crate::assignment::Assignment;

    fn assignment(number: u32) -> Assignment {
        let message =
            format!(r#"{{"job_name":"a.b.c.d","instance_number":{number},"code":"x","memory":16}}"#);
        Assignment::parse(message.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_remembered_is_loaded_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        state.remember(&assignment(1)).unwrap();
        state.remember(&assignment(2)).unwrap();
        state.remember(&assignment(2)).unwrap();
        state.forget(&assignment(1).name).unwrap();
        state.forget(&assignment(1).name).unwrap();
        drop(state);
        let records = StateDir::open(directory.path()).unwrap().load().unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].assignment, assignment(2));
        assert!(!records[0].boot_id.is_empty());
    }

    #[test]
    fn nobody_else_can_read_what_services_are_told() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let instances = directory.path().join("node-engine/instances");
        let state = StateDir::open(&directory.path().join("node-engine")).unwrap();
        std::fs::write(instances.join("a.b.c.d.instance.1.new"), "half").unwrap();
        state.remember(&assignment(1)).unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&instances), 0o700);
        assert_eq!(mode(&instances.join("a.b.c.d.instance.1.json")), 0o600);
    }

    #[test]
    fn a_broken_record_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        state.remember(&assignment(1)).unwrap();
        std::fs::write(directory.path().join("instances/a.b.c.d.instance.9.json"), "{").unwrap();
        std::fs::write(directory.path().join("instances/a.b.c.d.instance.8.new"), "{").unwrap();
        assert_eq!(state.load().unwrap().len(), 1);
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let _first = StateDir::open(directory.path()).unwrap();
        let error = StateDir::open(directory.path()).unwrap_err();
        assert!(matches!(error, StateError::InUse { .. }));
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }
}
