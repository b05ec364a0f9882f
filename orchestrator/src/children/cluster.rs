//! Clusters: who has registered, and how they are reached.

use axum::http::HeaderMap;
use protocol::constraint::names_of;
use protocol::id::Id;
use serde::{Deserialize, Serialize};

use super::key;
use super::live::{ClusterView, Live};
use super::place::Candidate;
use crate::clock::Moment;
use crate::http::Peer;
use crate::object_id;
use crate::registration::CLUSTER_HEADER;
use crate::store::{Store, StoreError, Transaction};

/// A cluster as stored. It changes only when the cluster registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) id: Id,
    /// By it a cluster that registers again is known.
    pub(crate) name: String,
    pub(crate) location: String,
    /// The address that the registration came from; who is above calls back there.
    pub(crate) ip: String,
    pub(crate) port: u16,
    /// Where it is told of changed tables.
    pub(crate) net_port: u16,
    /// It is given nothing new, by the will of an operator.
    #[serde(default)]
    pub(crate) cordoned: bool,
}

impl Cluster {
    /// Host and port of the URLs at which it takes orders.
    pub(crate) fn authority(&self) -> String {
        authority(&self.ip, self.port)
    }

    /// Of those at which it is told of changed tables.
    pub(crate) fn net_authority(&self) -> String {
        authority(&self.ip, self.net_port)
    }

    /// The cluster as the choice among several sees it.
    pub(crate) fn candidate(self, live: &Live, now: Moment) -> Candidate {
        let unheard = ClusterView::default();
        let view = live.cluster(self.id).unwrap_or(&unheard);
        let report = view.report();
        Candidate {
            id: self.id,
            name: self.name,
            location: self.location,
            active: live.is_active(self.id, now),
            cordoned: self.cordoned,
            workers: report.active_nodes,
            vcpus: report.vcpus,
            vgpus: report.vgpus,
            memory: report.memory.saturating_sub(view.promised_memory(now)),
            virtualization: report.virtualization.clone(),
            drivers: names_of(&report.csi_drivers),
            addons: names_of(&report.supported_addons),
            largest: report.largest.clone(),
        }
    }
}

fn authority(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// What a cluster says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) ip: String,
    pub(crate) port: u16,
    pub(crate) net_port: u16,
}

/// Makes a cluster known, or known again: the same name keeps its id. Says whether it was not known.
pub(crate) async fn register(
    store: &Store,
    registration: Registration,
) -> Result<(Cluster, bool), StoreError> {
    let name_key = key::cluster_name(&registration.name);
    let (cluster, is_new) = loop {
        let known = store.get::<Id>(&name_key).await?;
        let before = match &known {
            Some(entry) => store.get::<Cluster>(&key::cluster(entry.value)).await?,
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
        match store.commit(transaction).await {
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
    Ok((cluster, is_new))
}

/// Another address and port for news of tables, as a cluster says itself. Says whether it is known.
pub(crate) async fn move_net(store: &Store, id: Id, ip: String, port: u16) -> Result<bool, StoreError> {
    store
        .update(&key::cluster(id), |cluster: Option<Cluster>| match cluster {
            Some(mut cluster) => {
                cluster.ip.clone_from(&ip);
                cluster.net_port = port;
                (Some(cluster), true)
            }
            None => (None, false),
        })
        .await
}

pub(crate) async fn known(store: &Store, id: Id) -> Result<Option<Cluster>, StoreError> {
    Ok(store.get::<Cluster>(&key::cluster(id)).await?.map(|entry| entry.value))
}

pub(crate) async fn all(store: &Store) -> Result<Vec<Cluster>, StoreError> {
    let listed = store.list::<Cluster>(key::CLUSTERS).await?;
    Ok(listed.into_iter().map(|(_, entry)| entry.value).collect())
}

/// Why it is not known from which cluster a request comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCaller {
    #[error("{0}")]
    Unknown(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The clusters that a request may come from: the one that it names, or all that registered from its address.
pub(crate) async fn callers(store: &Store, headers: &HeaderMap, peer: Peer) -> Result<Vec<Id>, NoCaller> {
    let named = headers.get(CLUSTER_HEADER).and_then(|value| value.to_str().ok()?.parse::<Id>().ok());
    if let Some(id) = named {
        return match known(store, id).await? {
            Some(_) => Ok(vec![id]),
            None => Err(NoCaller::Unknown(format!("No cluster {id} has registered here."))),
        };
    }
    let ip = peer.0.ip().to_canonical().to_string();
    let clusters = all(store).await?.into_iter();
    let callers: Vec<Id> = clusters.filter(|cluster| cluster.ip == ip).map(|cluster| cluster.id).collect();
    if callers.is_empty() {
        return Err(NoCaller::Unknown(format!("No cluster has registered from {ip}.")));
    }
    Ok(callers)
}
