//! Nodes on which netmanager's other tasks run beside the data plane, and a cluster that is a function.

use std::net::IpAddr;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::{Duration, Instant};

use netmanager::datapath::{Backend, Datapath, Policy, Service};
use netmanager::net::Links;
use netmanager::pathmtu::PathMtus;
use netmanager::plane::{Backends, Events, PathTable};
use netmanager::slowpath::{Counts, News, SlowPath};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::nodes::{Node, Verbs};

/// A data plane beside which the rest of netmanager can run.
pub(crate) trait Served: Verbs + 'static {
    fn plane(&mut self) -> &mut (impl Backends + PathTable);
    /// What it tells. Asked for once.
    fn events(&mut self) -> Events;
    async fn slow_path(&mut self, tasks: &TaskTracker, stop: CancellationToken) -> SlowPath;
    fn close_slow_path(&mut self);
    fn services(&self) -> Vec<Service>;
}

impl Served for Datapath {
    fn plane(&mut self) -> &mut (impl Backends + PathTable) {
        self
    }

    fn events(&mut self) -> Events {
        Events::Ebpf(Box::new(self.events().unwrap()))
    }

    async fn slow_path(&mut self, tasks: &TaskTracker, stop: CancellationToken) -> SlowPath {
        SlowPath::in_kernel(&Links::open().unwrap(), self, tasks, stop).await.unwrap()
    }

    fn close_slow_path(&mut self) {
        self.set_slow_path(None).unwrap();
    }

    fn services(&self) -> Vec<Service> {
        self.services().unwrap()
    }
}

type Work<D> = Box<dyn FnOnce(&mut D, &SlowPath) + Send>;

/// Nodes whose slow paths run, and that hear what the underlay does not carry. What they miss is answered as the cluster would.
pub(crate) struct Running<D = Datapath>(Vec<mpsc::UnboundedSender<Work<D>>>);

impl<D: Served> Running<D> {
    /// Acts on a node's data plane.
    pub(crate) fn within<T: Send + 'static>(
        &self,
        node: usize,
        work: impl FnOnce(&mut D, &SlowPath) -> T + Send + 'static,
    ) -> T {
        let (give, take) = std_mpsc::channel();
        let work = move |datapath: &mut D, slow_path: &SlowPath| {
            give.send(work(datapath, slow_path)).unwrap();
        };
        assert!(self.0[node].send(Box::new(work)).is_ok(), "node {node} runs");
        take.recv().unwrap()
    }

    pub(crate) fn counts(&self, node: usize) -> Counts {
        self.within(node, |_, slow_path| slow_path.counts())
    }
}

/// Runs `test` while every node has a slow path. `cluster` says what is behind an address that a node asks for; `None`:
/// it does not answer.
pub(crate) fn run<D: Served>(
    nodes: &mut [Node<D>],
    cluster: impl Fn(IpAddr) -> Option<(Policy, Vec<Backend>)> + Send + Sync,
    test: impl FnOnce(&Running<D>),
) {
    let stop = CancellationToken::new();
    let (ready, is_ready) = std_mpsc::channel();
    thread::scope(|scope| {
        let mut running = Vec::new();
        for node in nodes {
            let (give, take) = mpsc::unbounded_channel();
            running.push(give);
            let (cluster, stop, ready) = (&cluster, stop.clone(), ready.clone());
            let Node { netns, datapath, .. } = node;
            scope.spawn(move || netns.run(|| drive(datapath, cluster, take, &ready, &stop)).unwrap());
        }
        let _stopped = stop.clone().drop_guard();
        for _ in &running {
            is_ready.recv_timeout(Duration::from_secs(10)).expect("the slow path starts");
        }
        test(&Running(running));
    });
}

fn drive<D: Served>(
    datapath: &mut D,
    cluster: &impl Fn(IpAddr) -> Option<(Policy, Vec<Backend>)>,
    mut work: mpsc::UnboundedReceiver<Work<D>>,
    ready: &std_mpsc::Sender<()>,
    stop: &CancellationToken,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        let mut slow_path = datapath.slow_path(&tasks, stop.clone()).await;
        let mut path_mtus = PathMtus::open(datapath.plane(), &tasks, stop).unwrap();
        ready.send(()).unwrap();
        loop {
            path_mtus.tick(datapath.plane(), Instant::now()).unwrap();
            let deadline = path_mtus.deadline().unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                () = stop.cancelled() => break,
                news = slow_path.next() => {
                    let News::Missed(address) = news else { continue };
                    if let Some((policy, backends)) = cluster(address) {
                        datapath.publish_service(address, policy, &backends);
                        slow_path.settled(address);
                    }
                }
                heard = path_mtus.next() => path_mtus.hear(heard, datapath.plane(), Instant::now()).unwrap(),
                () = tokio::time::sleep_until(deadline.into()) => {}
                Some(work) = work.recv() => work(datapath, &slow_path),
            }
        }
        datapath.close_slow_path();
        tasks.close();
        tasks.wait().await;
    });
}
