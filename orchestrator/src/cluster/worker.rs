//! A worker as its cluster knows it: who it is (stored), and what it last said of itself (not stored).

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::name::InstanceName;
use protocol::net::Subnet;
use protocol::node::Node;
use serde::{Deserialize, Serialize};

/// The port Oakestra records for a worker that does not say its own. Clients show it, nothing connects to it.
const PORT_UNKNOWN: u16 = 50011;
/// Silence after which a worker counts as unreachable, unless it is dead before: Oakestra's report every 2 s.
pub(super) const UNREACHABLE_AFTER: Duration = Duration::from_secs(6);
/// So many signs of life in a row that have to be missed for that.
const MISSED: u32 = 3;
/// Instances of one worker that are remembered from its last report: many times of what it has addresses for.
const NAMED_MAX: usize = 1024;

/// What must not be lost of a worker. Its host name is its identity: the same name is the same worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: Id,
    /// As it described itself when it registered.
    pub(super) node: Node,
    /// Its block of addresses, once it has asked for one; the same for as long as the worker is known.
    #[serde(default)]
    pub(super) subnet: Option<Subnet>,
    /// Nothing new is placed there, by the will of an operator.
    #[serde(default)]
    pub(super) cordoned: bool,
    /// What runs there is moved to others, likewise. Only where it is cordoned.
    #[serde(default)]
    pub(super) draining: bool,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) record: Record,
    /// The record, with what the reports since then changed.
    node: Node,
    /// The least memory that was available since there was last more room.
    memory_low: u64,
    last_heard: Instant,
    standing: Standing,
    /// When its node-engine last took up its commands, and how many resource reports have come since.
    pub(super) connected: Option<Connected>,
    /// What it named in its last report, if it has made one.
    pub(super) named: Option<Named>,
}

/// The instances of a report, [`NAMED_MAX`] at most, of which more may be to come.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) instances: Vec<NamedInstance>,
    more: bool,
}

/// One of them.
#[derive(Debug)]
pub(super) struct NamedInstance {
    pub(super) name: InstanceName,
    /// The service that it was found to be of, so that it need not be looked for each time.
    pub(super) service: Option<Id>,
}

impl Named {
    /// A report, or its next part.
    pub(super) fn take(&mut self, names: impl Iterator<Item = InstanceName>, more: bool) {
        if !self.more {
            self.instances.clear();
        }
        let names = names.take(NAMED_MAX - self.instances.len());
        self.instances.extend(names.map(|name| NamedInstance { name, service: None }));
        self.more = more;
    }
}

/// How often a worker is to say at least that it is there, in milliseconds, where one that is silent for `timeout` is dead.
pub(super) fn alive_every(timeout: Duration) -> NonZeroU32 {
    let every = UNREACHABLE_AFTER.min(timeout) / MISSED;
    u32::try_from(every.as_millis()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Connected {
    pub(super) since: Instant,
    pub(super) reports: u32,
}

/// What a worker's silence means so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Reachable,
    /// It missed reports: nothing new is placed there, and what runs there is left where it is.
    Unreachable,
    /// It was silent for the whole worker timeout; what ran there is placed elsewhere.
    Dead,
}

/// What it means that a worker was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// After it was dead.
    Again,
    /// After it was unreachable.
    InTime,
    Still,
}

impl Worker {
    /// A worker whose silence counts from `since` on.
    pub(super) fn new(record: Record, since: Instant) -> Self {
        let node = record.node.clone();
        let memory_low = node.memory;
        let standing = Standing::Reachable;
        Self { record, node, memory_low, last_heard: since, standing, connected: None, named: None }
    }

    pub(super) fn id(&self) -> Id {
        self.record.id
    }

    pub(super) fn host(&self) -> &str {
        &self.record.node.host
    }

    /// What it says of itself now.
    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn port(&self) -> u16 {
        self.record.node.port.parse().ok().filter(|port| *port != 0).unwrap_or(PORT_UNKNOWN)
    }

    /// Since it was last heard of.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }

    /// So much of its silence does not count; but what comes after `latest` does.
    pub(super) fn excuse(&mut self, silence: Duration, latest: Instant) {
        self.last_heard = (self.last_heard + silence).min(latest.max(self.last_heard));
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether what is on it is thought to run.
    pub(super) fn is_alive(&self) -> bool {
        self.standing != Standing::Dead
    }

    /// It registered (again). Blank values do not erase what was known.
    pub(super) fn register(&mut self, node: &Node) {
        merge(&mut self.record.node, node);
        merge(&mut self.node, node);
    }

    /// It reported: the measurements are new, the blanks are nothing. Says whether there is more room than before, by
    /// more than memory use wavers: what waits for room is looked at again then, and not at every report.
    pub(super) fn report(&mut self, node: &Node) -> bool {
        merge(&mut self.node, node);
        let memory = self.node.memory;
        let more = memory >= self.memory_low.saturating_add((self.memory_total() / 50).max(16));
        if more || memory < self.memory_low {
            self.memory_low = memory;
        }
        more
    }

    pub(super) fn heard(&mut self, now: Instant) -> Heard {
        self.last_heard = now;
        match std::mem::replace(&mut self.standing, Standing::Reachable) {
            Standing::Dead => Heard::Again,
            Standing::Unreachable => Heard::InTime,
            Standing::Reachable => Heard::Still,
        }
    }

    /// What has just become of it by being silent until `now`; `None` if nothing changed. It is unreachable before it
    /// is dead, however late this is asked, and each is said once per silence.
    pub(super) fn falls_silent(&mut self, now: Instant, timeout: Duration) -> Option<Standing> {
        let silence = now.saturating_duration_since(self.last_heard);
        let standing = match self.standing {
            Standing::Reachable if silence >= UNREACHABLE_AFTER.min(timeout) => Standing::Unreachable,
            Standing::Unreachable if silence >= timeout => Standing::Dead,
            Standing::Reachable | Standing::Unreachable | Standing::Dead => return None,
        };
        self.standing = standing;
        if standing == Standing::Dead {
            self.connected = None;
        }
        Some(standing)
    }

    /// MiB of the whole machine, from the available and the used part.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an estimate; the share in use is checked to be in 0..100 before"
    )]
    pub(super) fn memory_total(&self) -> u64 {
        let Node { memory, memory_percent, .. } = self.node;
        if (0.0..99.9).contains(&memory_percent) {
            (memory as f64 / (1.0 - memory_percent / 100.0)) as u64
        } else {
            memory
        }
    }
}

/// Takes from `new` what it says. Periodic reports leave text and lists blank, and Oakestra's cluster stores the
/// blanks: that is how its workers lose their names.
fn merge(known: &mut Node, new: &Node) {
    fn text(known: &mut String, new: &str) {
        if !new.is_empty() {
            new.clone_into(known);
        }
    }
    text(&mut known.host, &new.host);
    text(&mut known.ip, &new.ip);
    text(&mut known.port, &new.port);
    text(&mut known.architecture, &new.architecture);
    if new.system_info.is_some() {
        known.system_info.clone_from(&new.system_info);
    }
    if new.disk_info.is_some() {
        known.disk_info.clone_from(&new.disk_info);
    }
    if new.location.is_some() {
        known.location = new.location;
    }
    if new.vcpus > 0 {
        known.vcpus = new.vcpus;
    }
    if new.memory > 0 {
        known.memory = new.memory;
        known.memory_percent = new.memory_percent;
    }
    known.cpu_percent = new.cpu_percent;
    if new.vgpus > 0 {
        known.vgpus = new.vgpus;
    }
    for (known, new) in
        [(&mut known.supported_addons, &new.supported_addons), (&mut known.csi_drivers, &new.csi_drivers)]
    {
        if !new.is_empty() {
            known.clone_from(new);
        }
    }
    if !new.virtualization.is_empty() {
        known.virtualization.clone_from(&new.virtualization);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use protocol::node::Node;

    use super::{Heard, Record, Standing, Worker};

    fn worker(now: Instant) -> Worker {
        let node = Node {
            host: "pi1".to_owned(),
            ip: "192.0.2.31".to_owned(),
            vcpus: 2,
            memory: 1000,
            memory_percent: 50.0,
            virtualization: vec!["docker".to_owned()],
            ..Node::default()
        };
        Worker::new(
            Record {
                id: protocol::id::Id::from_bytes([1; 12]),
                node,
                subnet: None,
                cordoned: false,
                draining: false,
            },
            now,
        )
    }

    #[test]
    fn blanks_in_a_report_erase_nothing() {
        let mut worker = worker(Instant::now());
        let report = r#"{"id":"","host":"","ip":"192.0.2.32","port":"","system_info":null,"cpu_percent":6.8,"vcpus":2,
            "architecture":"","memory_percent":25.0,"memory":1500,"virtualization":null,"csi_drivers":null}"#;
        worker.report(&serde_json::from_str(report).unwrap());
        assert_eq!(worker.host(), "pi1");
        assert_eq!(worker.node().ip, "192.0.2.32");
        assert_eq!(worker.node().virtualization, ["docker"]);
        assert_eq!((worker.node().memory, worker.memory_total()), (1500, 2000));
        assert_eq!(worker.record.node.memory, 1000, "measurements are not stored");
    }

    #[test]
    fn silence_is_told_once_and_ends_with_the_first_word() {
        let start = Instant::now();
        let timeout = Duration::from_secs(30);
        let mut worker = worker(start);
        assert_eq!(worker.falls_silent(start + Duration::from_secs(5), timeout), None);
        assert_eq!(worker.falls_silent(start + Duration::from_secs(6), timeout), Some(Standing::Unreachable));
        assert_eq!(worker.falls_silent(start + Duration::from_secs(29), timeout), None);
        assert!(worker.is_alive());
        assert_eq!(worker.falls_silent(start + timeout, timeout), Some(Standing::Dead));
        assert!(!worker.is_alive());
        assert_eq!(worker.falls_silent(start + timeout * 2, timeout), None);
        assert_eq!(worker.heard(start + timeout * 2), Heard::Again);
        assert_eq!(worker.heard(start + timeout * 2), Heard::Still);
        assert_eq!(worker.falls_silent(start + timeout * 2, timeout), None);
    }

    #[test]
    fn a_worker_that_is_heard_while_unreachable_is_in_time() {
        let start = Instant::now();
        let timeout = Duration::from_secs(30);
        let mut worker = worker(start);
        let back = start + Duration::from_secs(29);
        assert!(worker.falls_silent(back, timeout).is_some());
        assert_eq!(worker.heard(back), Heard::InTime);
        assert_eq!(worker.falls_silent(start + timeout, timeout), None);
    }

    #[test]
    fn a_worker_is_unreachable_before_it_is_dead_however_late_it_is_looked_at() {
        let start = Instant::now();
        for timeout in [2, 6, 30].map(Duration::from_secs) {
            let mut worker = worker(start);
            let late = start + timeout * 3;
            assert_eq!(worker.falls_silent(late, timeout), Some(Standing::Unreachable));
            assert_eq!(worker.falls_silent(late, timeout), Some(Standing::Dead));
        }
    }
}
