//! The SQLite file, and the thread that owns it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::Receiver;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::StoreError;
use super::transaction::{Revision, Step};

/// The layout of the file that this code reads and writes.
const LAYOUT: i64 = 1;
/// How many requests share one sync at most, so that none waits for long behind others.
const BATCH_MAX: usize = 256;

#[derive(Debug)]
pub(super) enum Request {
    Get { key: String },
    List { prefix: String },
    Commit { steps: Vec<Step> },
}

#[derive(Debug)]
pub(super) enum Answer {
    Values(Vec<Raw>),
    Done,
}

#[derive(Debug)]
pub(super) struct Raw {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) revision: Revision,
}

type Reply = oneshot::Sender<Result<Answer, StoreError>>;

#[derive(Debug)]
pub(super) struct File {
    connection: Connection,
    last: Revision,
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        // SQLite would make the file with the umask's mode; its companions (-wal, -shm) take the mode of this one.
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(open)?;
        let found: i64 =
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(open)?;
        if found > LAYOUT {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: LAYOUT });
        }
        // FULL syncs the log at each commit: with less, a power cut may take back what was answered.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 CREATE TABLE IF NOT EXISTS entry (
                     key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL
                 ) WITHOUT ROWID;",
            )
            .map_err(open)?;
        if found < LAYOUT {
            connection.pragma_update(None, "user_version", LAYOUT).map_err(open)?;
        }
        let last = connection
            .query_row("SELECT coalesce(max(revision), 0) FROM entry", [], |row| row.get(0))
            .map_err(open)?;
        Ok(Self { connection, last: Revision(last) })
    }

    /// Serves until every handle on the store is gone.
    pub(super) fn serve(mut self, inbox: &Receiver<(Request, Reply)>) {
        while let Ok(first) = inbox.recv() {
            let batch = std::iter::once(first).chain(inbox.try_iter().take(BATCH_MAX - 1));
            let (requests, replies): (Vec<_>, Vec<_>) = batch.unzip();
            let answers = self.run(requests);
            for (reply, answer) in replies.into_iter().zip(answers) {
                let _caller_gone = reply.send(answer);
            }
        }
    }

    /// The answers to a batch, once what it wrote is durable: a reader in it may have seen a write of it.
    fn run(&mut self, requests: Vec<Request>) -> Vec<Result<Answer, StoreError>> {
        if !requests.iter().any(|request| matches!(request, Request::Commit { .. })) {
            return requests.into_iter().map(|request| read(&self.connection, request)).collect();
        }
        let count = requests.len();
        self.write(requests).unwrap_or_else(|error| {
            tracing::error!(%error, "store could not be written");
            (0..count).map(|_| Err(StoreError::Write(repeat(&error)))).collect()
        })
    }

    fn write(&mut self, requests: Vec<Request>) -> Result<Vec<Result<Answer, StoreError>>, rusqlite::Error> {
        let mut outer = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut last = self.last;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(match request {
                Request::Commit { steps } => {
                    let revision = Revision(last.0 + 1);
                    let inner = outer.savepoint()?;
                    let outcome = apply(&inner, steps, revision);
                    if outcome.is_ok() {
                        inner.commit()?;
                        last = revision;
                    } else {
                        inner.finish()?;
                    }
                    outcome.map(|()| Answer::Done)
                }
                read_only => read(&outer, read_only),
            });
        }
        outer.commit()?;
        self.last = last;
        Ok(answers)
    }
}

/// An SQLite error for each caller of a batch that failed: the original cannot be cloned.
fn repeat(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        other => rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
            Some(other.to_string()),
        ),
    }
}

fn apply(connection: &Connection, steps: Vec<Step>, revision: Revision) -> Result<(), StoreError> {
    for step in &steps {
        if let Step::Expect { key, revision: expected } = step {
            let found = connection
                .prepare_cached("SELECT revision FROM entry WHERE key = ?1")
                .and_then(|mut query| query.query_row([key], |row| row.get(0)).optional())
                .map_err(|source| StoreError::Read { key: key.clone(), source })?
                .map(Revision);
            if found != *expected {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
    }
    for step in steps {
        match step {
            Step::Expect { .. } => Ok(0),
            Step::Put { key, value } => connection
                .prepare_cached(
                    "INSERT INTO entry (key, value, revision) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
                )
                .and_then(|mut put| put.execute(params![key, value, revision.0])),
            Step::Delete { key } => connection
                .prepare_cached("DELETE FROM entry WHERE key = ?1")
                .and_then(|mut delete| delete.execute([key])),
        }
        .map_err(StoreError::Write)?;
    }
    Ok(())
}

fn read(connection: &Connection, request: Request) -> Result<Answer, StoreError> {
    let raw = |row: &rusqlite::Row<'_>| {
        Ok(Raw { key: row.get(0)?, value: row.get(1)?, revision: Revision(row.get(2)?) })
    };
    let (outcome, key) = match request {
        Request::Get { key } => {
            let outcome = connection
                .prepare_cached("SELECT key, value, revision FROM entry WHERE key = ?1")
                .and_then(|mut query| query.query_map([&key], raw)?.collect());
            (outcome, key)
        }
        // What is listed has ASCII keys, so what begins with the prefix lies below the prefix followed by DEL.
        Request::List { prefix } => {
            let outcome = connection
                .prepare_cached(
                    "SELECT key, value, revision FROM entry WHERE key >= ?1 AND key < ?1 || char(127) ORDER BY key",
                )
                .and_then(|mut query| query.query_map([&prefix], raw)?.collect());
            (outcome, prefix)
        }
        Request::Commit { .. } => return Ok(Answer::Done),
    };
    outcome.map(Answer::Values).map_err(|source| StoreError::Read { key, source })
}
