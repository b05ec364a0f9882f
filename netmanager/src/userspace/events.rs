//! What the data plane tells the node, as the kernel's programs do: addresses that packets need and the tables do not have,
//! each at most once in a while, and backends that do not answer.

use std::num::NonZeroUsize;
use std::sync::Mutex;

use lru::LruCache;
use netmanager_common::event::MISS_INTERVAL_NS;
use netmanager_common::map::MAX_MISSES;
use netmanager_common::wire::Ip;
use tokio::sync::mpsc;

use super::flows::lock;
use crate::datapath::{Event, Miss, Suspect, from_ip};

/// Events that nobody has read yet. Of one that finds no room the next packet tells.
const QUEUE: usize = 1024;

/// The sender's end.
#[derive(Debug)]
pub(super) struct Reporter {
    last_misses: Mutex<LruCache<Ip, u64>>,
    queue: mpsc::Sender<Event>,
}

/// Misses and suspects as they occur.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

pub(super) fn channel() -> (Reporter, Events) {
    let (queue, events) = mpsc::channel(QUEUE);
    let capacity = NonZeroUsize::new(MAX_MISSES as usize).unwrap_or(NonZeroUsize::MIN);
    (Reporter { last_misses: Mutex::new(LruCache::new(capacity)), queue }, Events(events))
}

impl Reporter {
    /// Tells that `service_ip` is needed for the sake of the container `ns_ip`, unless that was told a moment ago.
    pub(super) fn miss(&self, service_ip: &Ip, ns_ip: &Ip, now_ns: u64) {
        let mut last = lock(&self.last_misses);
        if last.get(service_ip).is_some_and(|last| now_ns.wrapping_sub(*last) < MISS_INTERVAL_NS) {
            return;
        }
        let miss = Miss { service_ip: from_ip(*service_ip), ns_ip: from_ip(*ns_ip) };
        if self.queue.try_send(Event::Miss(miss)).is_ok() {
            last.push(*service_ip, now_ns);
        }
    }

    /// Tells that a backend does not answer, or refuses connections.
    pub(super) fn suspect(&self, number: u32, generation: u32) {
        // Full: what is noted of the backend stays, and is told again.
        self.queue.try_send(Event::Suspect(Suspect { number, generation })).ok();
    }
}

impl Events {
    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> Event {
        match self.0.recv().await {
            Some(event) => event,
            // The data plane has ended; so does the node.
            None => std::future::pending().await,
        }
    }

    /// The next event, if it is there.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok()
    }
}
