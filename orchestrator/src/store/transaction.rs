//! Changes that happen together, and what must hold for them to happen.

use serde::Serialize;

use super::StoreError;

/// Counts the changes of a store; each value carries that of its last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub(super) i64);

/// One element of a transaction, with the value already encoded.
#[derive(Debug)]
pub(super) enum Step {
    Expect { key: String, revision: Option<Revision> },
    Put { key: String, value: String },
    Delete { key: String },
}

/// Changes that are made together, under expectations of what the store holds before them.
#[derive(Debug, Default)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction {
    steps: Vec<Step>,
    failure: Option<StoreError>,
}

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    /// The key must have this revision; `None`: no value.
    pub fn expect(mut self, key: &str, revision: Option<Revision>) -> Self {
        self.steps.push(Step::Expect { key: key.to_owned(), revision });
        self
    }

    /// The key must have no value.
    pub fn expect_absent(self, key: &str) -> Self {
        self.expect(key, None)
    }

    /// Writes a value. One that cannot be encoded makes the commit fail.
    pub fn put<T: Serialize + ?Sized>(mut self, key: &str, value: &T) -> Self {
        match serde_json::to_string(value) {
            Ok(value) => self.steps.push(Step::Put { key: key.to_owned(), value }),
            Err(source) => self.failure = Some(StoreError::Encode { key: key.to_owned(), source }),
        }
        self
    }

    pub fn delete(mut self, key: &str) -> Self {
        self.steps.push(Step::Delete { key: key.to_owned() });
        self
    }

    /// Whether it changes anything, or would if it could be encoded.
    pub fn writes(&self) -> bool {
        self.failure.is_some() || self.steps.iter().any(|step| !matches!(step, Step::Expect { .. }))
    }

    /// All of another one after this.
    pub fn and(mut self, other: Self) -> Self {
        self.steps.extend(other.steps);
        self.failure = self.failure.or(other.failure);
        self
    }

    /// How many values it writes or deletes.
    pub fn operations(&self) -> usize {
        self.steps.iter().filter(|step| !matches!(step, Step::Expect { .. })).count()
    }

    /// How many bytes the values have that it writes.
    pub fn bytes(&self) -> usize {
        self.steps.iter().map(|step| if let Step::Put { value, .. } = step { value.len() } else { 0 }).sum()
    }

    pub(super) fn into_steps(self) -> Result<Vec<Step>, StoreError> {
        self.failure.map_or(Ok(self.steps), Err)
    }
}
