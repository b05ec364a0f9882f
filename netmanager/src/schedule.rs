//! When something about each other node is asked for, by packets to it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// After how long a node that has answered nothing is asked again; each further time twice as long.
const AGAIN: Duration = Duration::from_secs(2);

/// Nodes, and when each is to be asked (again).
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Duration,
    turns: BTreeMap<IpAddr, Turn>,
}

#[derive(Debug)]
struct Turn {
    at: Instant,
    /// How long the pause is if it answers nothing.
    pause: Duration,
}

impl Schedule {
    /// Each node is asked when it becomes known, and again after each `interval`.
    pub(crate) fn every(interval: Duration) -> Self {
        Self { interval, turns: BTreeMap::new() }
    }

    /// Keeps these nodes and no others. Gives those whose turn it is, at most so many; each has the next one after the interval.
    pub(crate) fn due(&mut self, nodes: &BTreeSet<IpAddr>, most: usize, now: Instant) -> Vec<IpAddr> {
        self.turns.retain(|node, _| nodes.contains(node));
        let mut due = Vec::new();
        for node in nodes {
            let turn = self.turns.entry(*node).or_insert(Turn { at: now, pause: AGAIN });
            if turn.at <= now && due.len() < most {
                turn.at = now + self.interval;
                due.push(*node);
            }
        }
        due
    }

    /// The node has answered nothing: it is asked again, soon at first. It may only just be starting.
    pub(crate) fn silent(&mut self, node: IpAddr, now: Instant) {
        if let Some(turn) = self.turns.get_mut(&node) {
            turn.at = now + turn.pause;
            turn.pause = (turn.pause * 2).min(self.interval);
        }
    }

    /// What was found of the node means nothing any more: it is asked as if it had just become known.
    pub(crate) fn anew(&mut self, node: IpAddr) {
        self.turns.remove(&node);
    }

    /// When the next turn is, of the nodes that are known.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.turns.values().map(|turn| turn.at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use super::Schedule;

    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const INTERVAL: Duration = Duration::from_secs(540);

    #[test]
    fn a_node_is_asked_at_once_and_then_at_intervals() {
        let (mut schedule, nodes, now) = (Schedule::every(INTERVAL), BTreeSet::from([NODE]), Instant::now());
        assert_eq!(schedule.due(&nodes, 9, now), [NODE]);
        assert_eq!(schedule.next(), Some(now + INTERVAL));
        assert_eq!(schedule.due(&nodes, 9, now + INTERVAL - Duration::from_nanos(1)), [] as [IpAddr; 0]);
        assert_eq!(schedule.due(&nodes, 9, now + INTERVAL), [NODE]);
        assert_eq!(schedule.due(&BTreeSet::new(), 9, now), [] as [IpAddr; 0]);
        assert_eq!(schedule.next(), None, "forgotten");
    }

    #[test]
    fn a_silent_node_is_asked_again_soon_and_then_ever_less_often() {
        let (mut schedule, nodes, mut now) =
            (Schedule::every(INTERVAL), BTreeSet::from([NODE]), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..11 {
            assert_eq!(schedule.due(&nodes, 9, now), [NODE]);
            schedule.silent(NODE, now);
            let next = schedule.next().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 540, 540]);
    }

    #[test]
    fn who_finds_no_room_keeps_the_turn() {
        let (mut schedule, now) = (Schedule::every(INTERVAL), Instant::now());
        let nodes = BTreeSet::from([NODE, Ipv4Addr::new(192, 0, 2, 3).into()]);
        let first = schedule.due(&nodes, 1, now);
        assert_eq!((first.len(), schedule.next()), (1, Some(now)));
        let second = schedule.due(&nodes, 1, now);
        assert_eq!(BTreeSet::from([first[0], second[0]]), nodes);
        assert_eq!(schedule.next(), Some(now + INTERVAL));
    }

    #[test]
    fn a_node_that_is_reached_otherwise_is_asked_as_if_it_were_new() {
        let (mut schedule, nodes, now) = (Schedule::every(INTERVAL), BTreeSet::from([NODE]), Instant::now());
        assert_eq!(schedule.due(&nodes, 9, now), [NODE]);
        assert_eq!(schedule.due(&nodes, 9, now), [] as [IpAddr; 0]);
        schedule.anew(NODE);
        assert_eq!(schedule.due(&nodes, 9, now), [NODE]);
    }

    #[test]
    fn an_answer_of_a_node_that_is_gone_changes_nothing() {
        let mut schedule = Schedule::every(INTERVAL);
        schedule.silent(NODE, Instant::now());
        assert_eq!(schedule.next(), None);
    }
}
