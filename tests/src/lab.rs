//! A whole system on one machine: control nodes and workers as network namespaces on a common underlay, with the
//! built daemons and a real containerd each.
//!
//! ```text
//!   control .10   (cluster .20)   worker1 .31   worker2 .32   worker3 .33   (cluster2 .21   one worker of its own)
//!        └──────────────┴──────────────┴─────────────┴─────────────┘
//!                     underlay: a bridge, 192.0.2.0/24, router .1
//! ```
//!
//! Everything a daemon writes is in the lab's folder under `/tmp` (short, because the path of a UNIX socket has at
//! most 107 bytes) or pinned below `/sys/fs/bpf`. One lab runs at a time on a machine: cgroups are common to all.

use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use protocol::plan::Plan;

use crate::container::Container;
use crate::wait::eventually;

mod control;
mod machine;
mod mosquitto;
mod underlay;
mod worker;

use machine::Folder;

pub use control::Control;
pub use machine::{Machine, folders, pins, prepare};
pub use underlay::{UPLINK, Underlay};
pub use worker::Worker;

/// Where root and cluster run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One process for both, on one node: `orchestrator standalone`.
    Standalone,
    /// A process and a node each.
    Split,
}

/// Where the cluster and its workers meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// In the cluster's process.
    Embedded,
    /// In one of its own.
    Mosquitto,
}

/// Root, cluster, workers and what joins them. Stopped and removed when it is dropped.
#[derive(Debug)]
pub struct Lab {
    // In the order of their end.
    pub workers: Vec<Worker>,
    pub control: Control,
    pub underlay: Underlay,
    folder: Folder,
}

impl Lab {
    /// Starts everything and waits until all workers have joined. `progress` is told what stands.
    pub fn start(
        machine: &Machine,
        workers: u8,
        topology: Topology,
        progress: impl FnMut(&str),
    ) -> Result<Self> {
        Self::start_with(machine, workers, topology, Plan::default(), Broker::Embedded, progress)
    }

    /// As [`Self::start`], with these addresses for the overlay, and this broker.
    pub fn start_with(
        _machine: &Machine,
        workers: u8,
        topology: Topology,
        plan: Plan,
        broker: Broker,
        mut progress: impl FnMut(&str),
    ) -> Result<Self> {
        let folder = Folder::make()?;
        let underlay = Underlay::make()?;
        let mut control = Control::start(&underlay, folder.path(), topology, plan, broker)?;
        control.wait_until_ready()?;
        progress(&format!("{} at {}", control.description(), control.root_address()));
        let cluster = control.cluster_address();
        let started: Vec<Result<Worker>> = thread::scope(|scope| {
            let starting: Vec<_> = (1..=workers)
                .map(|number| {
                    let (underlay, folder) = (&underlay, folder.path());
                    scope.spawn(move || Worker::start(number, underlay, folder, cluster))
                })
                .collect();
            starting
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let workers = started.into_iter().collect::<Result<Vec<_>>>()?;
        let mut lab = Self { workers, control, underlay, folder };
        lab.wait_until_joined().map_err(|error| anyhow!("{error:#}\n{}", lab.log_tails()))?;
        for worker in &lab.workers {
            progress(&format!("{} at {}", worker.name, worker.address));
        }
        Ok(lab)
    }

    /// Starts another cluster of this name, without workers, and gives its address. It stays for as long as the lab: the
    /// root would take a cluster that ends for one that is out of reach.
    pub fn add_empty_cluster(&mut self, name: &str) -> Result<Ipv4Addr> {
        self.control.start_another_cluster(&self.underlay, self.folder.path(), name)
    }

    /// As [`Self::add_empty_cluster`], with a worker of its own, the last in the list from then on.
    pub fn add_cluster(&mut self, name: &str) -> Result<&Worker> {
        let cluster = self.add_empty_cluster(name)?;
        let number = u8::try_from(self.workers.len() + 1).context("number of a worker")?;
        self.workers.push(Worker::start(number, &self.underlay, self.folder.path(), cluster)?);
        self.wait_until_joined()?;
        self.workers.last().context("a worker")
    }

    /// Waits until the clusters count all workers (and perhaps strangers that registered), or a daemon ends.
    pub fn wait_until_joined(&mut self) -> Result<()> {
        let wanted = self.workers.len();
        eventually(Duration::from_secs(30), &format!("{wanted} workers at their clusters"), || {
            self.expect_running().map_err(|error| format!("{error:#}"))?;
            match self.control.active_workers() {
                Ok(count) if count >= wanted => Ok(()),
                Ok(count) => Err(format!("{count} workers")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
    }

    /// Fails when a daemon has ended by itself.
    pub fn expect_running(&mut self) -> Result<()> {
        self.control.expect_running()?;
        self.workers.iter_mut().try_for_each(Worker::expect_running)
    }

    /// Gives a worker that lost its power its cable and its daemons back.
    pub fn repair(&mut self, worker: usize) -> Result<()> {
        let worker = &mut self.workers[worker];
        self.underlay.plug_in(&worker.name)?;
        worker.power_on()?;
        self.wait_until_joined()
    }

    /// Stops all workers in good order, and reports what did not stop or could not be taken away. Dropping the lab
    /// does the same without a report.
    pub fn stop(&mut self) -> Result<()> {
        let failures: Vec<String> = self
            .workers
            .iter_mut()
            .filter_map(|worker| worker.stop().err().map(|error| format!("{}: {error:#}", worker.name)))
            .collect();
        ensure!(failures.is_empty(), "stop the workers: {}", failures.join("; "));
        Ok(())
    }

    /// The folder of logs, state and sockets.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The running containers of a service (`app.ns.service.ns`), with the number of the worker in `workers`, in the
    /// order of their instance numbers.
    pub fn containers_of(&self, service: &str) -> Result<Vec<(usize, Container)>> {
        let mut found = Vec::new();
        for (index, worker) in self.workers.iter().enumerate() {
            if !worker.is_up() {
                continue;
            }
            for task in worker.containerd.tasks()? {
                let number = task.id.strip_prefix(service).and_then(|rest| rest.strip_prefix(".instance."));
                if let (Some(number), "RUNNING") = (number, task.status.as_str()) {
                    let number: u32 =
                        number.parse().with_context(|| format!("instance number in {}", task.id))?;
                    found.push((number, index, Container::of(&task)?));
                }
            }
        }
        found.sort_by_key(|(number, ..)| *number);
        Ok(found.into_iter().map(|(_, index, container)| (index, container)).collect())
    }

    /// The end of each daemon's log, for the message of a failure.
    #[must_use]
    pub fn log_tails(&self) -> String {
        self.control
            .daemons()
            .chain(self.workers.iter().flat_map(Worker::daemons))
            .map(|daemon| {
                format!(
                    "--- {}, end of {}\n{}\n",
                    daemon.name(),
                    daemon.recipe().log.display(),
                    daemon.recipe().log_tail()
                )
            })
            .collect()
    }
}
