//! The SQLite file, and the threads that write and read it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::StoreError;
use super::transaction::{Revision, Step};

/// The layout of the file that this code reads and writes.
pub(super) const LAYOUT: i64 = 1;
/// How many requests share one sync at most, so that none waits for long behind others.
const BATCH_MAX: usize = 256;
/// Pages of 4 KiB that may lie unused in the file, or a quarter of it, before they are given back.
const SLACK: i64 = 256;
/// How many are given back at a time: requests wait meanwhile.
const GIVEN_BACK: i64 = 512;
/// Without a request for so long, more is given back.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) enum Read {
    Get {
        key: String,
    },
    List {
        prefix: String,
    },
    /// The first of those that begin with `prefix` and are not before `from`.
    First {
        prefix: String,
        from: String,
    },
}

#[derive(Debug)]
pub(super) struct Raw {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) revision: Revision,
}

/// A request, and where its answer goes.
pub(super) type Asked<Q, A> = (Q, oneshot::Sender<Result<A, StoreError>>);
pub(super) type Change = Asked<Vec<Step>, Revision>;
pub(super) type Question = Asked<Read, Vec<Raw>>;

/// Who changes the file.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    last: Revision,
    /// There is more unused in the file than there should be.
    slack: bool,
}

/// Who reads it meanwhile: what is durable, and nothing else. A reader does not wait for a writer's sync.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
}

impl Writer {
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
        let found = layout(&connection, path)?;
        if found > LAYOUT {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: LAYOUT });
        }
        damage(&connection, path)?;
        // FULL syncs the log at each commit: with less, a power cut may take back what was answered. Once much was
        // written, the log would stay as long as it was; and what was deleted would stay in the file.
        connection
            .execute_batch(
                "PRAGMA auto_vacuum = INCREMENTAL;
                 PRAGMA journal_mode = WAL;
                 PRAGMA journal_size_limit = 1048576;
                 PRAGMA synchronous = FULL;
                 CREATE TABLE IF NOT EXISTS entry (
                     key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL
                 ) WITHOUT ROWID;",
            )
            .map_err(open)?;
        if found < LAYOUT {
            connection.pragma_update(None, "user_version", LAYOUT).map_err(open)?;
        }
        if pragma(&connection, "auto_vacuum").map_err(open)? == 0 {
            // Made by a version that did not give back.
            connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM").map_err(open)?;
        }
        let last = connection
            .query_row("SELECT coalesce(max(revision), 0) FROM entry", [], |row| row.get(0))
            .map_err(open)?;
        Ok(Self { connection, last: Revision(last), slack: false })
    }

    /// Serves until every handle on the store is gone.
    pub(super) fn serve(mut self, inbox: &Receiver<Change>) {
        loop {
            let first = match self.slack {
                false => inbox.recv().map_err(|_gone| RecvTimeoutError::Disconnected),
                true => inbox.recv_timeout(PAUSE),
            };
            let first = match first {
                Ok(first) => first,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.give_back();
                    continue;
                }
            };
            let batch = std::iter::once(first).chain(inbox.try_iter().take(BATCH_MAX - 1));
            let (changes, replies): (Vec<_>, Vec<_>) = batch.unzip();
            for (reply, answer) in replies.into_iter().zip(self.run(changes)) {
                let _caller_gone = reply.send(answer);
            }
        }
    }

    /// Gives a part of what is unused in the file back to the disk.
    fn give_back(&mut self) {
        let given = self.vacuum();
        // Of a full disk, or of a file that another process reads: it is tried again after the next change.
        self.slack = given.is_ok() && self.has_slack();
        if !self.slack {
            // The file itself is cut when the log is in it.
            let _again_later = run_to_end(&self.connection, "PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }

    fn vacuum(&self) -> Result<(), rusqlite::Error> {
        run_to_end(&self.connection, &format!("PRAGMA incremental_vacuum({GIVEN_BACK})"))
    }

    fn has_slack(&self) -> bool {
        let count = |name| pragma(&self.connection, name).unwrap_or(0);
        count("freelist_count") > SLACK.max(count("page_count") / 4)
    }

    /// The answers to a batch, once what it wrote is durable.
    fn run(&mut self, changes: Vec<Vec<Step>>) -> Vec<Result<Revision, StoreError>> {
        let count = changes.len();
        self.write(changes).unwrap_or_else(|error| {
            tracing::error!(%error, "store could not be written");
            (0..count).map(|_| Err(StoreError::Write(repeat(&error)))).collect()
        })
    }

    fn write(
        &mut self,
        changes: Vec<Vec<Step>>,
    ) -> Result<Vec<Result<Revision, StoreError>>, rusqlite::Error> {
        let mut outer = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut last = self.last;
        let mut answers = Vec::with_capacity(changes.len());
        for steps in changes {
            let revision = Revision(last.0 + 1);
            let inner = outer.savepoint()?;
            let outcome = apply(&inner, steps, revision);
            if outcome.is_ok() {
                inner.commit()?;
                last = revision;
            } else {
                inner.finish()?;
            }
            answers.push(outcome.map(|()| revision));
        }
        outer.commit()?;
        self.last = last;
        self.slack = self.has_slack();
        Ok(answers)
    }
}

impl Reader {
    /// Of a file that there is, since its writer has opened it.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(open)?;
        connection.pragma_update(None, "query_only", true).map_err(open)?;
        Ok(Self { connection })
    }

    /// Serves until every handle on the store is gone.
    pub(super) fn serve(self, inbox: &Receiver<Question>) {
        while let Ok((question, reply)) = inbox.recv() {
            let _caller_gone = reply.send(read(&self.connection, question));
        }
    }
}

/// The layout that a file says it has; 0 for a new one.
pub(super) fn layout(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    pragma(connection, "user_version").map_err(|source| StoreError::of_open(path, source))
}

/// Whether a file can be believed: one that was damaged would else give answers as if it were whole.
pub(super) fn damage(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found: Result<String, _> = connection.pragma_query_value(None, "quick_check", |row| row.get(0));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(what) => Err(StoreError::Damaged { path: path.to_owned(), what }),
        Err(source) => Err(StoreError::of_open(path, source)),
    }
}

/// A statement of which each row is a part of the work.
fn run_to_end(connection: &Connection, statement: &str) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(statement)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, name, |row| row.get(0))
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

fn read(connection: &Connection, question: Read) -> Result<Vec<Raw>, StoreError> {
    let raw = |row: &rusqlite::Row<'_>| {
        Ok(Raw { key: row.get(0)?, value: row.get(1)?, revision: Revision(row.get(2)?) })
    };
    let (outcome, key) = match question {
        Read::Get { key } => {
            let outcome = connection
                .prepare_cached("SELECT key, value, revision FROM entry WHERE key = ?1")
                .and_then(|mut query| query.query_map([&key], raw)?.collect());
            (outcome, key)
        }
        // What is listed has ASCII keys, so what begins with the prefix lies below the prefix followed by DEL.
        Read::List { prefix } => {
            let outcome = connection
                .prepare_cached(
                    "SELECT key, value, revision FROM entry WHERE key >= ?1 AND key < ?1 || char(127) ORDER BY key",
                )
                .and_then(|mut query| query.query_map([&prefix], raw)?.collect());
            (outcome, prefix)
        }
        Read::First { prefix, from } => {
            let outcome = connection
                .prepare_cached(
                    "SELECT key, value, revision FROM entry
                     WHERE key >= ?2 AND key < ?1 || char(127) ORDER BY key LIMIT 1",
                )
                .and_then(|mut query| query.query_map([&prefix, &from], raw)?.collect());
            (outcome, prefix)
        }
    };
    outcome.map_err(|source| StoreError::Read { key, source })
}
