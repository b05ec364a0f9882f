//! The data plane of this node: programs in the kernel, or, where those are not to be had, threads of this process. Both
//! take the same tables.

mod backends;
mod error;
mod paths;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use protocol::plan::Plan;
use serde::{Deserialize, Serialize};

pub use self::backends::Backends;
pub use self::error::PlaneError;
pub use self::paths::PathTable;
pub(crate) use self::seen::Seen;
use crate::datapath::{
    self, Counters, Datapath, DatapathError, Decapsulation, Endpoint, Event, Flow, Node, Options, Placement,
    Repair, Service,
};
use crate::error::chain;
use crate::net::Links;
use crate::report::Kernel;
use crate::{bpffs, selftest, userspace};
use netmanager_common::link::Link;

/// Which of them a node is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// In the kernel where it lets us, else in user space.
    #[default]
    Auto,
    /// In the kernel, or not at all.
    Ebpf,
    /// In user space.
    #[value(alias = "tun")]
    Userspace,
}

/// Which of them it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Ebpf,
    Userspace,
}

/// The one that runs. See [`Datapath`] for what the verbs do.
#[derive(Debug)]
pub enum Plane {
    Ebpf(Box<Datapath>),
    Userspace(Box<userspace::Datapath>),
}

/// What it tells, as it occurs.
#[derive(Debug)]
pub enum Events {
    Ebpf(Box<datapath::Events>),
    Userspace(userspace::Events),
}

/// What [`Plane::open`] gives.
#[derive(Debug)]
pub struct Opened {
    pub plane: Plane,
    pub events: Events,
    /// Why it is in user space although the kernel was to be tried first.
    pub fallback: Option<String>,
}

/// The tables, to be read by another task.
#[derive(Debug)]
pub(crate) enum Reader {
    Ebpf(Box<datapath::Tables>),
    Userspace(userspace::Reader),
}

impl Plane {
    /// Opens the one that is chosen, and takes away what the other one has left in the kernel. Call within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When it, or neither, is to be had.
    pub fn open(choice: Choice, options: &Options) -> Result<Opened, PlaneError> {
        let mut fallback = None;
        let opened = match choice {
            Choice::Ebpf => {
                match try_packets(options) {
                    Err(error @ PlaneError::Packets(_)) => {
                        let error = chain(&error);
                        tracing::error!(
                            error,
                            "the data plane in the kernel is used all the same, as it was asked for"
                        );
                    }
                    tried => tried?,
                }
                Self::in_kernel(options)
            }
            Choice::Userspace => Self::in_process(options),
            Choice::Auto => match try_packets(options).and_then(|()| Self::in_kernel(options)) {
                Err(error) if error.is_about_the_kernel() => {
                    tracing::warn!(
                        error = chain(&error),
                        "no data plane in the kernel, so this process forwards packets itself: with less throughput, more \
                         CPU, and only while it runs; for the kernel's, run netmanager as root (CAP_BPF, CAP_NET_ADMIN) \
                         on Linux 5.15 or later, outside of sandboxes that forbid bpf(2); `netmanager doctor` says what is missing"
                    );
                    let ebpf = chain(&error);
                    let opened = Self::in_process(options).map_err(|source| PlaneError::Neither {
                        ebpf: ebpf.clone(),
                        source: Box::new(source),
                    });
                    fallback = Some(ebpf);
                    opened
                }
                opened => opened,
            },
        };
        opened.map(|(plane, events)| Opened { plane, events, fallback })
    }

    fn in_kernel(options: &Options) -> Result<(Self, Events), PlaneError> {
        bpffs::ensure(&options.pin_dir)?;
        let mut datapath = Datapath::open(options.clone())?;
        // The guard would drop what the programs leave to the host.
        if userspace::guard::remove().unwrap_or(false) {
            tracing::info!("the data plane moves from user space into the kernel");
        }
        let events = datapath.events()?;
        Ok((Self::Ebpf(Box::new(datapath)), Events::Ebpf(Box::new(events))))
    }

    fn in_process(options: &Options) -> Result<(Self, Events), PlaneError> {
        if options.pin_dir.exists() {
            // Else both would forward each packet.
            let removed = Datapath::remove_all(&options.pin_dir);
            removed.map_err(|source| PlaneError::OldPrograms { pin_dir: options.pin_dir.clone(), source })?;
        }
        let (datapath, events) = userspace::Datapath::open(options.tunnel_port, options.plan)?;
        Ok((Self::Userspace(Box::new(datapath)), Events::Userspace(events)))
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        match self {
            Self::Ebpf(_) => Mode::Ebpf,
            Self::Userspace(_) => Mode::Userspace,
        }
    }

    /// As [`Datapath::set_plan`].
    pub fn set_plan(&mut self, plan: Plan) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.set_plan(plan)?),
            Self::Userspace(datapath) => datapath.set_plan(plan),
        }
    }

    /// As [`Datapath::set_uplinks`].
    pub fn set_uplinks(
        &mut self,
        address: IpAddr,
        primary: u32,
        others: &[u32],
        ways: &BTreeMap<IpAddr, u32>,
    ) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.set_uplinks(address, primary, others, ways)?),
            Self::Userspace(datapath) => datapath.set_uplinks(address.into(), primary, others, ways),
        }
    }

    /// As [`Datapath::set_egress`].
    pub fn set_egress(&mut self, node: IpAddr, ifindex: Option<u32>) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.set_egress(node, ifindex)?),
            Self::Userspace(datapath) => datapath.set_egress(node, ifindex),
        }
    }

    /// The nodes that the tables lead to.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<IpAddr> {
        match self {
            Self::Ebpf(datapath) => datapath.peers().collect(),
            Self::Userspace(datapath) => datapath.control().nodes(),
        }
    }

    /// The interfaces at which packets of other nodes are taken; none that can be read is none.
    #[must_use]
    pub fn uplinks(&self) -> Vec<u32> {
        match self {
            Self::Ebpf(datapath) => datapath.tables().uplinks().unwrap_or_default(),
            Self::Userspace(datapath) => datapath.control().uplinks(),
        }
    }

    pub fn attach_endpoint(&mut self, endpoint: &Endpoint) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.attach_endpoint(endpoint)?),
            Self::Userspace(datapath) => datapath.attach_endpoint(endpoint),
        }
    }

    /// Whether it can let the node's own processes speak to services.
    #[must_use]
    pub fn is_in_kernel(&self) -> bool {
        self.mode() == Mode::Ebpf
    }

    /// As [`Datapath::set_link`]. In user space packets are always bare.
    pub fn set_link(&mut self, node: IpAddr, link: Link) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.set_link(node, link)?),
            Self::Userspace(_) => Ok(()),
        }
    }

    /// As [`Datapath::linked`].
    pub fn linked(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let linked: Vec<_> = match self {
            Self::Ebpf(datapath) => datapath.linked().collect(),
            Self::Userspace(_) => Vec::new(),
        };
        linked.into_iter()
    }

    /// As [`Datapath::attach_node_itself`].
    pub fn attach_node_itself(&mut self, endpoint: &Endpoint) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.attach_node_itself(endpoint)?),
            Self::Userspace(datapath) => datapath.attach_node_itself(endpoint),
        }
    }

    pub fn detach_endpoint(&mut self, ns_ip: Ipv4Addr) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.detach_endpoint(ns_ip)?),
            Self::Userspace(datapath) => datapath.detach_endpoint(ns_ip),
        }
    }

    pub fn node(&self) -> Result<Option<Node>, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.tables().node()?),
            Self::Userspace(datapath) => Ok(datapath.control().node()),
        }
    }

    pub fn endpoints(&self) -> Result<Vec<Endpoint>, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.endpoints()?),
            Self::Userspace(datapath) => Ok(datapath.control().endpoints()),
        }
    }

    pub fn services(&self) -> Result<Vec<Service>, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.services()?),
            Self::Userspace(datapath) => Ok(datapath.control().services()),
        }
    }

    pub fn flows(&self) -> Result<Vec<Flow>, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.flows()?),
            Self::Userspace(datapath) => Ok(datapath.control().flows()),
        }
    }

    pub fn counters(&self) -> Result<Counters, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.counters()?),
            Self::Userspace(datapath) => Ok(datapath.control().counters()),
        }
    }

    /// What `netmanager status` shows of it.
    pub async fn look(&self, links: &Links) -> Result<Kernel, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(Kernel::read(datapath.tables(), links).await?),
            Self::Userspace(datapath) => Ok(Kernel::of_process(datapath.control())),
        }
    }

    /// As [`Datapath::decapsulate`]. In user space there is no such place: sockets take the outer headers off.
    pub fn decapsulate(&mut self, wanted: Decapsulation) -> Result<Vec<Placement>, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.decapsulate(wanted)?),
            Self::Userspace(_) => Ok(Vec::new()),
        }
    }

    /// From now on what would go to the slow path is dropped, and counted.
    pub fn close_slow_path(&mut self) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.set_slow_path(None)?),
            Self::Userspace(datapath) => {
                datapath.close_slow_path();
                Ok(())
            }
        }
    }

    /// In user space nothing outlives its writer.
    pub fn sweep(&mut self) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.sweep()?),
            Self::Userspace(_) => Ok(()),
        }
    }

    /// As [`Datapath::repair`]; of user space the guard, which somebody may have removed.
    pub fn repair(&mut self) -> Result<Vec<Repair>, PlaneError> {
        match self {
            Self::Ebpf(datapath) => {
                bpffs::ensure(datapath.pin_dir())?;
                Ok(datapath.repair()?)
            }
            Self::Userspace(datapath) => Ok(datapath.repair()?.into_iter().collect()),
        }
    }

    /// Takes everything away that either has left in the kernel. Says what there was.
    pub fn remove_all(pin_dir: &Path) -> Result<Vec<String>, PlaneError> {
        let mut removed = Vec::new();
        let there_were_pins = pin_dir.exists();
        Datapath::remove_all(pin_dir)?;
        removed.extend(there_were_pins.then(|| format!("the data plane pinned under {}", pin_dir.display())));
        let there_was_a_guard = userspace::guard::remove().map_err(|source| PlaneError::Guard { source })?;
        removed.extend(there_was_a_guard.then(|| format!("nftables table inet {}", userspace::guard::TABLE)));
        Ok(removed)
    }
}

/// Whether packets come out of the programs right: [`selftest`]. What is pinned was tried when it was. Where it cannot be
/// tried, that is no reason to do without programs.
fn try_packets(options: &Options) -> Result<(), PlaneError> {
    bpffs::ensure(&options.pin_dir)?;
    if options.pin_dir.exists() {
        return Ok(());
    }
    match selftest::run(&options.pin_dir) {
        Err(error) if !error.is_about_packets() => {
            tracing::debug!(error = chain(&error), "the programs are not tried before they are used");
            Ok(())
        }
        tried => Ok(tried?),
    }
}

impl Events {
    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Result<Event, DatapathError> {
        match self {
            Self::Ebpf(events) => events.next().await,
            Self::Userspace(events) => Ok(events.next().await),
        }
    }
}
