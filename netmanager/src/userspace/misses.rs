//! Addresses that packets need and the tables do not have: told to the node, each at most once in a while.

use std::num::NonZeroUsize;
use std::sync::Mutex;

use lru::LruCache;
use netmanager_common::event::MISS_INTERVAL_NS;
use netmanager_common::map::MAX_MISSES;
use netmanager_common::wire::Ip;
use tokio::sync::mpsc;

use super::flows::lock;
use crate::datapath::{Miss, from_ip};

/// Misses that nobody has read yet. One that finds no room is reported by the next packet.
const QUEUE: usize = 1024;

/// The sender's end.
#[derive(Debug)]
pub(super) struct Reporter {
    last: Mutex<LruCache<Ip, u64>>,
    queue: mpsc::Sender<Miss>,
}

/// Misses as they occur.
#[derive(Debug)]
pub struct Misses(mpsc::Receiver<Miss>);

pub(super) fn channel() -> (Reporter, Misses) {
    let (queue, misses) = mpsc::channel(QUEUE);
    let capacity = NonZeroUsize::new(MAX_MISSES as usize).unwrap_or(NonZeroUsize::MIN);
    (Reporter { last: Mutex::new(LruCache::new(capacity)), queue }, Misses(misses))
}

impl Reporter {
    /// Reports that `service_ip` is needed for the sake of the container `ns_ip`, unless that was reported a moment ago.
    pub(super) fn report(&self, service_ip: &Ip, ns_ip: &Ip, now_ns: u64) {
        let mut last = lock(&self.last);
        if last.get(service_ip).is_some_and(|last| now_ns.wrapping_sub(*last) < MISS_INTERVAL_NS) {
            return;
        }
        let miss = Miss { service_ip: from_ip(*service_ip), ns_ip: from_ip(*ns_ip) };
        if self.queue.try_send(miss).is_ok() {
            last.push(*service_ip, now_ns);
        }
    }
}

impl Misses {
    /// The next miss. Cancel safe.
    pub async fn next(&mut self) -> Miss {
        match self.0.recv().await {
            Some(miss) => miss,
            // The data plane has ended; so does the node.
            None => std::future::pending().await,
        }
    }

    /// The next miss, if it is there.
    pub fn try_next(&mut self) -> Option<Miss> {
        self.0.try_recv().ok()
    }
}
