//! A root, a branch that is called `north` below it with the clusters `oslo` and `bergen`, and the cluster `rome` directly below
//! the root, each with one worker.

use std::path::Path;
use std::time::Duration;

use orchestrator::branch::{self, BranchError};
use orchestrator::broker;
use orchestrator::cluster::{self, ClusterError};
use orchestrator::parent::ParentAddress;
use orchestrator::schedule::Placement;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::root::{Bed as Root, eventually, web};
use crate::worker::Worker;

/// Longer than clusters take between two reports.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Bed {
    pub(crate) root: Root,
    pub(crate) branch: Branch,
    pub(crate) oslo: Cluster,
    pub(crate) bergen: Cluster,
    pub(crate) rome: Cluster,
}

impl Bed {
    pub(crate) async fn start() -> Self {
        let root = Root::start().await;
        let branch = Branch::start("north", address_of(&root)).await;
        let (above, below) = (address_of(&root), branch.address());
        let oslo = Cluster::start("oslo", "10.18.0", below.clone()).await;
        let bergen = Cluster::start("bergen", "10.18.1", below).await;
        let rome = Cluster::start("rome", "10.18.2", above).await;
        let bed = Self { root, branch, oslo, bergen, rome };
        bed.has_workers(3).await;
        bed
    }

    /// Waits until the root knows so many workers.
    pub(crate) async fn has_workers(&self, count: usize) {
        let workers = || async { self.root.get("/v1/workers").await.body };
        let all = |told: &Value| (told["workers"].as_array()?.len() == count).then_some(());
        eventually("workers at the root", workers, all).await;
    }

    /// Makes a service that only these clusters (or branches) may have, and asks for an instance; gives its id.
    pub(crate) async fn deploy_in(&self, name: &str, allowed: &[&str]) -> String {
        let mut service = web();
        service["constraints"] = json!([{ "type": "clusters", "allowed": allowed }]);
        let id = self.root.service(name, service).await;
        self.root.deploy(&id).await;
        id
    }

    /// The only instance of a service, once it is so at the root.
    pub(crate) async fn instance_when(&self, service: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let shown = self.root.service_when(service, |shown| wanted(&shown["instance_list"][0])).await;
        shown["instance_list"][0].clone()
    }

    pub(crate) async fn running(&self, service: &str) -> Value {
        self.instance_when(service, |instance| instance["status"] == "RUNNING").await
    }

    /// The id of a cluster of the root's.
    pub(crate) async fn id_of(&self, name: &str) -> Value {
        let clusters = self.root.get("/api/clusters").await.ok();
        let own = clusters.as_array().unwrap().iter().find(|one| one["cluster_name"] == name);
        own.unwrap()["_id"].clone()
    }
}

pub(crate) fn address_of(root: &Root) -> ParentAddress {
    ParentAddress {
        host: "127.0.0.1".to_owned(),
        api: root.at.api.port(),
        grpc: root.at.grpc.port(),
        net: root.at.net.port(),
    }
}

fn loopback(port: u16) -> std::net::SocketAddr {
    ([127, 0, 0, 1], port).into()
}

pub(crate) struct Branch {
    pub(crate) at: branch::Addresses,
    name: &'static str,
    parent: ParentAddress,
    data: TempDir,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), BranchError>>,
}

impl Branch {
    pub(crate) async fn start(name: &'static str, parent: ParentAddress) -> Self {
        let free = loopback(0);
        let free = branch::Addresses { reports: free, grpc: free, addresses: free, api: free, net: free };
        Self::on(tempfile::tempdir().unwrap(), name, parent, free).await
    }

    async fn on(data: TempDir, name: &'static str, parent: ParentAddress, at: branch::Addresses) -> Self {
        let shutdown = CancellationToken::new();
        let (sender, started) = oneshot::channel();
        let config = config(data.path(), name, parent.clone(), at);
        let task = tokio::spawn(branch::run_and_tell(config, shutdown.clone(), |at| {
            sender.send(at).expect("the test waits for it");
        }));
        match started.await {
            Ok(at) => Self { at, name, parent, data, shutdown, task },
            Err(_gone) => panic!("not started: {:?}", task.await),
        }
    }

    pub(crate) fn address(&self) -> ParentAddress {
        ParentAddress {
            host: "127.0.0.1".to_owned(),
            api: self.at.reports.port(),
            grpc: self.at.grpc.port(),
            net: self.at.addresses.port(),
        }
    }

    /// Stops it; what it leaves is for [`Self::again`].
    pub(crate) async fn stop(self) -> Stopped {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        Stopped { data: self.data, name: self.name, parent: self.parent, at: self.at }
    }
}

/// What a branch has left.
pub(crate) struct Stopped {
    data: TempDir,
    name: &'static str,
    parent: ParentAddress,
    at: branch::Addresses,
}

impl Stopped {
    /// Starts another branch on it, at the same addresses.
    pub(crate) async fn again(self) -> Branch {
        Branch::on(self.data, self.name, self.parent, self.at).await
    }
}

fn config(data_dir: &Path, name: &str, parent: ParentAddress, at: branch::Addresses) -> branch::Config {
    branch::Config {
        data_dir: data_dir.to_owned(),
        store: None,
        name: name.to_owned(),
        location: name.to_owned(),
        parent,
        reports: at.reports,
        grpc: at.grpc,
        addresses: at.addresses,
        api: at.api,
        net: at.net,
        cluster_timeout: CLUSTER_TIMEOUT,
    }
}

pub(crate) struct Cluster {
    pub(crate) worker: Worker,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ClusterError>>,
    _data: TempDir,
}

impl Cluster {
    /// With a worker of 1000 MB whose instances have addresses that begin so.
    pub(crate) async fn start(name: &str, net: &str, parent: ParentAddress) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = cluster::Config {
            data_dir: data.path().to_owned(),
            store: None,
            name: name.to_owned(),
            location: name.to_owned(),
            api: loopback(0),
            net: loopback(0),
            broker: broker::Settings::Embedded(loopback(0)),
            worker_timeout: Duration::from_secs(30),
            forget_workers: Duration::from_secs(3600),
            placement: Placement::default(),
            parent,
        };
        let shutdown = CancellationToken::new();
        let (sender, started) = oneshot::channel();
        let task = tokio::spawn(cluster::run_and_tell(config, shutdown.clone(), |at| {
            sender.send(at).expect("the test waits for it");
        }));
        let Ok(at) = started.await else { panic!("not started: {:?}", task.await) };
        let worker = Worker::join(&format!("pi-{name}"), net, at).await;
        Self { worker, shutdown, task, _data: data }
    }

    /// Ends it, for good.
    pub(crate) async fn kill(self) -> Worker {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        self.worker
    }
}
