//! How far other workers of the cluster are: the cluster names a handful of them, this node measures the time of a packet
//! there and back, a few times a minute, and tells what it has found and where that puts it ([`crate::vivaldi`]).
//!
//! The cluster passes on where the others are. So a node hears of their moves late, which costs some rounds more.

mod news;
mod peers;

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::rtt::{Coordinate, RttPeers, RttReport};
use tokio::sync::mpsc;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::news::News;
use self::peers::Peers;
use crate::echo::{Echo, identifier};

/// How many measurements are made at one time, whatever the cluster names. The others keep their turn.
const AT_ONCE: usize = 4;
/// The shortest of so many round trips is one measurement: a machine that was busy is not farther away.
const TRIES: u16 = 2;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a request, as `ping` sends them.
const SIZE: u16 = 84;

/// What has come of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    node: Id,
    address: IpAddr,
    /// Nothing: there was no answer.
    took: Option<Duration>,
}

/// The node's end of it.
#[derive(Debug)]
pub struct RoundTrips {
    found: mpsc::Receiver<Measurement>,
    peers: Peers,
    news: News,
    prober: Prober,
    /// Measurements whose end has not been heard of.
    under_way: usize,
}

impl RoundTrips {
    #[must_use]
    pub fn new(tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (to_tell, found) = mpsc::channel(AT_ONCE);
        let prober = Prober { to_tell, tasks: tasks.clone(), stop: stop.clone() };
        Self { found, peers: Peers::default(), news: News::default(), prober, under_way: 0 }
    }

    /// The end of a measurement, for [`Self::hear`]. Cancel safe.
    pub async fn next(&mut self) -> Measurement {
        match self.found.recv().await {
            Some(measurement) => {
                self.under_way = self.under_way.saturating_sub(1);
                measurement
            }
            // Cannot be: the prober holds a sender.
            None => std::future::pending().await,
        }
    }

    pub fn hear(&mut self, measurement: Measurement, now: Instant) {
        let Measurement { node, address, took } = measurement;
        self.peers.measured(node, address, took, rand::random(), now);
        self.news.look(&self.peers.report(), now);
    }

    /// There is a connection to a cluster: what is to be said first. Nobody is measured until it has named somebody.
    pub fn connected(&mut self) -> RttReport {
        self.news.connected();
        RttReport { asks: true, ..self.peers.report() }
    }

    pub fn disconnected(&mut self) {
        self.news.disconnected();
    }

    /// The cluster names those that are to be measured from now on; `own` is this node.
    pub fn told(&mut self, peers: RttPeers, own: Id, now: Instant) {
        self.peers.told(peers, own, now);
        self.news.told();
        self.news.look(&self.peers.report(), now);
    }

    /// When [`Self::tick`] has something to do. While there is no room, the end of a measurement makes some.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let peers = self.peers.due_at().filter(|_| self.news.is_wanted() && self.room() > 0);
        [peers, self.news.due_at()].into_iter().flatten().min()
    }

    /// Measures what is due. Gives what is to be told to the cluster now.
    pub fn tick(&mut self, now: Instant) -> Option<RttReport> {
        if !self.news.is_wanted() {
            return None;
        }
        for (node, address) in self.peers.due(self.room(), now) {
            self.under_way += 1;
            self.prober.measure(node, address);
        }
        if self.news.due_at().is_none_or(|due| due > now) {
            return None;
        }
        let report = self.peers.report();
        self.news.said(report.clone(), now);
        Some(report)
    }

    fn room(&self) -> usize {
        AT_ONCE.saturating_sub(self.under_way)
    }

    /// Where this node is.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        self.peers.coordinate()
    }
}

/// Measures in tasks of their own.
#[derive(Debug)]
struct Prober {
    to_tell: mpsc::Sender<Measurement>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Prober {
    fn measure(&self, node: Id, address: IpAddr) {
        let to_tell = self.to_tell.clone();
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let took = round_trip(address).await.unwrap_or_else(|error| {
                tracing::debug!(%node, %address, %error, "the round trip cannot be measured");
                None
            });
            to_tell.send(Measurement { node, address, took }).await.unwrap_or(());
        }));
    }
}

async fn round_trip(node: IpAddr) -> io::Result<Option<Duration>> {
    // Whoever looks for the size of the path may ask the same node meanwhile.
    let echo = Echo::to(node, !identifier())?;
    let first: u16 = rand::random();
    let mut shortest: Option<Duration> = None;
    for number in (0..TRIES).map(|try_number| first.wrapping_add(try_number)) {
        let sent = tokio::time::Instant::now();
        echo.request(number, SIZE);
        let answered = async {
            while echo.answer().await? != Some(number) {}
            Ok::<_, io::Error>(sent.elapsed())
        };
        if let Ok(took) = timeout_at(sent + PATIENCE, answered).await {
            let took = took?;
            shortest = Some(shortest.map_or(took, |shortest| shortest.min(took)));
        }
    }
    Ok(shortest)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use protocol::id::Id;
    use protocol::rtt::{RttPeer, RttPeers};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::{AT_ONCE, RoundTrips};

    /// At addresses to which the kernel sends nothing, since they do not say over which interface.
    fn named(first: u8) -> RttPeers {
        let peer = |number| RttPeer {
            node: Id::from_bytes([number; 12]),
            address: [0xfe80, 0, 0, 0, 0, 0, 0, u16::from(number)].into(),
            coordinate: None,
        };
        RttPeers { peers: (first..first + 16).map(peer).collect() }
    }

    #[tokio::test]
    async fn however_often_others_are_named_only_a_few_are_measured_at_one_time() {
        let mut round_trips = RoundTrips::new(&TaskTracker::new(), &CancellationToken::new());
        let (own, now) = (Id::from_bytes([0; 12]), Instant::now());
        for first in [1, 20, 40] {
            round_trips.told(named(first), own, now);
            assert_eq!(round_trips.tick(now), None);
            assert_eq!(round_trips.under_way, AT_ONCE);
        }
        assert_eq!(round_trips.deadline(), None, "it would be woken for nothing");
        for _ in 0..2 * AT_ONCE {
            let measurement = round_trips.next().await;
            round_trips.hear(measurement, now);
            assert_eq!(round_trips.deadline(), Some(now), "the next one has room");
            assert_eq!(round_trips.tick(now), None);
            assert_eq!(round_trips.under_way, AT_ONCE);
        }
    }
}
