//! What the programs in the kernel cannot finish alone comes here, through a TAP device: packets to services that are
//! not known yet wait until they are, fragments for the first one of their datagram; senders are told why their packets
//! go no further; ICMP errors are translated.
//!
//! ```text
//!   from_container, from_uplink ──redirect──▶ TAP ──read──▶ decide ──▶ hold ... settled ─┐
//!                                              ▲              └──▶ answer, translate ────┤
//!                                      from_slow_path ◀────────────write─────────────────┘
//! ```
//!
//! No packet of a warm flow comes this way. How many may is bounded by a budget for each container, in the kernel
//! ([`netmanager_common::budget::Budget`]); how many wait, by [`hold`].

mod ahead;
mod answer;
mod counts;
mod decide;
mod device;
mod frame;
mod hold;
mod icmp_error;
pub mod probe;
mod view;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::ahead::Ahead;
use self::counts::Counters;
pub use self::counts::Counts;
pub use self::decide::Untaken;
use self::decide::{Decision, View as _, decide, give_up};
use self::device::{Device, TapDevice};
use self::frame::{Frame, to_deliver};
use self::hold::{Held, Hold};
use crate::datapath::{Datapath, DatapathError};
use crate::net::{Links, NetError};
use crate::plane::{Plane, Reader};
use crate::userspace;

/// Addresses on their way between the node and the slow path. One that finds no room is asked for by the sender's next
/// packet, and other news are told again as well.
const QUEUE: usize = 1024;

/// How long a packet waits for an answer of the cluster. A sender of TCP repeats its first packet after one second, and
/// then after two more.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why there is no slow path.
#[derive(Debug, thiserror::Error)]
pub enum SlowPathError {
    #[error("make the TAP device {}", device::NAME)]
    Device(#[source] io::Error),
    #[error(transparent)]
    Link(#[from] NetError),
    #[error("bring the slow path to the programs")]
    Datapath(#[from] DatapathError),
}

/// What the node wants of the task.
#[derive(Debug)]
enum Order {
    Release(IpAddr),
    Write(Vec<u8>),
}

/// What the node is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Packets wait for this address: a service's, or the NsIP of a container that has no instance address yet.
    Missed(IpAddr),
    Untaken(Untaken),
}

/// The node's end of it. The device ends with the task.
#[derive(Debug)]
pub struct SlowPath {
    orders: mpsc::Sender<Order>,
    news: mpsc::Receiver<News>,
    counters: Arc<Counters>,
}

impl SlowPath {
    /// Opens that of the data plane which the node has. The task runs until `stop`.
    ///
    /// # Errors
    /// See [`Self::in_kernel`].
    pub async fn open(
        links: &Links,
        plane: &mut Plane,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, SlowPathError> {
        match plane {
            Plane::Ebpf(datapath) => Self::in_kernel(links, datapath, tasks, stop).await,
            Plane::Userspace(datapath) => Ok(Self::in_process(datapath, tasks, stop)),
        }
    }

    /// Makes the device in the network namespace of the calling thread, and lets the programs use it.
    ///
    /// # Errors
    /// When the kernel has no TAP devices, or refuses one. The data plane is as before: it drops what it would send here.
    pub async fn in_kernel(
        links: &Links,
        datapath: &mut Datapath,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, SlowPathError> {
        let device = TapDevice::open().map_err(SlowPathError::Device)?;
        let ifindex = links.start_tap(device::NAME).await?;
        let tables = datapath.reader()?;
        datapath.set_slow_path(Some(ifindex))?;
        Ok(Self::start(Device::Kernel(device), Reader::Ebpf(Box::new(tables)), tasks, stop))
    }

    /// Lets the threads of this process use it.
    #[must_use]
    pub fn in_process(datapath: &userspace::Datapath, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (device, tables) = (Device::Process(datapath.slow_path()), Reader::Userspace(datapath.reader()));
        Self::start(device, tables, tasks, stop)
    }

    fn start(device: Device, tables: Reader, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (orders, to_do) = mpsc::channel(QUEUE);
        let (to_tell, news) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        let (held, ahead, counters_of_worker) =
            (Held::new(PATIENCE), Ahead::default(), Arc::clone(&counters));
        let worker = Worker { device, tables, held, ahead, to_tell, counters: counters_of_worker };
        tasks.spawn(worker.run(to_do, stop));
        Self { orders, news, counters }
    }

    /// The next news. Cancel safe.
    pub async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // The task has ended; so does the node.
            None => std::future::pending().await,
        }
    }

    /// The tables have an answer for this address: whatever waits for it may go on.
    pub fn settled(&self, address: IpAddr) {
        // Without room the packets wait in vain and are answered so.
        self.orders.try_send(Order::Release(address)).ok();
    }

    /// Gives a frame of [`probe`] to the programs. Lost if there is no room, as it may be anywhere on its way.
    pub fn send(&self, frame: Vec<u8>) {
        self.orders.try_send(Order::Write(frame)).ok();
    }

    /// What has become of the packets that came here since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }
}

struct Worker {
    device: Device,
    tables: Reader,
    held: Held<IpAddr>,
    ahead: Ahead,
    to_tell: mpsc::Sender<News>,
    counters: Arc<Counters>,
}

impl Worker {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        loop {
            let deadline = [self.held.deadline(), self.ahead.deadline()].into_iter().flatten().min();
            let expiry = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                read = self.device.read() => match read {
                    Ok(Some(frame)) => self.arrived(frame),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!(%error, "cannot read from {}: packets to unknown services are lost", device::NAME);
                        break;
                    }
                },
                Some(order) = orders.recv() => match order {
                    Order::Release(address) => self.release(address),
                    Order::Write(frame) => self.write(&frame),
                },
                () = expiry => self.tick(),
            }
        }
    }

    fn arrived(&mut self, frame: Frame) {
        match decide(&frame, &self.tables) {
            Decision::Hold(address) => match self.held.hold(address, frame, Instant::now()) {
                Hold::Full => self.counters.refused(),
                Hold::Behind => self.counters.held(),
                Hold::First => {
                    self.counters.held();
                    self.tell(News::Missed(address));
                }
            },
            Decision::HoldFragment(datagram) => match self.ahead.hold(datagram, frame, Instant::now()) {
                Hold::Full => self.counters.refused(),
                Hold::First | Hold::Behind => self.counters.held(),
            },
            decision => self.carry_out(&frame, decision),
        }
    }

    fn release(&mut self, address: IpAddr) {
        for frame in self.held.release(address) {
            self.counters.released();
            self.write(frame.bytes());
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        for frame in self.held.expire(now) {
            self.counters.expired();
            self.carry_out(&frame, give_up(&frame));
        }
        if self.ahead.deadline().is_some_and(|deadline| deadline <= now) {
            let (released, expired) = self.ahead.look(|datagram| self.tables.has_begun(datagram), now);
            for frame in released {
                self.counters.released();
                self.write(frame.bytes());
            }
            expired.iter().for_each(|_| self.counters.expired());
        }
    }

    fn carry_out(&self, frame: &Frame, decision: Decision) {
        match decision {
            Decision::Again => self.write(frame.bytes()),
            Decision::Answer(packet) => {
                self.counters.answered();
                self.write(&to_deliver(&packet));
            }
            Decision::Translated { packet, untaken } => {
                self.counters.translated();
                if let Some(untaken) = untaken {
                    self.tell(News::Untaken(untaken));
                }
                self.write(&to_deliver(&packet));
            }
            Decision::Drop | Decision::Hold(_) | Decision::HoldFragment(_) => self.counters.dropped(),
        }
    }

    fn tell(&self, news: News) {
        self.to_tell.try_send(news).ok();
    }

    fn write(&self, frame: &[u8]) {
        if let Err(error) = self.device.write(frame) {
            self.counters.dropped();
            tracing::debug!(%error, "a packet of the slow path is lost");
        }
    }
}
