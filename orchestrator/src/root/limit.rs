//! How often somebody may try: leaking buckets, by key. Pure: time is an argument.
//!
//! Each try fills the bucket of its key by one, and each bucket leaks at a steady pace. A bucket that is full admits no
//! more. What succeeded is taken out again, so that only failures count against whoever tries.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// How many keys are remembered. When there are more, the emptiest bucket is forgotten: it matters least.
const KEYS_MAX: usize = 4096;

#[derive(Debug)]
pub struct Limit<K> {
    /// What a bucket holds.
    burst: f64,
    /// What leaks in a second.
    pace: f64,
    buckets: HashMap<K, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: f64,
    /// In seconds of the steady clock.
    at: f64,
}

impl Bucket {
    fn level(self, pace: f64, now: f64) -> f64 {
        (self.level - (now - self.at).max(0.0) * pace).max(0.0)
    }
}

impl<K: Hash + Eq + Clone> Limit<K> {
    /// `burst` tries at once, then `per_minute` tries a minute.
    #[must_use]
    pub fn new(burst: u32, per_minute: u32) -> Self {
        Self { burst: burst.into(), pace: f64::from(per_minute) / 60.0, buckets: HashMap::new() }
    }

    /// How long the key has to wait, if it has to. `now`: seconds of the steady clock.
    #[must_use]
    pub fn wait(&self, key: &K, now: f64) -> Option<Duration> {
        let level = self.buckets.get(key)?.level(self.pace, now);
        let excess = level + 1.0 - self.burst;
        (excess > 1e-6).then(|| Duration::from_secs_f64(excess / self.pace))
    }

    /// Counts a try.
    pub fn take(&mut self, key: &K, now: f64) {
        let level = self.buckets.get(key).map_or(0.0, |bucket| bucket.level(self.pace, now)) + 1.0;
        if !self.buckets.contains_key(key) && self.buckets.len() >= KEYS_MAX {
            self.make_room(now);
        }
        self.buckets.insert(key.clone(), Bucket { level, at: now });
    }

    /// A try was none after all.
    pub fn give_back(&mut self, key: &K, now: f64) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            *bucket = Bucket { level: (bucket.level(self.pace, now) - 1.0).max(0.0), at: now };
        }
    }

    fn make_room(&mut self, now: f64) {
        let pace = self.pace;
        self.buckets.retain(|_, bucket| bucket.level(pace, now) > 0.0);
        if self.buckets.len() >= KEYS_MAX
            && let Some(emptiest) = self
                .buckets
                .iter()
                .min_by(|(_, one), (_, other)| one.level(pace, now).total_cmp(&other.level(pace, now)))
                .map(|(key, _)| key.clone())
        {
            self.buckets.remove(&emptiest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYS_MAX, Limit};

    #[test]
    fn a_burst_is_admitted_and_then_the_pace() {
        let mut limit = Limit::new(3, 6);
        for _ in 0..3 {
            assert_eq!(limit.wait(&"a", 100.0), None);
            limit.take(&"a", 100.0);
        }
        let wait = limit.wait(&"a", 100.0).unwrap().as_secs_f64();
        assert!((wait - 10.0).abs() < 1e-3, "{wait}");
        assert_eq!(limit.wait(&"b", 100.0), None, "others are not affected");
        assert_eq!(limit.wait(&"a", 110.0), None);
        limit.take(&"a", 110.0);
        assert!(limit.wait(&"a", 110.0).is_some());
    }

    #[test]
    fn what_succeeds_is_not_counted() {
        let mut limit = Limit::new(2, 1);
        for _ in 0..100 {
            assert_eq!(limit.wait(&"a", 0.0), None);
            limit.take(&"a", 0.0);
            limit.give_back(&"a", 0.0);
        }
    }

    #[test]
    fn memory_is_bounded_and_the_busiest_is_remembered() {
        let mut limit = Limit::new(2, 1);
        limit.take(&usize::MAX, 0.0);
        limit.take(&usize::MAX, 0.0);
        for key in 0..2 * KEYS_MAX {
            limit.take(&key, 0.0);
        }
        assert_eq!(limit.buckets.len(), KEYS_MAX);
        assert!(limit.wait(&usize::MAX, 0.0).is_some());
    }
}
