//! The node: one task that owns everything which changes, and does one thing after another.
//!
//! Requests come from the API, events from the session, misses from the data plane. Decisions are the resolver's and
//! the pool's; here they are carried out and kept.

mod adopt;
mod itself;
mod linking;
mod naming;
mod nearness;
mod offloading;
mod reconcile;
mod registration;
mod reporting;
mod underlay;
mod workload;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use protocol::name::InstanceName;
use protocol::net::{Attach, Attached, Detach, Register};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::adopt::StartError;
use self::itself::Itself;
pub use self::registration::REGISTER_TIMEOUT;
pub use self::workload::Refusal;
use crate::balance::Balance;
use crate::bare;
use crate::config::Config;
use crate::datapath::{self, Placement, Suspect};
use crate::error::chain;
use crate::ipam::Pool;
use crate::link::Why;
use crate::net::{Candidate, Egresses, LeftToNic, Links, Uplink, Watch};
use crate::offload::{Judged, Offloads, is_question};
use crate::pathmtu::{Heard, PathMtus};
use crate::plane::{Events, Mode, Plane};
use crate::report::{Report, SessionState};
use crate::resolver::{Resolver, is_use};
use crate::roundtrip::{Measurement, RoundTrips};
use crate::session::{Event, Session};
use crate::slowpath::{News, SlowPath, Untaken};
use crate::state::{self, Store};
use crate::userspace;

/// How often it is looked for services that nothing uses.
const SWEEP: Duration = Duration::from_secs(60);
/// How often it is looked whether everything is where it belongs, though nobody has told of a change.
const RECONCILE: Duration = Duration::from_secs(10);
/// How long after the kernel has told of a change, so that many changes are one look.
const SETTLE: Duration = Duration::from_millis(200);
/// How long tables may wait to be written, so that many changes are one write.
const TABLES_DELAY: Duration = Duration::from_secs(5);

/// What the API asks for.
#[derive(Debug)]
pub enum Command {
    Register(Register, Reply<()>),
    Attach(Attach, Reply<Attached>),
    Detach(Detach, Reply<()>),
    Report(oneshot::Sender<Report>),
}

pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

#[derive(Debug)]
pub struct Node {
    config: Config,
    uplink: Uplink,
    egresses: Egresses,
    /// Where packets of other nodes may arrive beside the uplink.
    other_uplinks: Vec<Candidate>,
    /// The interfaces through which other nodes are reached, as last seen.
    ways: BTreeMap<IpAddr, u32>,
    /// When they were looked at.
    ways_seen: Instant,
    /// Where each uplink's packets are unwrapped, as last seen.
    placements: Vec<Placement>,
    /// Whether the other nodes may send packets in VXLAN's format.
    offer: Result<(), Why>,
    /// Of bare packets, by the kernel; on only where VXLAN's format is not offered.
    bare: bare::Merging,
    /// Nodes of which it is not known yet what becomes of bare packets; until then they get those in VXLAN's format.
    undecided: BTreeSet<IpAddr>,
    store: Store,
    state: state::Node,
    /// The free addresses; `None` until the cluster has given a block.
    pool: Option<Pool>,
    links: Links,
    watch: Watch,
    datapath: Plane,
    /// Why it is not in the kernel although it should.
    fallback: Option<String>,
    kernel: Events,
    /// Nothing where the kernel has no TAP devices.
    slow_path: Option<SlowPath>,
    /// Nothing where the kernel refuses raw sockets.
    path_mtus: Option<PathMtus>,
    round_trips: RoundTrips,
    offloads: Offloads,
    /// By the kernels of containers, and by the node's own where it sends to services.
    left_to_nic: LeftToNic,
    /// Some container's link is not known to be so.
    links_behind: bool,
    resolver: Resolver,
    balance: Balance,
    /// Addresses that packets needed, known or not by now; for the report.
    misses_seen: u64,
    cluster: Option<Cluster>,
    itself: Itself,
    /// Registrations that wait for the block.
    registrations: Vec<(Instant, Reply<()>)>,
    /// Attached containers whose ServiceIP is not known yet, and who waits to hear that they are.
    unnamed: Vec<Unnamed>,
    /// Instances that are gone, to be told when the session is up.
    undeployed: Vec<InstanceName>,
    /// Somebody was told that a container has no IPv6.
    told_without_ipv6: bool,
    tables_due: Option<Instant>,
    sweep_due: Instant,
    reconcile_due: Instant,
    /// Containers that have gone, since when.
    lost: BTreeMap<InstanceName, Instant>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Cluster {
    session: Session,
    events: mpsc::Receiver<Event>,
    state: SessionState,
    /// When the block is asked for again.
    subnet_due: Option<Instant>,
}

#[derive(Debug)]
struct Unnamed {
    instance: InstanceName,
    attached: Attached,
    deadline: Instant,
    reply: Reply<Attached>,
}

/// What ends a wait.
enum Wake {
    Stop,
    Command(Option<Command>),
    Event(Event),
    Miss(IpAddr),
    Suspect(Suspect),
    Untaken(Untaken),
    /// News of the path to another node.
    Path(Heard),
    /// How far another node is.
    Measured(Measurement),
    /// What becomes of packets on the way to a node.
    Asked(Option<Judged>),
    /// Links, addresses or routes have changed.
    Links,
    Time,
}

impl Node {
    /// Which data plane it has.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.datapath.mode()
    }

    /// The tables, if this process has them and not the kernel.
    pub(crate) fn tables(&self) -> Option<userspace::Reader> {
        match &self.datapath {
            Plane::Ebpf(_) => None,
            Plane::Userspace(datapath) => Some(datapath.reader()),
        }
    }

    /// Serves until it is told to stop. Containers stay connected.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            match self.wait(&mut commands).await {
                Wake::Stop | Wake::Command(None) => break,
                Wake::Command(Some(command)) => self.command(command).await,
                Wake::Event(event) => self.event(event).await,
                // Of a container that has no instance address yet, which its service's table brings.
                Wake::Miss(address) if self.is_here(address) => {}
                Wake::Miss(address) => {
                    self.misses_seen += 1;
                    let actions = self.resolver.missed(address, now());
                    self.carry_out(actions);
                }
                Wake::Suspect(suspect) => {
                    self.balance.suspected(&mut self.datapath, self.slow_path.as_ref(), suspect, now());
                }
                Wake::Untaken(untaken) => {
                    self.balance.untaken(&mut self.datapath, self.slow_path.as_ref(), untaken, now());
                }
                Wake::Path(heard) => self.hear_of_path(heard),
                Wake::Measured(measurement) => self.round_trips.hear(measurement, now()),
                Wake::Asked(Some(judged)) => self.hear_of_way(judged).await,
                Wake::Links => {
                    self.follow_ways();
                    self.reconcile_due = self.reconcile_due.min(Instant::now() + SETTLE);
                }
                Wake::Asked(None) | Wake::Time => {}
            }
            self.tick();
            if self.reconcile_due <= Instant::now() {
                self.reconcile().await;
            }
        }
        if self.tables_due.is_some() {
            self.save_tables();
        }
        // From now on what would go there is dropped, and counted as such.
        if let Err(error) = self.datapath.close_slow_path() {
            tracing::warn!(error = chain(&error), "the slow path is not taken back");
        }
    }

    async fn wait(&mut self, commands: &mut mpsc::Receiver<Command>) -> Wake {
        let deadline = self.deadline();
        let session = async {
            match &mut self.cluster {
                // The driver holds the other end for as long as the session lives.
                Some(cluster) => match cluster.events.recv().await {
                    Some(event) => event,
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let slow_path = async {
            match &mut self.slow_path {
                Some(slow_path) => slow_path.next().await,
                None => std::future::pending().await,
            }
        };
        let path_mtus = async {
            match &mut self.path_mtus {
                Some(path_mtus) => path_mtus.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => Wake::Stop,
            command = commands.recv() => Wake::Command(command),
            event = session => Wake::Event(event),
            event = self.kernel.next() => match event {
                Ok(datapath::Event::Miss(miss)) => Wake::Miss(miss.service_ip),
                Ok(datapath::Event::Suspect(suspect)) => Wake::Suspect(suspect),
                Err(error) => {
                    tracing::error!(error = chain(&error), "cannot read what the data plane tells");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Wake::Time
                }
            },
            news = slow_path => match news {
                News::Missed(address) => Wake::Miss(address),
                News::Untaken(untaken) => Wake::Untaken(untaken),
            },
            heard = path_mtus => Wake::Path(heard),
            measurement = self.round_trips.next() => Wake::Measured(measurement),
            judged = self.offloads.next() => Wake::Asked(judged),
            () = self.watch.changed() => Wake::Links,
            () = tokio::time::sleep_until(deadline) => Wake::Time,
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Register(request, reply) => self.register(&request, reply).await,
            Command::Attach(request, reply) => self.attach(request, reply).await,
            Command::Detach(request, reply) => {
                let detached = self.detach(&request).await;
                answer(reply, detached);
            }
            Command::Report(reply) => {
                reply.send(self.report().await).ok();
            }
        }
    }

    fn deadline(&self) -> Instant {
        let registrations = self.registrations.iter().map(|(deadline, _)| *deadline);
        let unnamed = self.unnamed.iter().map(|unnamed| unnamed.deadline);
        let subnet = self.cluster.as_ref().and_then(|cluster| cluster.subnet_due);
        let resolver = self.resolver.deadline().map(Instant::from_std);
        let balance = self.balance.deadline().map(Instant::from_std);
        let path_mtus = self.path_mtus.as_ref().and_then(PathMtus::deadline).map(Instant::from_std);
        let round_trips = self.round_trips.deadline().map(Instant::from_std);
        let once = [self.tables_due, subnet, resolver, balance, path_mtus, round_trips, self.asking_due()];
        registrations
            .chain(unnamed)
            .chain(once.into_iter().flatten())
            .fold(self.sweep_due.min(self.reconcile_due), Instant::min)
    }

    /// Does whatever is due.
    fn tick(&mut self) {
        let moment = Instant::now();
        let actions = self.resolver.tick(moment.into_std());
        self.carry_out(actions);
        self.balance.tick(&mut self.datapath, self.slow_path.as_ref(), moment.into_std());
        self.expire_registrations(moment);
        self.answer_unnamed(moment);
        self.tend_paths(moment);
        self.tend_round_trips(moment);
        self.ask_nodes(moment);
        self.ask_for_block_again(moment);
        if self.tables_due.is_some_and(|due| due <= moment) {
            self.save_tables();
        }
        if self.sweep_due <= moment {
            self.sweep_due = moment + SWEEP;
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        if !self.resolver.may_sweep(now()) {
            return;
        }
        let flows = match self.datapath.flows() {
            Ok(flows) => flows,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot tell which services are in use");
                return;
            }
        };
        let used = flows.iter().filter(|flow| is_use(flow) && !is_question(flow));
        let used: HashSet<_> = used.map(|flow| flow.service.ip()).collect();
        let actions = self.resolver.sweep(|address| used.contains(&address), now());
        self.carry_out(actions);
    }

    fn save_tables(&mut self) {
        self.tables_due = None;
        let tables = self.resolver.answers().cloned().collect();
        if let Err(error) = self.store.save_tables(tables) {
            tracing::warn!(error = chain(&error), "the tables are not saved");
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Whoever asked may have gone away meanwhile.
fn answer<T>(reply: Reply<T>, result: Result<T, Refusal>) {
    reply.send(result).ok();
}
