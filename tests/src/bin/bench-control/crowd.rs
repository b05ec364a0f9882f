//! Many workers in one process: each speaks as node-engine and netmanager do, over two connections of its own, and runs
//! nothing. `bench-control crowd` is that process; whoever has started it asks for [`Counts`] line by line.

mod worker;

use std::io::{BufRead as _, Write as _};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use worker::Simulated;

/// Workers that join at the same time.
const JOINING: usize = 64;

/// Workers that speak and run nothing.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Crowd {
    /// Of the cluster that they join
    #[arg(long)]
    pub(crate) cluster: Ipv4Addr,
    /// How many they are
    #[arg(long)]
    pub(crate) workers: u32,
    /// The number in the name of the first one
    #[arg(long)]
    pub(crate) first: u32,
}

/// What they have done and said so far, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Workers that have registered, and have their connections and their addresses.
    pub(crate) joined: u64,
    /// Connections that were lost.
    pub(crate) lost: u64,
    /// Instances that they have.
    pub(crate) instances: u64,
    /// Messages to and from them.
    pub(crate) messages: u64,
    /// Of these, those that say nothing but that a worker is there.
    pub(crate) alive: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            joined: self.joined + other.joined,
            lost: self.lost + other.lost,
            instances: self.instances + other.instances,
            messages: self.messages + other.messages,
            alive: self.alive + other.alive,
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    joined: AtomicU64,
    lost: AtomicU64,
    instances: AtomicU64,
    messages: AtomicU64,
    alive: AtomicU64,
}

impl Tally {
    fn counts(&self) -> Counts {
        let [joined, lost, instances, messages, alive] =
            [&self.joined, &self.lost, &self.instances, &self.messages, &self.alive]
                .map(|count| count.load(Ordering::Relaxed));
        Counts { joined, lost, instances, messages, alive }
    }
}

impl Crowd {
    /// Until its standard input ends.
    pub(crate) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let tally = Arc::new(Tally::default());
        let joining = Arc::new(Semaphore::new(JOINING));
        let client = reqwest::Client::builder().no_proxy().build().context("make an HTTP client")?;
        for number in self.first..self.first + self.workers {
            let worker = Simulated::new(number, self.cluster, client.clone(), Arc::clone(&tally));
            runtime.spawn(worker.live(Arc::clone(&joining)));
        }
        let mut answers = std::io::stdout();
        for line in std::io::stdin().lock().lines() {
            line.context("read standard input")?;
            let counts = serde_json::to_string(&tally.counts()).context("write the counts")?;
            writeln!(answers, "{counts}").and_then(|()| answers.flush()).context("answer")?;
        }
        runtime.shutdown_background();
        Ok(())
    }
}
