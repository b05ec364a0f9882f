//! Frames that wait for something: an answer of the cluster, the first fragment of a datagram. Pure: bounded in number,
//! bytes and time, whatever comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::frame::Frame;

/// Frames that wait for one thing.
const MAX_FRAMES: usize = 64;
/// Bytes that wait for one thing.
const MAX_BYTES: usize = 128 * 1024;
/// Bytes that wait in all.
const MAX_TOTAL: usize = 1024 * 1024;

/// The frames, by what they wait for.
#[derive(Debug)]
pub(super) struct Held<K> {
    queues: BTreeMap<K, Queue>,
    /// In all of them.
    bytes: usize,
    /// How long a frame waits.
    patience: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    frames: Vec<(Instant, Frame)>,
    bytes: usize,
}

/// What became of a frame that was to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It waits, and no other does for the same.
    First,
    /// It waits behind others.
    Behind,
    /// There is no room for it.
    Full,
}

impl<K: Ord> Held<K> {
    pub(super) fn new(patience: Duration) -> Self {
        Self { queues: BTreeMap::new(), bytes: 0, patience }
    }

    /// What frames wait for.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.queues.keys()
    }

    pub(super) fn hold(&mut self, key: K, frame: Frame, now: Instant) -> Hold {
        let size = frame.bytes().len();
        let (frames, bytes) = self.queues.get(&key).map_or((0, 0), |queue| (queue.frames.len(), queue.bytes));
        if frames >= MAX_FRAMES || bytes + size > MAX_BYTES || self.bytes + size > MAX_TOTAL {
            return Hold::Full;
        }
        let queue = self.queues.entry(key).or_default();
        let first = queue.frames.is_empty();
        queue.frames.push((now, frame));
        queue.bytes += size;
        self.bytes += size;
        if first { Hold::First } else { Hold::Behind }
    }

    /// The frames that wait for this, in the order in which they came. They wait no more.
    pub(super) fn release(&mut self, key: K) -> Vec<Frame> {
        let Some(queue) = self.queues.remove(&key) else { return Vec::new() };
        self.bytes -= queue.bytes;
        queue.frames.into_iter().map(|(_, frame)| frame).collect()
    }

    /// The frames that have waited too long. Others that wait for the same stay.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Frame> {
        let patience = self.patience;
        let mut expired = Vec::new();
        self.queues.retain(|_, queue| {
            let late = queue.frames.partition_point(|(since, _)| *since + patience <= now);
            for (_, frame) in queue.frames.drain(..late) {
                queue.bytes -= frame.bytes().len();
                self.bytes -= frame.bytes().len();
                expired.push(frame);
            }
            !queue.frames.is_empty()
        });
        expired
    }

    /// When [`Held::expire`] has something to give.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = |queue: &Queue| queue.frames.first().map(|(since, _)| *since + self.patience);
        self.queues.values().filter_map(first).min()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    use netmanager_common::punt::{Origin, Tag};
    use proptest::prelude::*;

    use super::{Held, Hold, MAX_BYTES, MAX_FRAMES, MAX_TOTAL};
    use crate::slowpath::frame::Frame;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 30, 0, last])
    }

    fn frame(number: u8, length: usize) -> Frame {
        let tag = Tag { origin: Origin::Container, reason: number, ifindex: 1 };
        let mut bytes = tag.bytes().to_vec();
        bytes.resize(length.max(6), number);
        Frame::read(&bytes).unwrap()
    }

    #[test]
    fn frames_are_released_in_their_order_and_once() {
        let (mut held, now) = (Held::new(PATIENCE), Instant::now());
        assert_eq!(held.hold(address(1), frame(1, 60), now), Hold::First);
        assert_eq!(held.hold(address(1), frame(2, 60), now), Hold::Behind);
        assert_eq!(held.hold(address(2), frame(3, 60), now), Hold::First);
        assert_eq!(held.release(address(1)), [frame(1, 60), frame(2, 60)]);
        assert_eq!(held.release(address(1)), []);
        assert_eq!(held.hold(address(1), frame(4, 60), now), Hold::First, "asked for anew");
    }

    #[test]
    fn a_frame_waits_as_long_as_it_is_worth_and_no_longer() {
        let (mut held, now) = (Held::new(PATIENCE), Instant::now());
        let second = Duration::from_secs(1);
        held.hold(address(1), frame(1, 60), now);
        held.hold(address(1), frame(2, 60), now + second);
        assert_eq!(held.deadline(), Some(now + PATIENCE));
        assert_eq!(held.expire(now + 2 * second), []);
        assert_eq!(held.expire(now + 3 * second), [frame(1, 60)]);
        assert_eq!(held.deadline(), Some(now + 4 * second));
        assert_eq!(held.expire(now + 4 * second), [frame(2, 60)]);
        assert_eq!(held.deadline(), None);
    }

    #[test]
    fn who_scans_or_floods_fills_no_memory() {
        let (mut held, now) = (Held::new(PATIENCE), Instant::now());
        for _ in 0..MAX_FRAMES {
            assert_ne!(held.hold(address(1), frame(1, 60), now), Hold::Full);
        }
        assert_eq!(held.hold(address(1), frame(1, 60), now), Hold::Full, "too many");
        assert_eq!(held.hold(address(2), frame(1, MAX_BYTES + 1), now), Hold::Full, "too large");
        let held_all = (0..=255).filter(|last| held.hold(address(*last), frame(1, 9000), now) != Hold::Full);
        assert!(held_all.count() < MAX_TOTAL / 9000 + 1);
        assert!(held.bytes <= MAX_TOTAL);
    }

    proptest! {
        #[test]
        fn bytes_are_what_waits(steps in proptest::collection::vec((0u8..4, 6usize..40_000, 0u64..5), 1..200)) {
            let (mut held, mut now) = (Held::new(PATIENCE), Instant::now());
            for (last, length, passed) in steps {
                now += Duration::from_secs(passed);
                match last {
                    0 => drop(held.release(address(1))),
                    1 => drop(held.expire(now)),
                    _ => drop(held.hold(address(last), frame(last, length), now)),
                }
                let sum: usize = held.queues.values().flat_map(|q| &q.frames).map(|(_, f)| f.bytes().len()).sum();
                prop_assert_eq!(held.bytes, sum);
                prop_assert!(sum <= MAX_TOTAL);
            }
        }
    }
}
