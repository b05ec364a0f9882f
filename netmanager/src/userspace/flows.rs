//! Flows and fragments, bounded like the kernel's: the least recently used fall out.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use netmanager_common::map::{Flow, FlowKey, FragmentKey, FragmentPorts, MAX_FRAGMENTS};

/// So that threads seldom wait for each other.
const SHARDS: usize = 16;

/// The table of flows.
#[derive(Debug)]
pub(super) struct Flows {
    shards: Vec<Mutex<LruCache<FlowKey, Flow>>>,
    hasher: RandomState,
}

impl Flows {
    /// For as many.
    pub(super) fn new(entries: u32) -> Self {
        let each = capacity(entries as usize / SHARDS);
        // Unbounded to begin with, so that an idle node has no memory for flows that it does not have.
        let shard = || Mutex::new(grown(each));
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher: RandomState::new() }
    }

    /// Looks at an entry, and may change it.
    pub(super) fn with<T>(&self, key: &FlowKey, look: impl FnOnce(&mut Flow) -> T) -> Option<T> {
        self.shard(key).get_mut(key).map(look)
    }

    pub(super) fn get(&self, key: &FlowKey) -> Option<Flow> {
        self.shard(key).peek(key).copied()
    }

    pub(super) fn insert(&self, key: FlowKey, flow: Flow) {
        self.shard(&key).push(key, flow);
    }

    /// Inserts unless there is one; gives the one that is there afterwards.
    pub(super) fn insert_new(&self, key: FlowKey, flow: Flow) -> Flow {
        *self.shard(&key).get_or_insert(key, || flow)
    }

    pub(super) fn remove(&self, key: &FlowKey) {
        self.shard(key).pop(key);
    }

    pub(super) fn all(&self) -> Vec<(FlowKey, Flow)> {
        let rows = |shard: &Mutex<LruCache<FlowKey, Flow>>| {
            lock(shard).iter().map(|(key, flow)| (*key, *flow)).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(rows).collect()
    }

    pub(super) fn clear(&self) {
        self.shards.iter().for_each(|shard| lock(shard).clear());
    }

    fn shard(&self, key: &FlowKey) -> MutexGuard<'_, LruCache<FlowKey, Flow>> {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits of a hash are as good as all")]
        let number = self.hasher.hash_one(key) as usize % SHARDS;
        lock(&self.shards[number])
    }
}

/// Ports of datagrams that come in fragments.
#[derive(Debug)]
pub(super) struct Fragments(Mutex<LruCache<FragmentKey, FragmentPorts>>);

impl Default for Fragments {
    fn default() -> Self {
        Self(Mutex::new(grown(capacity(MAX_FRAGMENTS as usize))))
    }
}

impl Fragments {
    pub(super) fn insert(&self, key: FragmentKey, ports: FragmentPorts) {
        lock(&self.0).push(key, ports);
    }

    pub(super) fn get(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        lock(&self.0).get(key).copied()
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}

fn grown<K: std::hash::Hash + Eq, V>(capacity: NonZeroUsize) -> LruCache<K, V> {
    let mut cache = LruCache::unbounded();
    cache.resize(capacity);
    cache
}

pub(super) fn capacity(entries: usize) -> NonZeroUsize {
    NonZeroUsize::new(entries).unwrap_or(NonZeroUsize::MIN)
}

/// What a thread that panicked has left is still a table of whole entries.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
