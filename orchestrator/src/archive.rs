//! `orchestrator backup` and `orchestrator restore`.

use std::path::{Path, PathBuf};

use crate::data_dir::{DataDir, DataDirError, store_in};
use crate::store::backup::{BackupError, copy, replace};

#[derive(Debug, Clone, clap::Args)]
pub struct BackupArgs {
    /// The --data-dir of a root, branch or cluster; of a standalone one, the `root` or the `cluster` in it.
    #[arg(long, env = "HYPHA_DATA_DIR", value_name = "DIR", default_value = "/var/lib/hypha/root")]
    pub data_dir: PathBuf,
    /// The file to write. It must not be there yet. It holds password hashes and the key that signs tokens.
    pub file: PathBuf,
}

#[derive(Debug, Clone, clap::Args)]
pub struct RestoreArgs {
    /// The --data-dir of a root, branch or cluster; of a standalone one, the `root` or the `cluster` in it.
    #[arg(long, env = "HYPHA_DATA_DIR", value_name = "DIR", default_value = "/var/lib/hypha/root")]
    pub data_dir: PathBuf,
    /// The backup.
    pub file: PathBuf,
    /// Do it although there is a state already, which is kept beside it as `state.db.replaced`.
    #[arg(long)]
    pub replace: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{0} is of a standalone orchestrator: name the `root` or the `cluster` in it")]
    Outer(PathBuf),
    #[error("back up")]
    Backup(#[source] BackupError),
    #[error(
        "{0} holds a state already: --replace puts the backup in its place, and keeps it as state.db.replaced"
    )]
    Occupied(PathBuf),
    #[error("restore")]
    DataDir(#[source] DataDirError),
    #[error("restore")]
    Restore(#[source] BackupError),
}

/// Copies the state as it is at one moment. Says what it did.
///
/// # Errors
/// When there is no state, or it is damaged; when the file is there, or cannot be written.
pub fn backup(args: &BackupArgs) -> Result<String, ArchiveError> {
    let BackupArgs { data_dir, file } = args;
    let store = store_in(data_dir);
    if !store.exists() && store_in(&data_dir.join("root")).exists() {
        return Err(ArchiveError::Outer(data_dir.clone()));
    }
    copy(&store, file).map_err(ArchiveError::Backup)?;
    Ok(format!("{} is a backup of {}", file.display(), data_dir.display()))
}

/// Puts a backup in place. Says what it did.
///
/// # Errors
/// When the directory is in use, or holds a state that is not to be replaced; when the backup is none.
pub fn restore(args: &RestoreArgs) -> Result<String, ArchiveError> {
    let RestoreArgs { data_dir, file, replace: may_replace } = args;
    let directory = DataDir::open(data_dir).map_err(ArchiveError::DataDir)?;
    let store = store_in(directory.path());
    let is_occupied = store.exists();
    if is_occupied && !may_replace {
        return Err(ArchiveError::Occupied(data_dir.clone()));
    }
    replace(file, &store).map_err(ArchiveError::Restore)?;
    Ok(said(file, data_dir, is_occupied))
}

fn said(file: &Path, data_dir: &Path, replaced: bool) -> String {
    let before = if replaced { "; what was there is state.db.replaced" } else { "" };
    format!("{} holds the state of {}{before}", data_dir.display(), file.display())
}
