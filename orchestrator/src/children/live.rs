//! What is only observed, and never stored: loads, histories, when a cluster was last heard of. A restart begins with
//! nothing and knows all of it again after one report of each cluster.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use protocol::cluster::{Report, ReportedWorker};
use protocol::id::Id;
use protocol::net::NodeItself;
use protocol::service::Instance;
use serde_json::{Value, json};

use super::refusals::Refusals;
use crate::clock::{self, Moment};
use crate::wish::Wish;

/// Seconds without a report after which a cluster is no longer active, unless it is given up sooner than that. Clusters
/// report every 15 s.
pub const ACTIVE_FOR: f64 = 30.0;
/// What an instance says whose cluster is silent.
const UNHEARD: &str = "Its cluster is not heard of: the state is what it said last";
/// Points of a history that are kept.
const HISTORY: usize = 100;
/// What is kept of an instance's logs, in bytes; clusters send one KiB.
const LOGS_MAX: usize = 4096;
/// Seconds until the memory of an instance that was placed shows in its cluster's reports.
const PROMISE_FOR: f64 = 20.0;
/// Seconds from the moment that a cluster (re)appears until its reports must hold all that it was given.
const SETTLED_AFTER: f64 = 20.0;

#[derive(Debug)]
pub struct Live {
    /// When the daemon started, by the steady clock: the silence of clusters that were not heard of since counts from then.
    since: f64,
    /// Seconds: see [`ACTIVE_FOR`].
    active_for: f64,
    clusters: HashMap<Id, ClusterView>,
    instances: HashMap<(Id, u32), InstanceView>,
    pub(crate) refusals: Refusals,
}

/// A cluster as it last reported.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// Its services are not kept here.
    report: Report,
    last_heard: Option<Moment>,
    cpu: History<f64>,
    memory: History<f64>,
    /// When by the steady clock, and how many MB, was placed there lately.
    promises: Vec<(f64, u64)>,
    /// The number under which its last report was kept, if all of that was.
    taken: Option<u32>,
    /// From when on, by the steady clock, a report must hold all that the cluster was given; `None`: one did.
    audit_from: Option<f64>,
}

/// What an instance uses, as last reported.
#[derive(Debug, Clone, Default)]
struct InstanceView {
    disk: Option<String>,
    logs: String,
    last_modified_timestamp: f64,
    cpu: History<Option<String>>,
    memory: History<Option<String>>,
}

/// The last values of something, with their times in seconds since the epoch.
#[derive(Debug, Clone)]
struct History<T>(VecDeque<(f64, T)>);

impl<T> Default for History<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> History<T> {
    fn push(&mut self, now: f64, value: T) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        self.0.push_back((now, value));
    }

    fn last(&self) -> Option<&T> {
        self.0.back().map(|(_, value)| value)
    }

    fn points<P>(&self, point: impl Fn(f64, &T) -> P) -> Vec<P> {
        self.0.iter().map(|(at, value)| point(*at, value)).collect()
    }
}

impl Live {
    /// Nothing is known yet. Clusters are given up after so many seconds of silence.
    #[must_use]
    pub fn new(now: Moment, given_up_after: f64) -> Self {
        Self {
            since: now.steady,
            active_for: ACTIVE_FOR.min(given_up_after),
            clusters: HashMap::new(),
            instances: HashMap::new(),
            refusals: Refusals::default(),
        }
    }

    /// Whether the cluster was heard of lately.
    #[must_use]
    pub fn is_active(&self, cluster: Id, now: Moment) -> bool {
        let heard = self.clusters.get(&cluster).and_then(|view| view.last_heard);
        heard.is_some_and(|heard| now.steady - heard.steady <= self.active_for)
    }

    /// Whether nothing was heard of the cluster for so long that it is not active. After a start it has that time to speak.
    #[must_use]
    pub fn is_silent(&self, cluster: Id, now: Moment) -> bool {
        self.silence(cluster, now).as_secs_f64() > self.active_for
    }

    /// How long nothing was heard of a cluster, as far as can be known.
    #[must_use]
    pub fn silence(&self, cluster: Id, now: Moment) -> Duration {
        let heard = self.clusters.get(&cluster).and_then(|view| view.last_heard);
        let since = heard.map_or(self.since, |heard| heard.steady);
        Duration::try_from_secs_f64(now.steady - since).unwrap_or_default()
    }

    /// The cluster that has told of this worker.
    #[must_use]
    pub fn cluster_of_worker(&self, worker: Id) -> Option<Id> {
        let mut clusters = self.clusters.iter();
        clusters.find(|(_, view)| view.workers().any(|told| told.id == worker)).map(|(id, _)| *id)
    }

    /// What a cluster has told of its workers; nothing, if it has not, or never does.
    #[must_use]
    pub fn workers_of(&self, cluster: Id) -> Option<&[ReportedWorker]> {
        self.clusters.get(&cluster)?.report.workers.as_deref()
    }

    /// The node whose own processes speak under this NsIP.
    #[must_use]
    pub fn node_itself(&self, address: IpAddr) -> Option<&NodeItself> {
        let told = self.clusters.values().flat_map(ClusterView::workers);
        told.filter_map(|worker| worker.itself.as_ref()).find(|itself| match address {
            IpAddr::V4(address) => itself.nsip == address,
            IpAddr::V6(address) => itself.nsipv6 == Some(address),
        })
    }

    /// A cluster has deleted a worker, which its next report will show.
    pub(crate) fn deleted(&mut self, cluster: Id, worker: Id) {
        let workers = self.clusters.get_mut(&cluster).and_then(|view| view.report.workers.as_mut());
        if let Some(workers) = workers {
            workers.retain(|told| told.id != worker);
        }
    }

    /// A cluster has kept an operator's wish, which its next report will show.
    pub(crate) fn heed(&mut self, cluster: Id, worker: Id, wish: Wish) {
        let workers = self.clusters.get_mut(&cluster).and_then(|view| view.report.workers.as_mut());
        for told in workers.into_iter().flatten().filter(|told| told.id == worker) {
            told.cordoned = wish != Wish::Uncordon;
            told.draining = wish == Wish::Drain || (wish == Wish::Cordon && told.draining);
        }
    }
}

impl ClusterView {
    /// Those that it has told of.
    pub fn workers(&self) -> impl Iterator<Item = &ReportedWorker> {
        self.report.workers.iter().flatten()
    }

    /// Without services; all zeros before the first.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Seconds since the epoch; 0 before the first time.
    #[must_use]
    pub fn last_heard(&self) -> f64 {
        self.last_heard.map_or(0.0, |heard| heard.wall)
    }

    /// MB that its reports do not know of yet.
    #[must_use]
    pub fn promised_memory(&self, now: Moment) -> u64 {
        self.promises
            .iter()
            .filter(|(since, _)| now.steady - since < PROMISE_FOR)
            .map(|(_, memory)| memory)
            .sum()
    }

    /// The load over time, as clients read it: CPU, then memory.
    #[must_use]
    pub fn histories(&self) -> (Vec<Value>, Vec<Value>) {
        let point = |at: f64, value: &f64| json!({ "value": value, "timestamp": at });
        (self.cpu.points(point), self.memory.points(point))
    }
}

impl Live {
    /// A cluster registered: it is there, though nothing is known of its workers yet.
    pub fn greeted(&mut self, cluster: Id, now: Moment) {
        let view = self.clusters.entry(cluster).or_default();
        view.last_heard = Some(now);
        view.audit_from = Some(now.steady + SETTLED_AFTER);
    }

    /// A cluster reported. Returns whether this report is to be held against what the cluster was given: once, some
    /// time after the cluster appeared, since it may have lost its memory when it was away.
    ///
    /// # Errors
    /// When the report continues another one than the last: [`Self::taken`] has not given its number.
    pub fn reported(&mut self, cluster: Id, report: Report, now: Moment) -> Result<bool, UnknownBase> {
        let view = self.clusters.entry(cluster).or_insert_with(|| ClusterView {
            audit_from: Some(now.steady + SETTLED_AFTER),
            ..ClusterView::default()
        });
        let taken = view.taken.take();
        let is_whole = report.since.is_none();
        if !is_whole && report.since != taken {
            return Err(UnknownBase);
        }
        view.cpu.push(now.wall, report.cpu_percent);
        view.memory.push(now.wall, report.memory_percent);
        view.last_heard = Some(now);
        let before = std::mem::replace(&mut view.report, report);
        if !is_whole {
            view.report.extra = before.extra;
            view.report.workers = Some(continued(&before.workers.unwrap_or_default(), &view.report));
        }
        Ok(is_whole && view.audit_from.take_if(|from| *from <= now.steady).is_some())
    }

    /// All of a cluster's report is kept, under this number; nothing, as long as one is still to be held against what the
    /// cluster was given, which takes one that tells everything.
    pub fn taken(&mut self, cluster: Id, number: u32) -> Option<u32> {
        let view = self.clusters.get_mut(&cluster).filter(|view| view.audit_from.is_none())?;
        view.taken = Some(number);
        view.taken
    }

    /// An instance that needs this many MB was given to a cluster.
    pub fn promise(&mut self, cluster: Id, memory: u64, now: Moment) {
        let promises = &mut self.clusters.entry(cluster).or_default().promises;
        promises.retain(|(since, _)| now.steady - since < PROMISE_FOR);
        promises.push((now.steady, memory));
    }

    /// Takes over an instance's load.
    pub fn observe(&mut self, service: Id, reported: &Instance, now: Moment) {
        let view = self.instances.entry((service, reported.instance_number)).or_default();
        view.disk.clone_from(&reported.disk);
        view.logs = end_of(&reported.logs).to_owned();
        view.last_modified_timestamp = reported.last_modified_timestamp;
        view.cpu.push(now.wall, reported.cpu_percent.clone());
        view.memory.push(now.wall, reported.memory_percent.clone());
    }

    pub fn forget(&mut self, service: Id, number: u32) {
        self.instances.remove(&(service, number));
        self.refusals.forget((service, number));
    }

    /// Adds what is known of an instance's load to what is stored of it, and whether that can be believed.
    pub fn complete(&self, service: Id, instance: &mut Instance, now: Moment) {
        if instance.cluster_id.is_some_and(|cluster| !self.is_active(cluster, now)) {
            instance.status_detail = Some(UNHEARD.to_owned());
        }
        if let Some(view) = self.instances.get(&(service, instance.instance_number)) {
            let point =
                |at: f64, value: &Option<String>| json!({ "value": value, "timestamp": clock::iso8601(at) });
            instance.cpu_percent = view.cpu.last().cloned().flatten();
            instance.memory_percent = view.memory.last().cloned().flatten();
            instance.disk.clone_from(&view.disk);
            instance.logs.clone_from(&view.logs);
            instance.last_modified_timestamp = view.last_modified_timestamp;
            instance.cpu_history = view.cpu.points(point);
            instance.memory_history = view.memory.points(point);
        }
    }

    /// The cluster as it last reported; `None` if it was not heard of since the daemon started.
    #[must_use]
    pub fn cluster(&self, id: Id) -> Option<&ClusterView> {
        self.clusters.get(&id)
    }
}

/// The workers of a cluster that were told of `before`, with what a report that continues that one says of them.
fn continued(before: &[ReportedWorker], report: &Report) -> Vec<ReportedWorker> {
    let new: HashMap<Id, &ReportedWorker> =
        report.workers.iter().flatten().map(|worker| (worker.id, worker)).collect();
    let known: HashSet<Id> = before.iter().map(|worker| worker.id).collect();
    let forgotten: HashSet<Id> = report.forgotten.iter().copied().collect();
    let kept = before.iter().filter(|worker| !forgotten.contains(&worker.id));
    let kept = kept.map(|worker| *new.get(&worker.id).unwrap_or(&worker));
    let added = report.workers.iter().flatten().filter(|worker| !known.contains(&worker.id));
    kept.chain(added).cloned().collect()
}

/// A report continues one that is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownBase;

/// The last bytes of a text, cut between characters.
fn end_of(text: &str) -> &str {
    let start =
        (text.len().saturating_sub(LOGS_MAX)..=text.len()).find(|index| text.is_char_boundary(*index));
    &text[start.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use protocol::cluster::{Report, ReportedWorker, WorkerState};
    use protocol::id::Id;
    use protocol::service::Instance;
    use protocol::status::Status;

    use super::{HISTORY, LOGS_MAX, Live, UnknownBase};
    use crate::clock::Moment;
    use crate::object_id;

    /// The wall shows some day, whatever the steady clock says.
    fn at(steady: f64) -> Moment {
        Moment { wall: 1_795_374_561.25, steady }
    }

    #[test]
    fn a_cluster_is_active_while_it_is_heard_of() {
        let mut live = Live::new(at(50.0), 300.0);
        let id = object_id::new();
        assert!(live.cluster(id).is_none());
        assert_eq!(live.silence(id, at(60.0)).as_secs(), 10);
        assert!(!live.is_active(id, at(60.0)) && !live.is_silent(id, at(60.0)), "there was no time to speak");
        live.greeted(id, at(100.0));
        assert!(live.is_active(id, at(130.0)));
        assert!(!live.is_active(id, at(131.0)));
        assert!(!live.is_silent(id, at(130.0)) && live.is_silent(id, at(131.0)));
        assert_eq!(live.silence(id, at(131.0)).as_secs(), 31);
        let set_back = Moment { wall: 0.0, steady: 140.0 };
        live.reported(id, Report::default(), set_back).unwrap();
        assert!(live.is_active(id, at(165.0)));
    }

    #[test]
    fn one_report_is_held_against_what_a_cluster_was_given_each_time_it_appears() {
        let mut live = Live::new(at(0.0), 300.0);
        let id = object_id::new();
        let audits: Vec<_> =
            [0.0, 15.0, 30.0, 45.0].map(|now| live.reported(id, Report::default(), at(now))).into();
        assert_eq!(audits, [false, false, true, false].map(Ok));
        live.greeted(id, at(50.0));
        assert_eq!(live.reported(id, Report::default(), at(60.0)), Ok(false));
        assert_eq!(live.taken(id, 1), None, "the next one is to tell everything, too");
        assert_eq!(live.reported(id, Report::default(), at(75.0)), Ok(true));
        assert_eq!(live.taken(id, 2), Some(2));
    }

    #[test]
    fn a_report_continues_the_last_one_if_all_of_that_was_kept() {
        let mut live = Live::new(at(0.0), 300.0);
        let id = object_id::new();
        let [one, two, three] = [1, 2, 3].map(|number| worker(Id::from_bytes([number; 12]), 0));
        let told = |workers: &[&ReportedWorker], since| Report {
            workers: Some(workers.iter().copied().cloned().collect()),
            since,
            ..Report::default()
        };
        let continued = |since| told(&[], Some(since));
        assert_eq!(live.reported(id, continued(1), at(0.0)), Err(UnknownBase));
        live.reported(id, told(&[&one, &two], None), at(21.0)).unwrap();
        assert_eq!(live.reported(id, continued(1), at(22.0)), Err(UnknownBase), "not all of it was kept");
        live.reported(id, told(&[&one, &two], None), at(23.0)).unwrap();
        assert_eq!(live.taken(id, 1), Some(1));
        let busy = worker(two.id, 5);
        let next = Report { forgotten: vec![one.id], ..told(&[&three, &busy], Some(1)) };
        live.reported(id, next, at(24.0)).unwrap();
        live.taken(id, 2);
        assert_eq!(live.cluster(id).unwrap().workers().collect::<Vec<_>>(), [&busy, &three]);
        assert_eq!(live.reported(id, continued(1), at(25.0)), Err(UnknownBase), "that is not the last one");
        assert_eq!(live.reported(id, continued(2), at(26.0)), Err(UnknownBase), "nor is it any more");
    }

    fn worker(id: Id, instances: u32) -> ReportedWorker {
        ReportedWorker {
            id,
            name: id.to_string(),
            ip: String::new(),
            state: WorkerState::Ready,
            cordoned: false,
            draining: false,
            silent: 0,
            vcpus: 4,
            cpu_percent: 1.0,
            memory: 100,
            memory_percent: 1.0,
            architecture: String::new(),
            virtualization: Vec::new(),
            instances,
            rtt_ms: None,
            itself: None,
        }
    }

    #[test]
    fn what_was_placed_lately_counts_until_reports_show_it() {
        let mut live = Live::new(at(0.0), 300.0);
        let id = object_id::new();
        live.promise(id, 100, at(10.0));
        live.promise(id, 200, at(25.0));
        assert_eq!(live.cluster(id).unwrap().promised_memory(at(26.0)), 300);
        live.reported(id, Report::default(), at(27.0)).unwrap();
        assert_eq!(live.cluster(id).unwrap().promised_memory(at(31.0)), 200);
    }

    #[test]
    fn an_instance_shows_its_last_load_and_a_bounded_history() {
        let mut live = Live::new(at(0.0), 300.0);
        let service = object_id::new();
        let mut reported = Instance::new(3, Status::Running);
        reported.logs = format!("ä{}", "x".repeat(LOGS_MAX - 1));
        for point in 0..HISTORY + 5 {
            reported.cpu_percent = Some(point.to_string());
            live.observe(service, &reported, at(0.0));
        }
        let mut shown = Instance::new(3, Status::Running);
        live.complete(service, &mut shown, at(0.0));
        assert_eq!(shown.cpu_percent.as_deref(), Some("104"));
        assert_eq!(shown.cpu_history.len(), HISTORY);
        assert_eq!(
            shown.cpu_history[0],
            serde_json::json!({ "value": "5", "timestamp": "2026-11-22T19:09:21.250000" })
        );
        assert_eq!(shown.logs, "x".repeat(LOGS_MAX - 1), "half a character is left out");
        live.forget(service, 3);
        let mut forgotten = Instance::new(3, Status::Running);
        live.complete(service, &mut forgotten, at(0.0));
        assert_eq!(forgotten, Instance::new(3, Status::Running));
    }
}
