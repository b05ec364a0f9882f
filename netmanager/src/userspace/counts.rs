//! Counters, and the shares that containers have of the slow path.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use netmanager_common::budget::{self, Budget};
use netmanager_common::event::{DROP_REASONS, DropReason};
use netmanager_common::map::{MAX_BUDGETS, MAX_ENDPOINTS, MAX_SENDERS, STRANGERS_BUDGET};
use netmanager_common::wire::Ip;

use super::flows::{capacity, lock};

#[derive(Debug)]
pub(super) struct Counts {
    drops: Vec<AtomicU64>,
    punts: Vec<AtomicU64>,
    traffic: Vec<Slot>,
    budgets: Mutex<Vec<Budget>>,
    /// What is left to each container of the flows that it may begin unanswered, by slot.
    new_flows: Mutex<Vec<Budget>>,
    /// Who sends through the tunnel from where nothing is known.
    senders: Mutex<LruCache<Ip, Budget>>,
}

/// What one container has sent and received.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) sent_packets: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_packets: AtomicU64,
    pub(super) received_bytes: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        let by_reason = || (0..DROP_REASONS).map(|_| AtomicU64::new(0)).collect();
        Self {
            drops: by_reason(),
            punts: by_reason(),
            traffic: (0..MAX_ENDPOINTS).map(|_| Slot::default()).collect(),
            budgets: Mutex::new(vec![Budget::default(); MAX_BUDGETS as usize]),
            new_flows: Mutex::new(vec![Budget::default(); MAX_ENDPOINTS as usize]),
            senders: Mutex::new(LruCache::new(capacity(MAX_SENDERS as usize))),
        }
    }
}

impl Counts {
    pub(super) fn dropped(&self, reason: DropReason) {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn punted(&self, reason: DropReason) {
        self.punts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, slot: u32, bytes: u32) {
        if let Some(slot) = self.slot(slot) {
            slot.sent_packets.fetch_add(1, Ordering::Relaxed);
            slot.sent_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
        }
    }

    pub(super) fn received(&self, slot: u32, bytes: u32) {
        if let Some(slot) = self.slot(slot) {
            slot.received_packets.fetch_add(1, Ordering::Relaxed);
            slot.received_bytes.fetch_add(bytes.into(), Ordering::Relaxed);
        }
    }

    pub(super) fn slot(&self, slot: u32) -> Option<&Slot> {
        self.traffic.get(usize::try_from(slot).ok()?)
    }

    pub(super) fn clear(&self, slot: u32) {
        let Some(Slot { sent_packets, sent_bytes, received_packets, received_bytes }) = self.slot(slot)
        else {
            return;
        };
        for count in [sent_packets, sent_bytes, received_packets, received_bytes] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Takes one packet's share of the slow path; `false` if none is left.
    pub(super) fn take_budget(&self, share: u32, now_ns: u64) -> bool {
        let mut budgets = lock(&self.budgets);
        let place = usize::try_from(share).ok();
        place
            .and_then(|place| budgets.get_mut(place))
            .is_some_and(|budget| budget.take(budget::CONTAINER, now_ns))
    }

    /// Whether the container that has `slot` may begin one more flow.
    pub(super) fn may_begin(&self, slot: u32, now_ns: u64) -> bool {
        let mut budgets = lock(&self.new_flows);
        budgets.get_mut(slot as usize).is_some_and(|budget| budget.take(budget::NEW_FLOWS, now_ns))
    }

    /// One of its flows was answered. Whether it has begun any.
    pub(super) fn give_back(&self, slot: u32) -> bool {
        let mut budgets = lock(&self.new_flows);
        budgets.get_mut(slot as usize).is_some_and(|budget| budget.give_back(budget::NEW_FLOWS))
    }

    /// Whether one more packet through the tunnel from `sender` may be looked into although its inner source is not known;
    /// a node is known there or not.
    pub(super) fn may_be_new(&self, sender: &Ip, is_node: bool, now_ns: u64) -> bool {
        let mut senders = lock(&self.senders);
        let own = senders.get_or_insert_mut(*sender, Budget::default);
        if !own.take(budget::UNKNOWN_SOURCE, now_ns) {
            return false;
        }
        let strangers = &mut lock(&self.budgets)[STRANGERS_BUDGET as usize];
        is_node || strangers.take(budget::STRANGERS, now_ns)
    }

    /// The counts of drops and of punts that are not 0.
    pub(super) fn by_reason(&self) -> [Vec<(DropReason, u64)>; 2] {
        [&self.drops, &self.punts].map(|counts| {
            let counts = counts.iter().map(|count| count.load(Ordering::Relaxed));
            DropReason::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
        })
    }
}
