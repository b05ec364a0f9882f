//! Clusters: who has registered, and what clients read of them.

use protocol::cluster::Cluster as Document;
use protocol::event::Code;
use protocol::id::Id;
use serde_json::Value;

use super::failure::Failure;
use super::live::ClusterView;
use super::place::Candidate;
use super::{Root, key};
use crate::children::cluster::{self, Cluster, Registration};
use crate::children::grpc::Registry;
use crate::clock;
use crate::error::chain;
use crate::store::{StoreError, Transaction};

impl Root {
    /// Makes a cluster known, or known again: the same name keeps its id.
    pub(super) async fn register(&self, registration: Registration) -> Result<Id, StoreError> {
        let (cluster, is_new) = cluster::register(&self.store, registration).await?;
        self.events.is_called(cluster.id, &cluster.name);
        if is_new {
            self.events.of_cluster(cluster.id, Code::Joined, format!("at {}", cluster.authority()));
        }
        self.live().greeted(cluster.id, clock::moment());
        self.cluster_heard(cluster.id);
        Ok(cluster.id)
    }

    /// Gives a cluster nothing new, or lets it have instances again. Twice is once.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub(super) async fn hold_cluster(&self, id: Id, cordoned: bool) -> Result<(), Failure> {
        let cluster_key = key::cluster(id);
        loop {
            let known = self.store.get::<Cluster>(&cluster_key).await?;
            let Some(entry) = known else { return Err(Failure::no_cluster(id)) };
            if entry.value.cordoned == cordoned {
                return Ok(());
            }
            let cluster = Cluster { cordoned, ..entry.value };
            let transaction =
                Transaction::new().expect(&cluster_key, Some(entry.revision)).put(&cluster_key, &cluster);
            match self.store.commit(transaction).await {
                Err(StoreError::Conflict { .. }) => {}
                other => {
                    other?;
                    tracing::info!(cluster = %cluster.name, %id, cordoned, "an operator's wish");
                    let code = if cordoned { Code::Cordoned } else { Code::Uncordoned };
                    self.events.of_cluster(id, code, "by an operator");
                    self.placement.notify_one();
                    return Ok(());
                }
            }
        }
    }

    pub(super) async fn cluster(&self, id: Id) -> Result<Option<Cluster>, StoreError> {
        cluster::known(&self.store, id).await
    }

    pub(super) async fn clusters(&self) -> Result<Vec<Cluster>, StoreError> {
        cluster::all(&self.store).await
    }

    /// All clusters as clients read them.
    pub(super) async fn cluster_documents(&self) -> Result<Vec<Document>, StoreError> {
        let clusters = self.clusters().await?;
        let now = clock::moment();
        let (live, unheard) = (self.live(), ClusterView::default());
        let view = |cluster: &Cluster| live.cluster(cluster.id).unwrap_or(&unheard);
        let active = |cluster: &Cluster| live.is_active(cluster.id, now);
        Ok(clusters.iter().map(|cluster| document(cluster, view(cluster), active(cluster))).collect())
    }

    /// All clusters as the choice among them sees them.
    pub(super) async fn candidates(&self) -> Result<Vec<Candidate>, StoreError> {
        let clusters = self.clusters().await?;
        let (live, now) = (self.live(), clock::moment());
        Ok(clusters.into_iter().map(|cluster| cluster.candidate(&live, now)).collect())
    }
}

impl Registry for Root {
    async fn register(&self, registration: Registration) -> Result<Id, &'static str> {
        self.register(registration).await.map_err(|error| {
            tracing::error!(error = %chain(&error), "cluster could not be registered");
            "the root's store failed"
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to the second")]
fn document(cluster: &Cluster, view: &ClusterView, active: bool) -> Document {
    let (cpu_history, memory_history) = view.histories();
    let last_modified_timestamp = view.last_heard();
    let report = view.report().clone();
    let number = |key: &str| report.extra.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    Document {
        id: cluster.id,
        active,
        cordoned: cluster.cordoned,
        broker_away_since: report.broker_away.map(|seconds| last_modified_timestamp - seconds as f64),
        active_nodes: report.active_nodes,
        candidate_name: cluster.name.clone(),
        cluster_name: cluster.name.clone(),
        candidate_location: cluster.location.clone(),
        cluster_location: cluster.location.clone(),
        ip: cluster.ip.clone(),
        port: cluster.port.to_string(),
        vcpus: report.vcpus,
        total_cpu_cores: report.vcpus,
        vgpus: report.vgpus,
        total_gpu_cores: report.vgpus,
        memory: report.memory,
        memory_in_mb: report.memory,
        cpu_percent: report.cpu_percent,
        aggregated_cpu_percent: report.cpu_percent,
        memory_percent: report.memory_percent,
        vram: report.extra.get("vram").and_then(Value::as_u64).unwrap_or(0),
        vram_percent: number("vram_percent"),
        gpu_temp: number("gpu_temp"),
        gpu_percent: number("gpu_percent"),
        gpu_drivers: report
            .extra
            .get("gpu_drivers")
            .and_then(|drivers| serde_json::from_value(drivers.clone()).ok()),
        virtualization: report.virtualization,
        supported_addons: report.supported_addons,
        csi_drivers: report.csi_drivers,
        cpu_history,
        memory_history,
        last_modified_timestamp,
    }
}
