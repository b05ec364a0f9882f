//! Whom this node measures, when, and what came of it. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::rtt::{Coordinate, Measured, PEERS_MAX, RttPeer, RttPeers, RttReport, SAMPLES_MAX};

use crate::vivaldi::Vivaldi;

/// A peer that has just been named is measured so many times, in pauses of this length.
const FIRST: usize = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Then each is measured so often, but one of them all no more often than this.
const INTERVAL: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(5);
/// One that has not answered so many times in a row is not known any more.
const SILENT: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Peers {
    of: BTreeMap<Id, Peer>,
    own: Vivaldi,
    /// When the first turn was, from which the others are counted.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Peer {
    address: IpAddr,
    there: Coordinate,
    /// Microseconds, the latest last.
    latest: VecDeque<u32>,
    due: Instant,
    silent: u32,
}

impl Peers {
    /// Keeps what is known of those that are named again.
    pub(super) fn told(&mut self, RttPeers { peers }: RttPeers, own: Id, now: Instant) {
        let mut before = std::mem::take(&mut self.of);
        for RttPeer { node, address, coordinate } in peers {
            let address = address.to_canonical();
            let is_another = node != own && is_single(address) && !self.of.contains_key(&node);
            if !is_another || self.of.len() >= PEERS_MAX {
                continue;
            }
            let there = coordinate.unwrap_or(Coordinate::UNKNOWN);
            let known = before.remove(&node).filter(|peer| peer.address == address);
            let peer = known.unwrap_or(Peer { address, there, latest: VecDeque::new(), due: now, silent: 0 });
            self.of.insert(node, Peer { there, ..peer });
        }
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.of.values().map(|peer| peer.due).min()
    }

    /// Those that are to be measured now, at most so many. Each of them has its next turn, apart from those of the others.
    pub(super) fn due(&mut self, most: usize, now: Instant) -> Vec<(Id, IpAddr)> {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        let count = u32::try_from(self.of.len()).unwrap_or(1).max(1);
        let interval = INTERVAL.max(PAUSE * count);
        let mut due = Vec::new();
        for (place, (node, peer)) in (0_u32..).zip(&mut self.of) {
            if peer.due <= now && due.len() < most {
                peer.due = since + turn_after(passed, interval, interval * place / count);
                due.push((*node, peer.address));
            }
        }
        due
    }

    /// `took` is nothing where there was no answer.
    pub(super) fn measured(
        &mut self,
        node: Id,
        address: IpAddr,
        took: Option<Duration>,
        turn: f64,
        now: Instant,
    ) {
        let Some(peer) = self.of.get_mut(&node).filter(|peer| peer.address == address) else { return };
        let Some(micros) = took.and_then(|took| u32::try_from(took.as_micros()).ok()) else {
            peer.silent += 1;
            if peer.silent >= SILENT {
                peer.latest.clear();
            }
            return;
        };
        peer.silent = 0;
        if peer.latest.len() == SAMPLES_MAX {
            peer.latest.pop_front();
        }
        peer.latest.push_back(micros);
        if peer.latest.len() < FIRST {
            peer.due = peer.due.min(now + FIRST_PAUSE);
        }
        let usual = f64::from(middle(&sorted(&peer.latest))) / 1000.0;
        self.own.observe(&peer.there, usual, turn);
    }

    pub(super) fn coordinate(&self) -> Coordinate {
        self.own.coordinate()
    }

    /// What is known. Of who has measured nobody, it is not known where he is.
    pub(super) fn report(&self) -> RttReport {
        let known = self.of.iter().filter(|(_, peer)| !peer.latest.is_empty());
        let measured: Vec<_> =
            known.map(|(node, peer)| Measured { node: *node, micros: sorted(&peer.latest) }).collect();
        let coordinate = Some(self.own.coordinate()).filter(|own| !measured.is_empty() && own.error() < 1.0);
        RttReport { asks: false, coordinate, measured }
    }
}

/// The next of the turns that follow `first` in intervals, but not before half an interval has passed.
fn turn_after(now: Duration, interval: Duration, first: Duration) -> Duration {
    let soonest = now + interval / 2;
    let intervals = soonest.saturating_sub(first).as_nanos().div_ceil(interval.as_nanos());
    first + interval * u32::try_from(intervals).unwrap_or(u32::MAX)
}

fn sorted(latest: &VecDeque<u32>) -> Vec<u32> {
    let mut sorted: Vec<_> = latest.iter().copied().collect();
    sorted.sort_unstable();
    sorted
}

/// Of numbers in their order.
pub(super) fn middle(sorted: &[u32]) -> u32 {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Whether this, in its canonical form, may be the address of one machine that is not this one.
fn is_single(address: IpAddr) -> bool {
    let is_everybody = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_everybody)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    use protocol::id::Id;
    use protocol::rtt::{PEERS_MAX, RttPeer, RttPeers};

    use super::{FIRST_PAUSE, INTERVAL, PAUSE, Peers, SILENT};

    const MOST: usize = usize::MAX;
    const OWN: Id = Id::from_bytes([0; 12]);

    fn id(number: u8) -> Id {
        Id::from_bytes([number; 12])
    }

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn named(numbers: impl IntoIterator<Item = u8>) -> RttPeers {
        let peer = |number| RttPeer { node: id(number), address: address(number), coordinate: None };
        RttPeers { peers: numbers.into_iter().map(peer).collect() }
    }

    fn answer(peers: &mut Peers, number: u8, micros: u64, now: Instant) {
        peers.measured(id(number), address(number), Some(Duration::from_micros(micros)), 0.3, now);
    }

    #[test]
    fn a_new_peer_is_measured_a_few_times_at_once_and_then_now_and_then() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        peers.told(named([1]), OWN, start);
        let mut now = start;
        for _ in 0..2 {
            assert_eq!(peers.due(MOST, now), [(id(1), address(1))]);
            assert!(peers.due(MOST, now).is_empty());
            answer(&mut peers, 1, 900, now);
            assert_eq!(peers.due_at(), Some(now + FIRST_PAUSE));
            now += FIRST_PAUSE;
        }
        assert_eq!(peers.due(MOST, now).len(), 1);
        answer(&mut peers, 1, 800, now);
        assert_eq!(peers.due_at(), Some(start + INTERVAL));
        assert_eq!(peers.report().measured[0].micros, [800, 900, 900]);
    }

    #[test]
    fn however_many_peers_there_are_only_some_are_measured_in_a_minute() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        peers.told(named(1..=40), OWN, start);
        let mut count = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            for (node, address) in peers.due(MOST, now) {
                count += 1;
                peers.measured(node, address, Some(Duration::from_millis(9)), 0.1, now);
            }
        }
        assert!(count <= PEERS_MAX * 2 + 10 * 12 + PEERS_MAX, "{count} in ten minutes");
    }

    #[test]
    fn after_the_first_measurements_no_two_peers_are_measured_together() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        peers.told(named(1..=8), OWN, start);
        let mut turns = Vec::new();
        for step in 0..1200 {
            let now = start + FIRST_PAUSE * step;
            let due = peers.due(MOST, now);
            for (node, address) in &due {
                peers.measured(*node, *address, Some(Duration::from_millis(9)), 0.1, now);
            }
            if step > 100 && !due.is_empty() {
                turns.push((FIRST_PAUSE * step, due.len()));
            }
        }
        assert!(turns.iter().all(|(_, count)| *count == 1), "{turns:?}");
        assert!(turns.windows(2).all(|pair| pair[1].0 - pair[0].0 == PAUSE), "{turns:?}");
    }

    #[test]
    fn who_finds_no_room_keeps_the_turn() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        peers.told(named([1, 2]), OWN, now);
        assert_eq!(peers.due(1, now), [(id(1), address(1))]);
        assert!(peers.due(0, now).is_empty());
        assert_eq!(peers.due_at(), Some(now));
        assert_eq!(peers.due(1, now), [(id(2), address(2))]);
    }

    #[test]
    fn what_is_known_of_a_peer_stays_while_it_is_named_at_its_address() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        peers.told(named([1, 2]), OWN, now);
        answer(&mut peers, 1, 900, now);
        answer(&mut peers, 2, 900, now);
        peers.told(named([1, 1]), OWN, now);
        assert_eq!(peers.report().measured.len(), 1, "twice the same");
        let elsewhere = RttPeer { node: id(1), address: address(9), coordinate: None };
        peers.told(RttPeers { peers: vec![elsewhere] }, OWN, now);
        assert!(peers.report().measured.is_empty() && peers.report().coordinate.is_none());
        answer(&mut peers, 1, 900, now);
        assert!(peers.report().measured.is_empty(), "measured where it is no more");
    }

    #[test]
    fn one_that_answers_no_more_is_not_known() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        peers.told(named([1]), OWN, now);
        answer(&mut peers, 1, 900, now);
        for _ in 1..SILENT {
            peers.measured(id(1), address(1), None, 0.3, now);
        }
        assert_eq!(peers.report().measured.len(), 1);
        peers.measured(id(1), address(1), None, 0.3, now);
        assert!(peers.report().measured.is_empty());
    }

    #[test]
    fn nobody_is_made_to_measure_itself_or_everybody() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let mut told = named([1, 0]);
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:255.255.255.255",
        ] {
            told.peers.push(RttPeer { node: id(7), address: address.parse().unwrap(), coordinate: None });
        }
        let mapped = "::ffff:192.0.2.8".parse().unwrap();
        told.peers.push(RttPeer { node: id(8), address: mapped, coordinate: None });
        peers.told(told, OWN, now);
        assert_eq!(peers.due(MOST, now), [(id(1), address(1)), (id(8), address(8))]);
    }
}
