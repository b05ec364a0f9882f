//! What the underlay carries to each other node.
//!
//! Outer packets are never split on their way: a router that cannot forward one tells this node (RFC 1191, RFC 8201). The
//! data plane is told in turn, which refuses what is larger, and so whoever sends it hears of it. Where routers are silent,
//! padded pings show it: to each node when it becomes known, and then every few minutes; and while packets go there, every few
//! seconds one as long as they may be. After some time a larger packet is tried again.

mod icmp;
mod learned;
mod probe;
mod search;
mod socket;
mod watch;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::icmp::TooBig;
use self::learned::{Learned, least};
use self::socket::IcmpSocket;
pub(crate) use self::socket::{ICMP_FILTER, ICMPV6_FILTER, SOL_RAW, raw, set};
use self::watch::{IN_USE, Watch};
use crate::plane::{PathTable, PlaneError};
use crate::schedule::Schedule;

/// Reports on their way to the node. One that finds no room is said again with the next packet.
const QUEUE: usize = 64;
/// How often a path is measured: before what was found the last time is forgotten.
const INTERVAL: Duration = Duration::from_secs(540);
/// How many paths are measured at one time.
const AT_ONCE: usize = 4;

/// News of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A router says that a packet was too large. Anybody can write such a report.
    TooBig(TooBig),
    /// Pings of `mtu` bytes to `node` come back, larger ones do not.
    Narrow { node: IpAddr, mtu: u16 },
    /// No ping to `node` comes back, of whatever size.
    Silent { node: IpAddr },
    /// The look at the path to `node` has ended.
    Looked { node: IpAddr },
}

/// The node's end of it.
#[derive(Debug)]
pub struct PathMtus {
    news: mpsc::Receiver<Heard>,
    learned: Learned,
    schedule: Schedule,
    watch: Watch,
    prober: Prober,
}

impl PathMtus {
    /// Listens in the network namespace of the calling thread, until `stop`. Takes over what the data plane knows.
    ///
    /// # Errors
    /// When the kernel refuses a raw socket.
    pub fn open(
        datapath: &impl PathTable,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let (found, news) = mpsc::channel(QUEUE);
        tasks.spawn(listen(IcmpSocket::v4()?, found.clone(), stop.clone()));
        match IcmpSocket::v6() {
            Ok(socket) => drop(tasks.spawn(listen(socket, found.clone(), stop.clone()))),
            // Kernels can be had without it; then nothing of it arrives.
            Err(error) => tracing::debug!(%error, "no ICMPv6"),
        }
        let mut learned = Learned::default();
        for (node, mtu) in datapath.narrow_paths() {
            learned.narrow(node, mtu, Instant::now());
        }
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let prober = Prober { found, permits, tasks: tasks.clone(), stop: stop.clone() };
        Ok(Self { news, learned, schedule: Schedule::every(INTERVAL), watch: Watch::default(), prober })
    }

    /// What is heard next, to be judged by [`Self::hear`]. Cancel safe.
    pub async fn next(&mut self) -> Heard {
        match self.news.recv().await {
            Some(heard) => heard,
            // Cannot be: the prober holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Tells the data plane, if this is about the path to another node's tunnel, and less than what is known.
    ///
    /// # Errors
    /// When the tables cannot be read or written.
    pub fn hear(
        &mut self,
        heard: Heard,
        datapath: &mut impl PathTable,
        now: Instant,
    ) -> Result<(), PlaneError> {
        let (peer, narrow) = match heard {
            Heard::TooBig(report) => {
                let Some(node) = datapath.node()? else { return Ok(()) };
                let addresses = [node.addresses.v4.map(IpAddr::from), node.addresses.v6.map(IpAddr::from)];
                if !addresses.contains(&Some(report.sender)) || !datapath.listens(report.receiver)? {
                    return Ok(());
                }
                (report.receiver.ip(), self.learned.hear(&report, datapath.uplink_mtu(), now))
            }
            Heard::Narrow { node, mtu } => (node, self.learned.narrow(node, mtu, now)),
            Heard::Silent { node } => {
                self.schedule.silent(node, now);
                return Ok(());
            }
            Heard::Looked { node } => {
                self.watch.ended(node);
                return Ok(());
            }
        };
        let Some(mtu) = narrow else { return Ok(()) };
        tracing::info!(%peer, mtu, "the path to a node carries less than the uplink");
        datapath.set_path_mtu(peer, Some(mtu))
    }

    /// When [`Self::tick`] has something to do, but for nodes that become known.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.schedule.next(), self.watch.next(), self.learned.deadline()].into_iter().flatten().min()
    }

    /// Tries again what was too large a while ago, measures the paths to nodes that have become known, and looks at those that
    /// are in use.
    ///
    /// # Errors
    /// When the tables cannot be read or written.
    pub fn tick(&mut self, datapath: &mut impl PathTable, now: Instant) -> Result<(), PlaneError> {
        let peers = datapath.peers();
        for node in self.schedule.due(&peers, usize::MAX, now) {
            self.prober.measure(node, datapath.largest_to(node));
        }
        let expired = self.learned.expire(now);
        expired.into_iter().try_for_each(|peer| datapath.set_path_mtu(peer, None))?;
        if self.watch.is_due(&peers, now) {
            for node in datapath.peers_in_use(IN_USE)?.intersection(&peers) {
                let most = datapath.largest_to(*node);
                let assumed = self.learned.mtu(*node).map_or(most, |mtu| mtu.min(most));
                if assumed > least(*node) && self.watch.begin(*node) {
                    self.prober.look(*node, assumed);
                }
            }
        }
        Ok(())
    }
}

/// Measures paths in tasks of their own.
#[derive(Debug)]
struct Prober {
    found: mpsc::Sender<Heard>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Prober {
    /// Finds out whether packets of `most` bytes reach `node`, and if not, which do.
    fn measure(&self, node: IpAddr, most: u16) {
        let least = least(node);
        if most <= least {
            return;
        }
        let (found, permits, stop) = (self.found.clone(), Arc::clone(&self.permits), self.stop.clone());
        self.tasks.spawn(async move {
            let measured = async {
                let _permit = permits.acquire().await.map_err(io::Error::other)?;
                probe::measure(node, least, most).await
            };
            let measured = tokio::select! {
                () = stop.cancelled() => return,
                measured = measured => measured,
            };
            match measured {
                Ok(Some(mtu)) if mtu < most => found.send(Heard::Narrow { node, mtu }).await.unwrap_or(()),
                Ok(Some(_)) => tracing::debug!(%node, most, "the path carries what containers send"),
                Ok(None) => {
                    tracing::debug!(%node, "no ping is answered: the path cannot be measured");
                    found.send(Heard::Silent { node }).await.unwrap_or(());
                }
                Err(error) => tracing::debug!(%node, %error, "the path cannot be measured"),
            }
        });
    }

    /// Finds out whether packets of `assumed` bytes, which is more than [`least`], still reach `node`, and if not, which do.
    /// In the end tells [`Heard::Looked`].
    fn look(&self, node: IpAddr, assumed: u16) {
        let (found, permits) = (self.found.clone(), Arc::clone(&self.permits));
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let looked = async {
                let _permit = permits.acquire().await.map_err(io::Error::other)?;
                probe::look(node, least(node), assumed).await
            };
            match looked.await {
                Ok(Some(mtu)) => found.send(Heard::Narrow { node, mtu }).await.unwrap_or(()),
                Ok(None) => {}
                Err(error) => tracing::debug!(%node, %error, "the path cannot be looked at"),
            }
            found.send(Heard::Looked { node }).await.unwrap_or(());
        }));
    }
}

async fn listen(mut socket: IcmpSocket, found: mpsc::Sender<Heard>, stop: CancellationToken) {
    loop {
        let read = tokio::select! {
            () = stop.cancelled() => return,
            read = socket.read() => read,
        };
        match read {
            Ok(Some(report)) => drop(found.try_send(Heard::TooBig(report))),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "cannot read ICMP: paths that carry less than the uplink lose packets");
                return;
            }
        }
    }
}
