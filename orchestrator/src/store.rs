//! What a daemon must not lose: values under keys, in one SQLite file, or in etcd.
//!
//! Keys are paths (`service/6b03…`), values are JSON. A change is durable when its call returns, and several changes
//! made by one [`Transaction`] happen together or not at all, also over a power cut. Each value carries the
//! [`Revision`] of its last change, so a decision made from values that somebody changed meanwhile is refused as a
//! [`StoreError::Conflict`] and made again: see [`Store::update`].
//!
//! One thread writes the file: transactions that arrive while it writes are made durable together with one sync. Another one
//! reads it, and waits for no sync.
//! A larger installation has several daemons over one [`etcd`], of which one leads.

pub mod backup;
pub mod etcd;
mod file;
mod transaction;

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rusqlite::ErrorCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use self::etcd::Led;
use self::file::{Change, Question, Raw, Read, Reader, Writer};
use self::transaction::Step;
pub use self::transaction::{Revision, Transaction};

/// A handle on the store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// The threads that write and read the file.
    File {
        changes: mpsc::Sender<Change>,
        questions: mpsc::Sender<Question>,
    },
    Etcd(Box<Led>),
}

/// A value and the revision of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    pub value: T,
    pub revision: Revision,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("open store {path}")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("store {path} is damaged ({what}): `orchestrator restore` puts a backup in its place")]
    Damaged { path: PathBuf, what: String },
    #[error("create store file {path}")]
    Create { path: PathBuf, source: std::io::Error },
    #[error("store {path} was written by a newer version (layout {found}, known up to {known})")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("read {key} from the store")]
    Read { key: String, source: rusqlite::Error },
    #[error("write to the store")]
    Write(#[source] rusqlite::Error),
    /// Somebody else changed what the transaction was decided from. Nothing was written.
    #[error("{key} was changed by somebody else meanwhile")]
    Conflict { key: String },
    #[error("decode {key} from the store")]
    Decode { key: String, source: serde_json::Error },
    #[error("encode {key} for the store")]
    Encode { key: String, source: serde_json::Error },
    #[error("the thread that owns the store ended")]
    Closed,
    #[error("read {path} (--store-ca, --store-cert, --store-key)")]
    Pem { path: PathBuf, source: std::io::Error },
    /// What was to be written may be written all the same, if the answer was lost.
    #[error("{what}")]
    Etcd { what: String, source: etcd_client::Error },
    #[error(
        "this etcd takes fewer than {needed} operations in one transaction: start it with --max-txn-ops={needed}, or more"
    )]
    FewOperations { needed: usize },
    /// Nothing was written.
    #[error("another one leads: this one has been silent for too long")]
    Deposed,
}

impl StoreError {
    fn of_open(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Damaged { path, what: source.to_string() }
            }
            _ => Self::Open { path, source },
        }
    }

    /// Whether nothing was written since there is no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Write(source) if source.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}

impl StoreError {
    /// Whether it may succeed a moment later, or with another root.
    #[must_use]
    pub const fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Etcd { .. } | Self::Deposed)
    }

    /// Whether what was to be written may be written all the same.
    #[must_use]
    pub const fn is_unclear(&self) -> bool {
        matches!(self, Self::Etcd { .. } | Self::Closed)
    }
}

impl Store {
    /// Opens the store at `path`; a new one is made when there is none, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be opened, is damaged or no SQLite file, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (writer, reader) = (Writer::open(path)?, Reader::open(path)?);
        let (changes, to_write) = mpsc::channel();
        let (questions, to_read) = mpsc::channel();
        let start = |name: &str, serve: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(serve);
            thread.map_err(|source| StoreError::Create { path: path.to_owned(), source })
        };
        start("store", Box::new(move || writer.serve(&to_write)))?;
        start("store-reads", Box::new(move || reader.serve(&to_read)))?;
        Ok(Self { place: Place::File { changes, questions } })
    }

    fn led(by: Led) -> Self {
        Self { place: Place::Etcd(Box::new(by)) }
    }

    /// # Errors
    /// When it cannot be read, or the value is not of this type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Entry<T>>, StoreError> {
        let found = self.read(Read::Get { key: key.to_owned() }).await?.pop();
        found.map(|raw| Ok(raw.decode()?.1)).transpose()
    }

    /// All values whose key begins with `prefix`, by key.
    ///
    /// # Errors
    /// When it cannot be read, or a value is not of this type.
    pub async fn list<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, Entry<T>)>, StoreError> {
        let found = self.read(Read::List { prefix: prefix.to_owned() }).await?;
        found.into_iter().map(Raw::decode).collect()
    }

    /// What stands between `prefix`, which ends with a slash, and the next slash in the keys that begin with it, each once and
    /// in order. Costs a look for each, however much is below it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn branches(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut branches, mut from) = (Vec::new(), prefix.to_owned());
        loop {
            let found = self.read(Read::First { prefix: prefix.to_owned(), from }).await?.pop();
            let Some(raw) = found else { return Ok(branches) };
            let below = raw.key.strip_prefix(prefix).unwrap_or_default();
            let branch = below.split('/').next().unwrap_or_default();
            // `0` is the sign behind the slash.
            from = format!("{prefix}{branch}0");
            branches.push(branch.to_owned());
        }
    }

    /// Writes one value, whatever stood there.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn put<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        self.commit(Transaction::new().put(key, value)).await
    }

    /// Deletes one value; of nothing, it succeeds.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.commit(Transaction::new().delete(key)).await
    }

    /// Makes all changes of the transaction, or none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an expectation does not hold; any other when it could not be made durable.
    pub async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let steps = transaction.into_steps()?;
        if steps.is_empty() {
            return Ok(());
        }
        self.write(steps).await.map(|_revision| ())
    }

    /// As [`Self::commit`], of a transaction that writes something; gives the revision of what it wrote.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn commit_revision(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        self.write(transaction.into_steps()?).await
    }

    /// Reads a value, lets `change` make the next one of it, and writes that; again from the start when somebody else
    /// was faster. `None`, read or returned, is no value. Returns what `change` returned beside the value.
    /// A `change` that leaves the value as it is costs no write.
    ///
    /// # Errors
    /// When it could not be read or made durable.
    pub async fn update<T, R>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> (Option<T>, R),
    ) -> Result<R, StoreError>
    where
        T: DeserializeOwned + Serialize + Clone + PartialEq,
    {
        loop {
            let current = self.get::<T>(key).await?;
            let revision = current.as_ref().map(|entry| entry.revision);
            let before = current.map(|entry| entry.value);
            let (after, result) = change(before.clone());
            if before == after {
                return Ok(result);
            }
            let transaction = Transaction::new().expect(key, revision);
            let transaction = match &after {
                Some(value) => transaction.put(key, value),
                None => transaction.delete(key),
            };
            match self.commit(transaction).await {
                Err(StoreError::Conflict { .. }) => {}
                other => return other.map(|()| result),
            }
        }
    }

    async fn read(&self, question: Read) -> Result<Vec<Raw>, StoreError> {
        match &self.place {
            Place::File { questions, .. } => asked(questions, question).await,
            Place::Etcd(led) => led.read(question).await,
        }
    }

    async fn write(&self, steps: Vec<Step>) -> Result<Revision, StoreError> {
        match &self.place {
            Place::File { changes, .. } => asked(changes, steps).await,
            Place::Etcd(led) => led.commit(steps).await,
        }
    }
}

async fn asked<Q, A>(thread: &mpsc::Sender<file::Asked<Q, A>>, question: Q) -> Result<A, StoreError> {
    let (reply, answer) = oneshot::channel();
    thread.send((question, reply)).map_err(|_gone| StoreError::Closed)?;
    answer.await.map_err(|_gone| StoreError::Closed)?
}

impl Raw {
    fn decode<T: DeserializeOwned>(self) -> Result<(String, Entry<T>), StoreError> {
        match serde_json::from_str(&self.value) {
            Ok(value) => Ok((self.key, Entry { value, revision: self.revision })),
            Err(source) => Err(StoreError::Decode { key: self.key, source }),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
