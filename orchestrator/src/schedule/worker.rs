//! What placement weighs: a request, and a worker with what is left of it.

use protocol::constraint::Near;
use protocol::id::Id;
use protocol::location::Location;

use super::reach::{Link, Reach};

/// What one instance wants. A list that is empty asks nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// MiB.
    pub memory: u64,
    /// MB on disk.
    pub storage: u64,
    pub vcpus: u32,
    pub vgpus: u32,
    pub virtualization: String,
    /// Host names from `direct` constraints, of which any will do.
    pub nodes: Vec<String>,
    /// Any of these.
    pub architectures: Vec<String>,
    /// All of these.
    pub drivers: Vec<String>,
    /// All of these.
    pub addons: Vec<String>,
    pub near: Vec<Near>,
    pub links: Vec<Link>,
    /// A way of which nothing is known is none.
    pub only_known: bool,
    /// Where it failed last. It may fail there again: as good a reason to go elsewhere as a sibling.
    pub avoid: Option<Id>,
}

/// A worker as placement sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    pub id: Id,
    pub host: String,
    /// Heard from within the worker timeout.
    pub responding: bool,
    /// It is to get nothing new, by the will of an operator.
    pub cordoned: bool,
    pub vcpus: u32,
    pub vgpus: u32,
    pub virtualization: Vec<String>,
    /// Empty: it does not say.
    pub architecture: String,
    pub drivers: Vec<String>,
    pub addons: Vec<String>,
    pub location: Option<Location>,
    /// 0 to 100, measured.
    pub cpu_percent: f64,
    /// MiB the machine has.
    pub memory_total: u64,
    /// MiB available, measured.
    pub memory_available: u64,
    /// MB free on disk, measured; `None`: it does not say.
    pub disk_available: Option<u64>,
    /// MB on disk that instances placed here asked for and do not take up yet.
    pub disk_promised: u64,
    /// What all instances placed here asked for.
    pub committed: Share,
    /// The part of `committed` that the measurements cannot show yet.
    pub unreported: Share,
    /// Instances here of the service that is being placed.
    pub siblings: u32,
    /// Of each of the request's links.
    pub reach: Vec<Reach>,
}

/// An amount of what a machine has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// MiB.
    pub memory: u64,
    pub vcpus: u32,
}

impl Share {
    pub fn add(&mut self, other: Self) {
        self.memory = self.memory.saturating_add(other.memory);
        self.vcpus = self.vcpus.saturating_add(other.vcpus);
    }
}

impl Worker {
    /// MiB that may still be given out.
    #[must_use]
    pub fn memory_free(&self) -> u64 {
        let by_measurement = self.memory_available.saturating_sub(self.unreported.memory);
        let by_request = self.memory_total.saturating_sub(self.committed.memory);
        by_measurement.min(by_request)
    }

    /// MB on disk that may still be given out; `None`: it does not say.
    #[must_use]
    pub fn disk_free(&self) -> Option<u64> {
        self.disk_available.map(|available| available.saturating_sub(self.disk_promised))
    }

    /// Counts `request` as placed here.
    pub fn reserve(&mut self, request: &Request) {
        let share = Share { memory: request.memory, vcpus: request.vcpus };
        self.disk_promised = self.disk_promised.saturating_add(request.storage);
        self.committed.add(share);
        self.unreported.add(share);
        self.siblings += 1;
    }

    /// By how many kilometres it is too far away, at worst; 0 when it is near enough. `None`: it is not known where it is.
    #[must_use]
    pub fn too_far(&self, near: &[Near]) -> Option<f64> {
        near.iter().try_fold(0.0_f64, |worst, near| {
            let excess = self.location?.kilometres_to(near.location) - near.kilometres;
            Some(worst.max(excess))
        })
    }
}
