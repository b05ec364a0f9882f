//! The worker's standing with its cluster: the handshake over HTTP, then one MQTT connection for commands and reports.
//!
//! A connection that is lost begins again with the handshake: it costs one request, and a cluster that has forgotten
//! this worker knows it again. When the handshake fails but an earlier one succeeded, the broker is tried all the same.

mod link;
mod message;
mod news;

use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::net::Register;
use protocol::node::{InstanceReport, Registered, ResourceReport};
use protocol::topic::NodeTopic;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::link::{Link, LinkEvent};
use self::message::{Inbox, Incoming};
use self::news::News;
use crate::backoff::Backoff;
use crate::http::{Endpoint, HttpError, post};
use crate::outbox::Outbox;
use crate::reconcile::{Command, StatusChange};
use crate::report::NodeReporter;
use crate::verdict::chain;

/// Oakestra's interval; its clusters take a worker for dead after 30 s of silence.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Whatever a cluster asks for, the machine is not measured more often.
const REPORT_EVERY_MIN: Duration = Duration::from_millis(200);
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Instances in one message: Hypha's brokers take packets of 256 KiB.
const PART: usize = 32;
/// A connection that held this long was a good one: the next failure is a new story.
const SETTLED: Duration = Duration::from_secs(10);
/// At the end, reports that have no acknowledgement yet are waited for this long.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Why a handshake did not make this worker a member.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("cluster cannot be reached")]
    Http(#[from] HttpError),
    #[error("the cluster's answer cannot be read: {0}")]
    Answer(String),
}

/// Who this worker is to its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Membership {
    id: Id,
    broker_port: u16,
    /// How often the cluster is to hear of this worker, if it keeps what it was told.
    alive_every: Option<Duration>,
}

#[derive(Debug)]
enum Ended {
    Shutdown,
    Lost(String),
}

/// The ends of the channels to the other parts of the daemon.
#[derive(Debug)]
pub struct Channels {
    pub commands: mpsc::Sender<Command>,
    pub changes: mpsc::UnboundedReceiver<StatusChange>,
    pub resources: watch::Receiver<ResourceReport>,
    pub identity: watch::Sender<Option<Register>>,
}

#[derive(Debug)]
pub struct Session {
    cluster: Endpoint,
    cluster_host: String,
    reporter: NodeReporter,
    channels: Channels,
    outbox: Outbox,
    inbox: Inbox,
    backoff: Backoff,
    address: String,
}

impl Session {
    #[must_use]
    pub fn new(cluster: Endpoint, cluster_host: String, reporter: NodeReporter, channels: Channels) -> Self {
        Self {
            cluster,
            cluster_host,
            reporter,
            channels,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(5)),
            address: String::new(),
        }
    }

    /// Runs until `shutdown`; what is still to be reported then is reported, if that is possible at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut membership = None;
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                joined = self.join(membership.as_ref()) => match joined {
                    Ok(joined) => {
                        let ended = self.serve(&joined, &shutdown).await;
                        membership = Some(joined);
                        ended
                    }
                    Err(error) => Ended::Lost(chain(&error)),
                },
            };
            let Ended::Lost(reason) = ended else { return };
            if !self.backoff.is_failing() {
                tracing::warn!(cluster = %self.cluster, reason, "no connection to the cluster; trying on");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.backoff.next_delay()) => {}
            }
        }
    }

    /// The handshake. With an earlier membership, failing to reach the cluster's API is no failure.
    async fn join(&mut self, earlier: Option<&Membership>) -> Result<Membership, HandshakeError> {
        // A name that cannot be resolved fails the handshake as well, and more tellingly.
        if let Ok(mut found) = tokio::net::lookup_host((self.cluster_host.as_str(), 0)).await
            && let Some(address) = found.next()
        {
            self.reporter.found_cluster(address.ip());
        }
        let node = self.reporter.introduce();
        self.address.clone_from(&node.ip);
        let answer = post(&self.cluster, "/api/node/register", &node, HANDSHAKE_DEADLINE).await;
        let answer = match (answer, earlier) {
            (Err(error), Some(earlier)) => {
                tracing::debug!(error = chain(&error), "handshake failed; trying the broker");
                return Ok(earlier.clone());
            }
            (answer, _) => answer?,
        };
        let unreadable = |error: &dyn std::fmt::Display| HandshakeError::Answer(error.to_string());
        let registered: Registered = serde_json::from_slice(&answer).map_err(|error| unreadable(&error))?;
        let broker_port = registered.mqtt_broker_port.parse().map_err(|_not_a_port| {
            unreadable(&format!("MQTT_BROKER_PORT {:?}", registered.mqtt_broker_port))
        })?;
        let alive_every = registered.alive_every.map(|every| Duration::from_millis(every.get().into()));
        let joined = Membership { id: registered.id, broker_port, alive_every };
        if earlier != Some(&joined) {
            tracing::info!(node = %joined.id, cluster = %self.cluster, broker_port, "joined the cluster");
        }
        let register =
            Register { client_id: joined.id.to_string(), cluster_address: self.cluster_host.clone() };
        self.channels.identity.send_if_modified(|present| {
            let changed = present.as_ref() != Some(&register);
            *present = Some(register);
            changed
        });
        Ok(joined)
    }

    /// Keeps one MQTT connection for as long as it holds.
    async fn serve(&mut self, member: &Membership, shutdown: &CancellationToken) -> Ended {
        let mut link = Link::open(&member.id, &self.cluster_host, member.broker_port);
        let mut news = News::to(member.alive_every.is_some());
        let every = member.alive_every.map_or(REPORT_EVERY, |every| every.max(REPORT_EVERY_MIN));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connected: Option<Instant> = None;
        let ended = loop {
            tokio::select! {
                event = link.next() => match event {
                    LinkEvent::Connected => {
                        connected = Some(Instant::now());
                        tracing::info!(node = %member.id, "connected to the cluster's broker");
                        link.subscribe(&member.id);
                        ticks.reset_immediately();
                        self.flush(member, &link);
                    }
                    LinkEvent::Message { topic, payload } => {
                        if let Some(incoming) = self.inbox.read(&topic, &payload)
                            && let Some(ended) = self.take(incoming).await
                        {
                            break ended;
                        }
                    }
                    LinkEvent::Sent(packet) => self.outbox.sent(packet),
                    LinkEvent::Acknowledged(packet) => {
                        self.outbox.acknowledged(packet);
                        self.flush(member, &link);
                    }
                    LinkEvent::Lost(reason) => break Ended::Lost(reason),
                },
                Some(change) = self.channels.changes.recv() => {
                    self.outbox.add(change);
                    if connected.is_some() {
                        self.flush(member, &link);
                    }
                }
                Ok(()) = self.channels.resources.changed(), if connected.is_some() => {
                    let report = self.channels.resources.borrow_and_update().clone();
                    let now = Instant::now();
                    if news.is_news_of_instances(&report, now)
                        && parts(&report).all(|part| publish(&link, NodeTopic::Resources, member, &part))
                    {
                        news.said_of_instances(report, now);
                    }
                }
                _ = ticks.tick(), if connected.is_some() => {
                    let node = self.reporter.describe(&member.id.to_string());
                    self.address.clone_from(&node.ip);
                    let now = Instant::now();
                    if news.is_news_of_node(&node, now) && publish(&link, NodeTopic::Information, member, &node) {
                        news.said_of_node(node, now);
                    }
                    if news.nothing_was_said() {
                        link.publish(NodeTopic::Alive.of(&member.id), Vec::new(), false);
                    }
                    self.flush(member, &link);
                }
                () = shutdown.cancelled() => break Ended::Shutdown,
            }
        };
        if matches!(ended, Ended::Shutdown) && connected.is_some() {
            self.flush_and_leave(member, &mut link).await;
        }
        self.outbox.disconnected();
        if connected.is_some_and(|since| since.elapsed() >= SETTLED) {
            self.backoff.succeeded();
        }
        ended
    }

    /// Passes a command on; says so when the connection is to end.
    async fn take(&self, incoming: Incoming) -> Option<Ended> {
        match incoming {
            Incoming::Command(command) => {
                let passed_on = self.channels.commands.send(command).await;
                passed_on.err().map(|_nobody_there| Ended::Shutdown)
            }
            Incoming::Forgotten(message) => {
                Some(Ended::Lost(format!("the cluster does not know this worker ({message})")))
            }
        }
    }

    /// Hands what is due to the client; what it cannot take now stays due.
    fn flush(&mut self, member: &Membership, link: &Link) {
        for change in self.outbox.due() {
            let report = InstanceReport {
                sname: change.name.service.clone(),
                status: change.status,
                status_detail: change.detail,
                instance: change.name.number,
                publicip: self.address.clone(),
            };
            if !publish(link, NodeTopic::Job, member, &report) {
                return;
            }
            self.outbox.handed_over(&change.name);
        }
    }

    async fn flush_and_leave(&mut self, member: &Membership, link: &mut Link) {
        while let Ok(change) = self.channels.changes.try_recv() {
            self.outbox.add(change);
        }
        self.flush(member, link);
        let acknowledged = async {
            while !self.outbox.is_empty() {
                match link.next().await {
                    LinkEvent::Sent(packet) => self.outbox.sent(packet),
                    LinkEvent::Acknowledged(packet) => self.outbox.acknowledged(packet),
                    LinkEvent::Lost(_) => return,
                    LinkEvent::Connected | LinkEvent::Message { .. } => {}
                }
            }
        };
        if tokio::time::timeout(FLUSH_WITHIN, acknowledged).await.is_err() {
            tracing::warn!("the last reports were not acknowledged");
        }
        link.close().await;
    }
}

/// The report in messages of a size that every broker takes: the end of each instance's log is in it, up to six bytes
/// for each one of a KiB. An empty one is a report too: that nothing runs.
fn parts(report: &ResourceReport) -> impl Iterator<Item = ResourceReport> {
    let count = report.services.len().div_ceil(PART).max(1);
    (0..count).map(move |number| {
        let services = report.services.iter().skip(number * PART).take(PART).cloned().collect();
        ResourceReport { services, more: number + 1 < count }
    })
}

/// Whether the client took the message. A report that is lost with the connection is made anew 2 s later; only a change
/// of state is worth an acknowledgement.
fn publish<T: Serialize>(link: &Link, topic: NodeTopic, member: &Membership, payload: &T) -> bool {
    match serde_json::to_vec(payload) {
        Ok(payload) => link.publish(topic.of(&member.id), payload, topic == NodeTopic::Job),
        Err(error) => {
            tracing::error!(?topic, %error, "report cannot be written");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::node::{InstanceResources, ResourceReport};

    use super::parts;

    #[test]
    fn a_report_of_many_instances_fits_into_packets() {
        let service = |instance| InstanceResources {
            cpu_percent: "100.000000".to_owned(),
            memory_percent: "0.000031".to_owned(),
            disk: "1048576".to_owned(),
            logs: "\u{1}".repeat(1024),
            job_name: vec!["a".repeat(30); 4].join(".").parse().unwrap(),
            virtualization: "docker".to_owned(),
            instance,
        };
        for count in [0, 1, 32, 33, 500] {
            let report = ResourceReport { services: (0..count).map(service).collect(), more: false };
            let parts: Vec<_> = parts(&report).collect();
            assert!(parts.iter().all(|part| serde_json::to_vec(part).unwrap().len() < 255 * 1024));
            let (last, others) = parts.split_last().unwrap();
            assert!(!last.more && others.iter().all(|part| part.more));
            let services: Vec<_> = parts.into_iter().flat_map(|part| part.services).collect();
            assert_eq!(services, report.services);
        }
    }
}
