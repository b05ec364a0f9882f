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
/// Those with which services want to be near, at most: the others have their places in any case.
const PARTNERS: usize = PEERS_MAX - BY_CHANCE - NEAR;
/// To so many one worker is near, at most: they send to an address that it says is its own, from where it says that it is.
const NEAR_TO_MAX: u32 = 64;
/// Workers that are looked at in one tick.
const LOOKS: usize = 16;
/// Between two messages to a worker of where its peers are; each time twice as long, until others are named.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(120);
/// So many workers are measured by each other all.
const FEW: usize = BY_CHANCE + NEAR + 1;

/// Which workers measure, and what they were told.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    /// In the order of their ids.
    all: Vec<Id>,
    told: HashMap<Id, Told>,
    /// Of each worker those that are to be measured in any case.
    pub(super) partners: BTreeMap<Id, BTreeSet<Id>>,
    /// To how many each was chosen as one that is near.
    near_to: HashMap<Id, u32>,
    /// They have asked, and were not told yet.
    asked: BTreeSet<Id>,
    next: usize,
    /// Workers have said something new, since it was last looked at.
    pub(super) is_news: bool,
    /// More is known of ways, or something has got its place, since those were last placed that are to be near to something.
    pub(super) ways: bool,
}

impl Measuring {
    fn is_near_to(&mut self, peers: &[Id]) {
        peers.iter().for_each(|peer| *self.near_to.entry(*peer).or_default() += 1);
    }

    fn is_near_no_more(&mut self, peers: &[Id]) {
        for peer in peers {
            let Some(count) = self.near_to.get_mut(peer) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.near_to.remove(peer);
            }
        }
    }
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
        self.measuring.is_news |= self.round_trips.take(worker, report, now);
        if let Err(place) = self.measuring.all.binary_search(&worker) {
            self.measuring.all.insert(place, worker);
        }
        let is_new = !self.measuring.told.contains_key(&worker);
        if asks || is_new {
            let told = self.measuring.told.entry(worker).or_insert_with(|| Told {
                peers: Vec::new(),
                by_chance: Vec::new(),
                near: Vec::new(),
                near_at: None,
                soonest: now,
                again: now,
                pause: PAUSE_FIRST,
            });
            // However often it asks, it is not told more often, nor is it looked more often for who is near.
            told.peers.clear();
            self.measuring.asked.insert(worker);
            self.tell_peers(worker, now);
        }
    }

    /// It is lost, or forgotten.
    pub(super) fn measures_no_more(&mut self, worker: Id) {
        if let Ok(place) = self.measuring.all.binary_search(&worker) {
            self.measuring.all.remove(place);
        }
        if let Some(told) = self.measuring.told.remove(&worker) {
            self.measuring.is_near_no_more(&told.near);
        }
        self.measuring.asked.remove(&worker);
        self.round_trips.forget(worker);
    }

    pub(super) fn look_after_peers(&mut self, now: Instant) {
        let asked: Vec<_> = self.measuring.asked.iter().copied().take(LOOKS).collect();
        asked.into_iter().for_each(|worker| self.tell_peers(worker, now));
        let count = self.measuring.all.len();
        for _ in 0..count.min(LOOKS) {
            self.measuring.next = (self.measuring.next + 1) % count;
            let worker = self.measuring.all[self.measuring.next];
            if count > FEW {
                self.choose_near(worker, now);
            }
            self.tell_peers(worker, now);
        }
    }

    /// Tells a worker whom to measure, if that or where they are is not what it was told, and not too soon.
    fn tell_peers(&mut self, worker: Id, now: Instant) {
        let Some(mut told) = self.measuring.told.remove(&worker) else { return };
        if told.soonest <= now {
            self.measuring.asked.remove(&worker);
        }
        if told.soonest <= now && self.is_measurable(worker) {
            let peers = self.peers_of(worker, &mut told);
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
    fn peers_of(&self, worker: Id, told: &mut Told) -> Vec<RttPeer> {
        let all = &self.measuring.all;
        let mut wanted = self.partners_of(worker);
        if all.len() <= FEW {
            wanted.extend(all);
        } else {
            self.choose_by_chance(worker, told);
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

    /// Of many some by chance, so that of all of them somebody measures the way to somebody.
    fn partners_of(&self, worker: Id) -> Vec<Id> {
        let partners = self.measuring.partners.get(&worker).into_iter().flatten().copied();
        let mut partners: Vec<Id> = partners.filter(|peer| self.is_measurable(*peer)).collect();
        if partners.len() > PARTNERS {
            partners.sort_by_cached_key(|peer| by_chance(&(worker, *peer)));
            partners.truncate(PARTNERS);
        }
        partners
    }

    /// Those that were chosen stay for as long as they are there.
    fn choose_by_chance(&self, worker: Id, told: &mut Told) {
        told.by_chance.retain(|peer| self.is_measurable(*peer));
        let all = &self.measuring.all;
        for attempt in 0..4 * BY_CHANCE {
            if told.by_chance.len() >= BY_CHANCE {
                return;
            }
            let place = by_chance(&(worker, attempt, all.len())) % all.len() as u64;
            let place = usize::try_from(place).unwrap_or(0);
            let peer = all[place];
            if peer != worker && !told.by_chance.contains(&peer) && self.is_measurable(peer) {
                told.by_chance.push(peer);
            }
        }
    }

    /// Looks at all workers, so that it is done now and then, for a few of them at a time.
    fn choose_near(&mut self, worker: Id, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < NEARER_EVERY;
        let Some(here) = self.round_trips.coordinate(worker) else { return };
        let Some(told) = self.measuring.told.get_mut(&worker) else { return };
        if told.near_at.is_some_and(is_recent) {
            return;
        }
        told.near_at = Some(now);
        let mut near = std::mem::take(&mut told.near);
        self.measuring.is_near_no_more(&near);
        let away = |peer: Id| Some(self.round_trips.coordinate(peer)?.milliseconds_to(&here));
        let has_place = |peer: Id| {
            let count = self.measuring.near_to.get(&peer).copied().unwrap_or(0);
            count < NEAR_TO_MAX || near.contains(&peer)
        };
        let others = self.measuring.all.iter().copied();
        let others = others.filter(|peer| *peer != worker && self.is_measurable(*peer) && has_place(*peer));
        let mut others: Vec<_> = others.filter_map(|peer| Some((away(peer)?, peer))).collect();
        if others.len() > NEAR {
            others.select_nth_unstable_by(NEAR, |a, b| a.0.total_cmp(&b.0));
            others.truncate(NEAR);
        }
        others.sort_by(|a, b| a.0.total_cmp(&b.0));
        let farthest = others.last().map_or(0.0, |(away, _)| *away);
        near.retain(|peer| away(*peer).is_some_and(|away| away <= farthest * CLEARLY));
        for (_, peer) in others {
            if near.len() < NEAR && !near.contains(&peer) {
                near.push(peer);
            }
        }
        self.measuring.is_near_to(&near);
        if let Some(told) = self.measuring.told.get_mut(&worker) {
            told.near = near;
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

/// The same each time, and as if by dice.
fn by_chance(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
