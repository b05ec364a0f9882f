//! Whether the way to each other node takes what containers' kernels leave to the NIC: to cut super-packets into segments,
//! and to complete checksums. Some NICs get that wrong behind a tunnel's headers, and all that is seen of it is that
//! connections open and then stand still.
//!
//! When a node becomes known, and each hour, an instance there is asked with a super-packet, as one of this node's
//! processes would send it ([`question`]). Only if that is lost, again and again, while the same segments with nothing left to
//! do come through, the way is at fault ([`mod@judge`]); the node then takes that work from the NIC, for its own containers.

mod judge;
mod question;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use netmanager_common::health::QUESTION_PORT;
use rand::seq::IndexedRandom as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::judge::judge;
pub use self::question::Asker;
use self::socket::{PORTS, Questions};
use crate::datapath::{Flow, Ranges, Transport};
use crate::error::chain;
use crate::net::LeftToNic;
use crate::schedule::Schedule;

/// How often a node is asked: drivers, their settings and ways change.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How many nodes are asked at one time.
const AT_ONCE: usize = 4;
/// What was found, on its way to the node.
const QUEUE: usize = 64;

/// How the segments of a super-packet have come to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// In one packet.
    Whole,
    /// In several.
    Cut,
}

/// What the answers say of the way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It takes what is left to the NIC, and what becomes of it.
    Takes(Crossing),
    /// It loses that, and takes no more than this.
    Lost(LeftToNic),
    /// Nothing: it loses too much, nobody answers, or nobody could be asked.
    Unknown,
}

impl Verdict {
    /// Of bare packets: those in VXLAN's format may do better.
    #[must_use]
    pub const fn is_against_bare(self) -> bool {
        matches!(self, Self::Takes(Crossing::Cut) | Self::Lost(_))
    }
}

/// What has come of the questions to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    pub node: IpAddr,
    pub verdict: Verdict,
}

#[derive(Debug)]
struct Found {
    judged: Judged,
    /// Of the asking.
    number: u64,
}

/// A node that is being asked.
#[derive(Debug)]
struct Asking {
    number: u64,
    stop: CancellationToken,
}

/// The node's end of it.
#[derive(Debug)]
pub struct Offloads {
    found: mpsc::Receiver<Found>,
    schedule: Schedule,
    under_way: BTreeMap<IpAddr, Asking>,
    /// Those on which nobody was known who could be asked.
    empty: BTreeSet<IpAddr>,
    /// Of the next asking.
    number: u64,
    prober: Prober,
}

impl Offloads {
    #[must_use]
    pub fn new(tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (to_tell, found) = mpsc::channel(QUEUE);
        let prober = Prober { to_tell, tasks: tasks.clone(), stop: stop.clone() };
        let (schedule, under_way, empty) = (Schedule::every(INTERVAL), BTreeMap::new(), BTreeSet::new());
        Self { found, schedule, under_way, empty, number: 0, prober }
    }

    /// The end of an asking; nothing, if it was about a way that is not taken any more. Cancel safe.
    pub async fn next(&mut self) -> Option<Judged> {
        match self.found.recv().await {
            Some(Found { judged, number }) => self.end(judged, number),
            // Cannot be: the prober holds a sender.
            None => std::future::pending().await,
        }
    }

    fn end(&mut self, judged: Judged, number: u64) -> Option<Judged> {
        self.under_way.extract_if(.., |at, asking| *at == judged.node && asking.number == number).next()?;
        if judged.verdict == Verdict::Unknown {
            self.schedule.silent(judged.node, Instant::now());
        }
        Some(judged)
    }

    /// As [`Schedule::due`]: as many as may be asked now. Each of them is then to be asked.
    pub fn due(&mut self, nodes: &BTreeSet<IpAddr>, now: Instant) -> Vec<IpAddr> {
        self.empty.retain(|node| nodes.contains(node));
        self.schedule.due(nodes, self.room(), now)
    }

    /// When some are due, of those that are known. While there is no room, the end of an asking makes some.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.room() == 0 { None } else { self.schedule.next() }
    }

    fn room(&self) -> usize {
        AT_ONCE.saturating_sub(self.under_way.len())
    }

    /// The node is reached by another way, or packets to it are wrapped in another one: it is due.
    pub fn anew(&mut self, node: IpAddr) {
        if let Some(asking) = self.under_way.remove(&node) {
            asking.stop.cancel();
        }
        self.schedule.anew(node);
    }

    /// As [`Self::anew`], of all nodes.
    pub fn anew_all(&mut self) {
        for (_, asking) in std::mem::take(&mut self.under_way) {
            asking.stop.cancel();
        }
        self.schedule = Schedule::every(INTERVAL);
    }

    /// There is an instance on this node: it is due if there was none.
    pub fn instance_on(&mut self, node: IpAddr) {
        if self.empty.remove(&node) {
            self.schedule.anew(node);
        }
    }

    /// Asks `node` whether what `left` leaves to the NIC gets there, by one of its instances, whose service addresses these
    /// are; if there are none, as soon as there is one.
    pub fn ask(
        &mut self,
        from: Asker,
        left: LeftToNic,
        ranges: Ranges,
        node: IpAddr,
        instances: &[Ipv4Addr],
    ) {
        // One of them may have a firewall.
        let Some(instance) = instances.choose(&mut rand::rng()) else {
            self.empty.insert(node);
            return;
        };
        if self.under_way.contains_key(&node) {
            return;
        }
        self.number += 1;
        let asking = Asking { number: self.number, stop: self.prober.stop.child_token() };
        self.prober.ask(from, left, ranges, node, *instance, &asking);
        self.under_way.insert(node, asking);
    }
}

/// Asks in tasks of its own.
#[derive(Debug)]
struct Prober {
    to_tell: mpsc::Sender<Found>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Prober {
    fn ask(
        &self,
        from: Asker,
        left: LeftToNic,
        ranges: Ranges,
        node: IpAddr,
        instance: Ipv4Addr,
        asking: &Asking,
    ) {
        let (to_tell, number) = (self.to_tell.clone(), asking.number);
        self.tasks.spawn(asking.stop.clone().run_until_cancelled_owned(async move {
            let judged = async { judge(&mut Questions::open(from, &ranges, instance)?, left).await };
            let verdict = judged.await.unwrap_or_else(|error| {
                tracing::debug!(%node, error = chain(&error), "a node cannot be asked about the NIC");
                Verdict::Unknown
            });
            tracing::debug!(%node, %instance, ?verdict, "a node was asked about the NIC");
            to_tell.send(Found { judged: Judged { node, verdict }, number }).await.unwrap_or(());
        }));
    }
}

/// Whether this is one of the questions, which no process has asked.
#[must_use]
pub fn is_question(flow: &Flow) -> bool {
    flow.transport == Transport::Tcp
        && flow.service.port() == QUESTION_PORT
        && PORTS.contains(&flow.client.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn asked(number: u64) -> Offloads {
        let mut offloads = Offloads::new(&TaskTracker::new(), &CancellationToken::new());
        assert_eq!(offloads.due(&BTreeSet::from([NODE]), Instant::now()), [NODE]);
        offloads.under_way.insert(NODE, Asking { number, stop: CancellationToken::new() });
        offloads
    }

    #[test]
    fn what_is_found_counts_if_the_way_is_still_the_same() {
        let lost = Judged { node: NODE, verdict: Verdict::Lost(LeftToNic::Checksums) };
        assert_eq!(asked(1).end(lost, 1), Some(lost));
        assert_eq!(asked(2).end(lost, 1), None);
        for leave in [|offloads: &mut Offloads| offloads.anew(NODE), Offloads::anew_all] {
            let mut offloads = asked(1);
            leave(&mut offloads);
            assert_eq!(offloads.end(lost, 1), None);
            assert_eq!(offloads.due(&BTreeSet::from([NODE]), Instant::now()), [NODE]);
        }
    }

    #[test]
    fn a_node_is_asked_again_soon_when_it_has_not_answered_and_else_after_an_hour() {
        for (verdict, pause) in [(Verdict::Unknown, 3), (Verdict::Takes(Crossing::Cut), 3601)] {
            let mut offloads = asked(1);
            offloads.end(Judged { node: NODE, verdict }, 1);
            let next = offloads.deadline().unwrap() - Instant::now();
            assert!(next < Duration::from_secs(pause) && next > Duration::from_secs(pause - 3), "{next:?}");
        }
    }

    #[test]
    fn a_node_without_instances_is_asked_as_soon_as_it_has_one() {
        let (mut offloads, nodes) = (asked(1), BTreeSet::from([NODE]));
        let from = Asker { ns_ip: Ipv4Addr::LOCALHOST, mac: [2; 6], gateway_mac: [6; 6] };
        let ranges = Ranges::from(protocol::plan::Plan::default());
        offloads.ask(from, LeftToNic::All, ranges, NODE, &[]);
        assert_eq!(offloads.due(&nodes, Instant::now()), [] as [IpAddr; 0]);
        offloads.instance_on(NODE);
        assert_eq!(offloads.due(&nodes, Instant::now()), [NODE]);
        offloads.instance_on(NODE);
        assert_eq!(offloads.due(&nodes, Instant::now()), [] as [IpAddr; 0], "it had one");
    }
}
