//! Whom each worker measures: of a small cluster all others, of a larger one some that are near, some by chance, and those
//! with which its services want to be near. Each is told where the others are as they move, ever more seldom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::rtt::{PEERS_MAX, RttPeer, RttPeers, RttReport};
use protocol::topic::NodeTopic;

use super::State;
use crate::cluster::worker::Worker;

/// Peers by chance, by which the whole is held together, and as many that are near, by which it is precise.
const BY_CHANCE: usize = 4;
const NEAR: usize = 4;
/// How often it is looked for nearer ones. One that is near stays until others are clearly nearer.
const NEARER_EVERY: Duration = Duration::from_secs(600);
const CLEARLY: f64 = 1.25;
/// Workers that are looked at in one tick.
const LOOKS: usize = 16;
/// Between two messages to a worker of where its peers are; each time twice as long, until others are named.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(120);

/// Which workers measure, and what they were told.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    /// In the order of their ids.
    all: Vec<Id>,
    told: HashMap<Id, Told>,
    /// Of each worker those that are to be measured in any case.
    pub(super) partners: BTreeMap<Id, BTreeSet<Id>>,
    next: usize,
}

#[derive(Debug)]
struct Told {
    peers: Vec<RttPeer>,
    by_chance: Vec<Id>,
    near: Vec<Id>,
    near_at: Option<Instant>,
    /// When others may be named, and when it may be told where those are that were.
    soonest: Instant,
    again: Instant,
    pause: Duration,
}

impl State {
    /// `nodes/{id}/net/rtt`. It is no sign of life of the worker's other daemon.
    pub(in crate::cluster) fn round_trips_known(&mut self, worker: Id, report: RttReport, now: Instant) {
        if !self.workers.contains_key(&worker) {
            return;
        }
        let asks = report.asks;
        self.round_trips.take(worker, report, now);
        // What waits for something to be known of a way may go.
        self.room |= !self.linked.is_empty();
        if let Err(place) = self.measuring.all.binary_search(&worker) {
            self.measuring.all.insert(place, worker);
        }
        if asks || !self.measuring.told.contains_key(&worker) {
            let told = Told {
                peers: Vec::new(),
                by_chance: Vec::new(),
                near: Vec::new(),
                near_at: None,
                soonest: now,
                again: now,
                pause: PAUSE_FIRST,
            };
            self.measuring.told.insert(worker, told);
            self.tell_peers(worker, now);
        }
    }

    /// It is lost, or forgotten.
    pub(super) fn measures_no_more(&mut self, worker: Id) {
        if let Ok(place) = self.measuring.all.binary_search(&worker) {
            self.measuring.all.remove(place);
        }
        self.measuring.told.remove(&worker);
        self.round_trips.forget(worker);
    }

    pub(super) fn look_after_peers(&mut self, now: Instant) {
        let count = self.measuring.all.len();
        for _ in 0..count.min(LOOKS) {
            self.measuring.next = (self.measuring.next + 1) % count;
            self.tell_peers(self.measuring.all[self.measuring.next], now);
        }
    }

    /// Tells a worker whom to measure, if that or where they are is not what it was told, and not too soon.
    fn tell_peers(&mut self, worker: Id, now: Instant) {
        let Some(mut told) = self.measuring.told.remove(&worker) else { return };
        if told.soonest <= now && self.is_measurable(worker) {
            let peers = self.peers_of(worker, &mut told, now);
            let are_others = told.peers.iter().map(|peer| peer.node).ne(peers.iter().map(|peer| peer.node));
            if are_others || (told.peers != peers && told.again <= now) {
                if are_others {
                    told.pause = PAUSE_FIRST;
                }
                told.soonest = now + PAUSE_FIRST;
                told.again = now + told.pause;
                told.pause = (told.pause * 2).min(PAUSE_LAST);
                told.peers.clone_from(&peers);
                self.publish(worker, NodeTopic::RttPeers, &RttPeers { peers });
            }
        }
        self.measuring.told.insert(worker, told);
    }

    /// In the order of their ids.
    fn peers_of(&self, worker: Id, told: &mut Told, now: Instant) -> Vec<RttPeer> {
        let all = &self.measuring.all;
        let mut wanted: Vec<Id> =
            self.measuring.partners.get(&worker).into_iter().flatten().copied().collect();
        if all.len() <= BY_CHANCE + NEAR + 1 {
            wanted.extend(all);
        } else {
            self.choose_by_chance(worker, told);
            self.choose_near(worker, told, now);
            wanted.extend(told.near.iter().chain(&told.by_chance));
        }
        wanted.retain(|peer| *peer != worker && self.is_measurable(*peer));
        let mut some: Vec<Id> = Vec::with_capacity(PEERS_MAX);
        for peer in wanted {
            if some.len() < PEERS_MAX && !some.contains(&peer) {
                some.push(peer);
            }
        }
        some.sort_unstable();
        some.into_iter().filter_map(|peer| self.as_peer(peer)).collect()
    }

    /// Those that were chosen stay for as long as they are there.
    fn choose_by_chance(&self, worker: Id, told: &mut Told) {
        told.by_chance.retain(|peer| self.is_measurable(*peer));
        let all = &self.measuring.all;
        for attempt in 0..4 * BY_CHANCE {
            if told.by_chance.len() >= BY_CHANCE {
                return;
            }
            let mut hasher = DefaultHasher::new();
            (worker, attempt, all.len()).hash(&mut hasher);
            let place = usize::try_from(hasher.finish() % all.len() as u64).unwrap_or(0);
            let peer = all[place];
            if peer != worker && !told.by_chance.contains(&peer) && self.is_measurable(peer) {
                told.by_chance.push(peer);
            }
        }
    }

    fn choose_near(&self, worker: Id, told: &mut Told, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < NEARER_EVERY;
        let Some(here) = self.round_trips.coordinate(worker) else { return };
        if told.near_at.is_some_and(is_recent) {
            return;
        }
        told.near_at = Some(now);
        let away = |peer: Id| Some(self.round_trips.coordinate(peer)?.milliseconds_to(&here));
        let others = self.measuring.all.iter().filter(|peer| **peer != worker && self.is_measurable(**peer));
        let mut others: Vec<_> = others.filter_map(|peer| Some((away(*peer)?, *peer))).collect();
        others.sort_by(|a, b| a.0.total_cmp(&b.0));
        others.truncate(NEAR);
        let farthest = others.last().map_or(0.0, |(away, _)| *away);
        told.near.retain(|peer| away(*peer).is_some_and(|away| away <= farthest * CLEARLY));
        for (_, peer) in others {
            if told.near.len() < NEAR && !told.near.contains(&peer) {
                told.near.push(peer);
            }
        }
    }

    fn is_measurable(&self, worker: Id) -> bool {
        self.measuring.all.binary_search(&worker).is_ok()
            && self.workers.get(&worker).is_some_and(Worker::is_alive)
    }

    fn as_peer(&self, worker: Id) -> Option<RttPeer> {
        let address = match self.directory.itself(worker) {
            Some(itself) => itself.host_ip,
            None => self.workers.get(&worker)?.node().ip.parse::<IpAddr>().ok()?,
        };
        Some(RttPeer { node: worker, address, coordinate: self.round_trips.coordinate(worker) })
    }
}
