//! Clusters: who has registered, and how they are reached.

use protocol::cluster::Cluster as Document;
use protocol::constraint::names_of;
use protocol::event::Code;
use protocol::id::Id;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;
use super::live::ClusterView;
use super::place::Candidate;
use super::{Root, key};
use crate::clock;
use crate::object_id;
use crate::store::{StoreError, Transaction};

/// A cluster as stored. It changes only when the cluster registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cluster {
    pub id: Id,
    /// By it a cluster that registers again is known.
    pub name: String,
    pub location: String,
    /// The address that the registration came from; the root calls back there.
    pub ip: String,
    pub port: u16,
    /// Where it is told of changed tables.
    pub net_port: u16,
    /// It is given nothing new, by the will of an operator.
    #[serde(default)]
    pub cordoned: bool,
}

impl Cluster {
    /// Host and port of the URLs at which it takes orders.
    pub(super) fn authority(&self) -> String {
        authority(&self.ip, self.port)
    }

    /// Of those at which it is told of changed tables.
    pub(super) fn net_authority(&self) -> String {
        authority(&self.ip, self.net_port)
    }
}

fn authority(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// What a cluster did that a request got no answer from, for people.
pub(super) fn unanswered(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() { "does not answer" } else { "cannot be reached" }
}

/// What a cluster says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub name: String,
    pub location: String,
    pub ip: String,
    pub port: u16,
    pub net_port: u16,
}

impl Root {
    /// Makes a cluster known, or known again: the same name keeps its id.
    pub(super) async fn register(&self, registration: Registration) -> Result<Id, StoreError> {
        let name_key = key::cluster_name(&registration.name);
        let (cluster, is_new) = loop {
            let known = self.store.get::<Id>(&name_key).await?;
            let before = match &known {
                Some(entry) => self.store.get::<Cluster>(&key::cluster(entry.value)).await?,
                None => None,
            };
            let cluster = Cluster {
                id: known.as_ref().map_or_else(object_id::new, |entry| entry.value),
                name: registration.name.clone(),
                location: registration.location.clone(),
                ip: registration.ip.clone(),
                port: registration.port,
                net_port: registration.net_port,
                cordoned: before.as_ref().is_some_and(|before| before.value.cordoned),
            };
            if before.as_ref().is_some_and(|before| before.value == cluster) {
                break (cluster, false);
            }
            let transaction = Transaction::new()
                .expect(&name_key, known.as_ref().map(|entry| entry.revision))
                .expect(&key::cluster(cluster.id), before.as_ref().map(|entry| entry.revision))
                .put(&name_key, &cluster.id)
                .put(&key::cluster(cluster.id), &cluster);
            match self.store.commit(transaction).await {
                Err(StoreError::Conflict { .. }) => {}
                other => {
                    other?;
                    break (cluster, before.is_none());
                }
            }
        };
        tracing::info!(
            cluster = %cluster.name, id = %cluster.id, ip = %cluster.ip, port = cluster.port, "cluster registered"
        );
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
        Ok(self.store.get::<Cluster>(&key::cluster(id)).await?.map(|entry| entry.value))
    }

    pub(super) async fn clusters(&self) -> Result<Vec<Cluster>, StoreError> {
        let listed = self.store.list::<Cluster>(key::CLUSTERS).await?;
        Ok(listed.into_iter().map(|(_, entry)| entry.value).collect())
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
        let now = clock::moment();
        let (live, unheard) = (self.live(), ClusterView::default());
        let candidate = |cluster: Cluster| {
            let view = live.cluster(cluster.id).unwrap_or(&unheard);
            let report = view.report();
            Candidate {
                id: cluster.id,
                name: cluster.name,
                location: cluster.location,
                active: live.is_active(cluster.id, now),
                cordoned: cluster.cordoned,
                workers: report.active_nodes,
                vcpus: report.vcpus,
                vgpus: report.vgpus,
                memory: report.memory.saturating_sub(view.promised_memory(now)),
                virtualization: report.virtualization.clone(),
                drivers: names_of(&report.csi_drivers),
                addons: names_of(&report.supported_addons),
                largest: report.largest.clone(),
            }
        };
        Ok(clusters.into_iter().map(candidate).collect())
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
