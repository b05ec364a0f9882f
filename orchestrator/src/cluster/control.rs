//! The one task that owns the cluster's [`State`]: takes events, and makes the effects happen, in this order: what is
//! to be kept is durable, then it is told to workers, then whoever asked is answered.
//!
//! Events that wait are taken together, so that a burst is written with one sync.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::decision::Decisions;
use protocol::id::Id;
use protocol::net::{JobUpdate, NetInstance, NetService, NodeItself, Subnet};
use protocol::node::Node;
use protocol::service::{Instance as Document, Service as ServiceDocument};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::directory::{Subject, Unreached};
use super::intake::Intake;
use super::state::{Ask, Effects, Refused, State};
use crate::backoff::Backoff;
use crate::broker::{self, Broker};
use crate::error::chain;
use crate::parent::client::{ParentClient, ParentError};
use crate::parent::summary::{Scope, Summary};
use crate::parent::uplink::Reporter;
use crate::store::{Store, StoreError, Transaction};
use crate::wish::Wish;

/// Placing takes at most one part in so many of the time, and more are placed together then.
const PLACING_SHARE: u32 = 4;
/// Values that are kept in one transaction at most: etcd takes no more.
const KEPT_TOGETHER: usize = 1000;
const TICK: Duration = Duration::from_millis(500);
/// Events that are taken together at most.
const BATCH: usize = 256;

/// What is asked of the task.
#[derive(Debug)]
pub(super) enum Command {
    Register {
        node: Box<Node>,
        reply: oneshot::Sender<Id>,
    },
    Deploy {
        service: Box<ServiceDocument>,
        instance: Box<Document>,
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    Undeploy {
        service: Id,
        number: Option<u32>,
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    TableChanged(JobUpdate),
    TableAnswered {
        subject: Subject,
        answer: Result<Option<NetService>, Unreached>,
    },
    SubnetGiven {
        worker: Id,
        subnet: Subnet,
    },
    SubnetReturned(Subnet),
    /// Where the processes of another cluster's node are reached, as the root says.
    NodeAnswered {
        address: IpAddr,
        answer: Result<Option<NodeItself>, Unreached>,
    },
    /// How the instances of a service came to be where they are, or nowhere.
    Why {
        service: Id,
        reply: oneshot::Sender<Option<Decisions>>,
    },
    /// What an operator wants of a worker.
    Wish {
        worker: Id,
        wish: Wish,
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    /// An operator says that a worker is gone for good.
    DeleteWorker {
        worker: Id,
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    /// Registered at the root, which gave this id.
    RootIsBack {
        id: Id,
    },
    Summary {
        scope: Scope,
        reply: oneshot::Sender<Summary>,
    },
    /// The root has what a summary said of instances that are gone.
    Reported {
        departed: usize,
    },
}

impl Reporter for mpsc::Sender<Command> {
    async fn registered(&self, id: Id) -> Option<()> {
        self.send(Command::RootIsBack { id }).await.ok()
    }

    async fn summary(&self, scope: Scope) -> Option<Summary> {
        let (reply, summary) = oneshot::channel();
        self.send(Command::Summary { scope, reply }).await.ok()?;
        summary.await.ok()
    }

    async fn reported(&self, departed: usize) -> Option<()> {
        self.send(Command::Reported { departed }).await.ok()
    }
}

#[derive(Debug)]
pub(super) struct Control {
    pub(super) state: State,
    pub(super) store: Store,
    pub(super) broker: Broker,
    pub(super) root: ParentClient,
    pub(super) announcer: mpsc::UnboundedSender<(Id, NetInstance)>,
    pub(super) news: Arc<Notify>,
    pub(super) tasks: TaskTracker,
    /// To send itself what the root answers.
    pub(super) commands: mpsc::Sender<Command>,
}

/// How often waiting instances are placed: each time looks at all workers, however few there are to place.
#[derive(Debug)]
struct Pace {
    next: Instant,
    /// Some wait for that.
    delays: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next: Instant::now(), delays: false }
    }
}

impl Pace {
    fn place(&mut self, state: &mut State) {
        let begun = Instant::now();
        self.delays = begun < self.next && state.waits();
        if !self.delays {
            state.place_waiting(begun);
            let end = Instant::now();
            self.next = end + (end - begun) * PLACING_SHARE;
        }
    }
}

/// What is done once everything is durable.
type Afterwards = Vec<Box<dyn FnOnce() + Send>>;

impl Control {
    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// When something could not be made durable: what is in memory is then ahead of what a restart would find, so the
    /// process should end.
    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<broker::Event>,
        mut inbox: mpsc::Receiver<Command>,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut intake = Intake::default();
        let mut pace = Pace::default();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut afterwards = Afterwards::new();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(command) = inbox.recv() => self.take(command, &mut afterwards),
                Some(event) = events.recv() => intake.take(&mut self.state, event, Instant::now()),
                _ = ticks.tick() => self.state.tick(Instant::now()),
                () = tokio::time::sleep_until(pace.next.into()), if pace.delays => {}
            }
            for _ in 0..BATCH {
                if let Ok(command) = inbox.try_recv() {
                    self.take(command, &mut afterwards);
                } else if let Ok(event) = events.try_recv() {
                    intake.take(&mut self.state, event, Instant::now());
                } else {
                    break;
                }
            }
            pace.place(&mut self.state);
            let effects = self.state.take_effects();
            self.perform(effects, &shutdown).await?;
            for answer in afterwards {
                answer();
            }
        }
    }

    fn take(&mut self, command: Command, afterwards: &mut Afterwards) {
        let now = Instant::now();
        match command {
            Command::Register { node, reply } => {
                let id = self.state.register(*node, crate::object_id::new, now);
                let broker = self.broker.clone();
                afterwards.push(Box::new(move || {
                    broker.admit(id);
                    answer(reply, id);
                }));
            }
            Command::Deploy { service, instance, reply } => {
                let outcome = self.state.deploy(*service, *instance);
                afterwards.push(Box::new(move || answer(reply, outcome)));
            }
            Command::Undeploy { service, number, reply } => {
                let outcome = self.state.undeploy(service, number, now);
                afterwards.push(Box::new(move || answer(reply, outcome)));
            }
            Command::Why { service, reply } => answer(reply, self.state.decisions(service)),
            Command::Wish { worker, wish, reply } => {
                let outcome = self.state.wish(worker, wish);
                afterwards.push(Box::new(move || answer(reply, outcome)));
            }
            Command::DeleteWorker { worker, reply } => {
                let outcome = self.state.delete_worker(worker, now);
                afterwards.push(Box::new(move || answer(reply, outcome)));
            }
            Command::TableChanged(update) => self.state.table_changed(&update, Instant::now()),
            Command::TableAnswered { subject, answer } => self.state.table_answered(&subject, answer, now),
            Command::NodeAnswered { address, answer } => self.state.node_answered(address, answer, now),
            Command::SubnetGiven { worker, subnet } => self.state.subnet_given(worker, subnet),
            Command::SubnetReturned(subnet) => self.state.subnet_returned(&subnet),
            Command::RootIsBack { id } => self.state.root_is_back(id),
            Command::Summary { scope, reply } => answer(reply, self.state.summary(scope, now)),
            Command::Reported { departed } => self.state.reported(departed),
        }
    }

    async fn perform(&self, effects: Effects, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let Effects { keep, publish, ask, dismiss, announce, report } = effects;
        // Backwards: services come before their instances, should it end between two transactions.
        let keep: Vec<_> = keep.iter().rev().collect();
        for together in keep.chunks(KEPT_TOGETHER) {
            self.store.commit(transaction(together)).await?;
        }
        dismiss.into_iter().for_each(|worker| self.broker.dismiss(worker));
        for (topic, payload) in publish {
            self.broker.publish(topic, payload).await;
        }
        for announcement in announce {
            if self.announcer.send(announcement).is_err() {
                tracing::debug!("an address after the announcer has stopped");
            }
        }
        for question in ask {
            let asking = ask_root(question, self.root.clone(), self.commands.clone());
            let shutdown = shutdown.clone();
            self.tasks.spawn(async move { shutdown.run_until_cancelled(asking).await });
        }
        if report {
            self.news.notify_one();
        }
        Ok(())
    }
}

fn transaction(keep: &[(&String, &Option<Value>)]) -> Transaction {
    keep.iter().fold(Transaction::new(), |transaction, (key, value)| match value {
        Some(value) => transaction.put(key, value),
        None => transaction.delete(key),
    })
}

async fn ask_root(question: Ask, root: ParentClient, commands: mpsc::Sender<Command>) {
    let command = match question {
        Ask::Node(address) => {
            let answer = root.node(address).await.map_err(|error| {
                tracing::debug!(%address, error = %chain(&error), "node not had from the root");
                Unreached
            });
            Command::NodeAnswered { address, answer }
        }
        Ask::Table(subject) => {
            let answer = root.table(&subject).await.map_err(|error| {
                tracing::debug!(%subject, error = %chain(&error), "table not had from the root");
                Unreached
            });
            Command::TableAnswered { subject, answer }
        }
        Ask::Subnet(worker) => {
            let tell = |error: &ParentError| {
                tracing::warn!(%worker, error = %chain(error), "no subnet from the root; trying on");
            };
            let subnet = until_answered(|| root.subnet(), tell).await;
            Command::SubnetGiven { worker, subnet }
        }
        Ask::Return(subnet) => {
            let tell = |error: &ParentError| {
                let address = subnet.subnet_addr;
                tracing::warn!(subnet = %address, error = %chain(error), "subnet not given back to the root; trying on");
            };
            until_answered(|| root.return_subnet(subnet.subnet_addr), tell).await;
            Command::SubnetReturned(subnet)
        }
        Ask::Forget(name) => {
            if let Err(error) = root.drop_interest(&name).await {
                tracing::debug!(service = %name, error = %chain(&error), "interest not dropped at the root");
            }
            return;
        }
    };
    if commands.send(command).await.is_err() {
        tracing::debug!("an answer of the root after the cluster has stopped");
    }
}

/// The root's answer, however long it takes; a failure is told once. A worker without addresses can run nothing, and a block
/// that is not given back is lost to all.
async fn until_answered<T, F: Future<Output = Result<T, ParentError>>>(
    ask: impl Fn() -> F,
    tell: impl Fn(&ParentError),
) -> T {
    let mut backoff = Backoff::new();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => backoff.failed(|| tell(&error)),
        }
        backoff.wait().await;
    }
}

/// Whoever asked may have gone away.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for the answer any more");
    }
}
