//! What is said once of a client, and not each time.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// What was refused and logged, so that a client which tries again every second does not fill the log. Kept as hashes:
/// the texts are a stranger's, and long if he likes.
#[derive(Debug, Default)]
pub(super) struct Complained(Mutex<HashSet<u64>>);

impl Complained {
    const MAX: usize = 1024;

    /// Whether this is the first time. When there have been very many, the list begins anew.
    pub(super) fn first(&self, client: &str, what: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MAX {
            known.clear();
        }
        let mut hasher = DefaultHasher::new();
        (client, what).hash(&mut hasher);
        known.insert(hasher.finish())
    }
}
