//! What the underlay carries to each other node, learned from the routers that say so (RFC 1191, RFC 8201).
//!
//! Outer packets are never split on their way: a router that cannot forward one tells this node. The data plane is told
//! in turn, which refuses what is larger, and so whoever sends it hears of it. After some time it is tried again.

mod icmp;
mod learned;
mod socket;

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::icmp::TooBig;
use self::learned::Learned;
use self::socket::IcmpSocket;
use crate::datapath::{Datapath, DatapathError};

/// Reports on their way to the node. One that finds no room is said again with the next packet.
const QUEUE: usize = 64;

/// The node's end of it.
#[derive(Debug)]
pub struct PathMtus {
    reports: mpsc::Receiver<TooBig>,
    learned: Learned,
}

impl PathMtus {
    /// Listens in the network namespace of the calling thread, until `stop`. Takes over what the data plane knows.
    ///
    /// # Errors
    /// When the kernel refuses a raw socket.
    pub fn open(datapath: &Datapath, tasks: &TaskTracker, stop: &CancellationToken) -> io::Result<Self> {
        let (found, reports) = mpsc::channel(QUEUE);
        tasks.spawn(listen(IcmpSocket::v4()?, found.clone(), stop.clone()));
        match IcmpSocket::v6() {
            Ok(socket) => drop(tasks.spawn(listen(socket, found, stop.clone()))),
            // Kernels can be had without it; then nothing of it arrives.
            Err(error) => tracing::debug!(%error, "no ICMPv6"),
        }
        let mut learned = Learned::default();
        for (node, mtu) in datapath.narrow_paths() {
            learned.adopt(node, mtu, Instant::now());
        }
        Ok(Self { reports, learned })
    }

    /// What a router says next. Anybody can write such a packet: it is to be judged by [`Self::hear`]. Cancel safe.
    pub async fn next(&mut self) -> TooBig {
        match self.reports.recv().await {
            Some(report) => report,
            // Both tasks have ended; so does the node.
            None => std::future::pending().await,
        }
    }

    /// Tells the data plane, if the report is about a packet of this node to another one's tunnel, and says less than what
    /// is known.
    ///
    /// # Errors
    /// When the tables cannot be read or written.
    pub fn hear(
        &mut self,
        report: &TooBig,
        datapath: &mut Datapath,
        now: Instant,
    ) -> Result<(), DatapathError> {
        let tables = datapath.tables();
        let Some(node) = tables.node()? else { return Ok(()) };
        let addresses = [node.addresses.v4.map(IpAddr::from), node.addresses.v6.map(IpAddr::from)];
        if !addresses.contains(&Some(report.sender)) || !tables.listens(report.receiver)? {
            return Ok(());
        }
        let peer = report.receiver.ip();
        let Some(mtu) = self.learned.hear(report, datapath.uplink_mtu(), now) else { return Ok(()) };
        tracing::info!(%peer, mtu, "the path to a node carries less than the uplink");
        datapath.set_path_mtu(peer, Some(mtu))
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.learned.deadline()
    }

    /// Tries again what was too large a while ago.
    ///
    /// # Errors
    /// When the tables cannot be written.
    pub fn tick(&mut self, datapath: &mut Datapath, now: Instant) -> Result<(), DatapathError> {
        self.learned.expire(now).into_iter().try_for_each(|peer| datapath.set_path_mtu(peer, None))
    }
}

async fn listen(mut socket: IcmpSocket, found: mpsc::Sender<TooBig>, stop: CancellationToken) {
    loop {
        let read = tokio::select! {
            () = stop.cancelled() => return,
            read = socket.read() => read,
        };
        match read {
            Ok(Some(report)) => drop(found.try_send(report)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "cannot read ICMP: paths that carry less than the uplink lose packets");
                return;
            }
        }
    }
}
