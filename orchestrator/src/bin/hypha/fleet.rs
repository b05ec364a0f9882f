//! What the root has, fetched once for a command.

use protocol::cluster::{Cluster, UntoldWorkers, Worker};
use protocol::id::Id;
use protocol::service::Service;
use serde_json::Value;

use crate::api::{ApiError, App, Client, Fetched, Told};
use crate::name::Names;

/// Applications and services, each list beside the documents it was read from.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) apps: Vec<App>,
    pub(crate) app_documents: Vec<Value>,
    pub(crate) services: Vec<Service>,
    pub(crate) service_documents: Vec<Value>,
}

#[derive(Debug, Default)]
pub(crate) struct Clusters {
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) documents: Vec<Value>,
}

#[derive(Debug, Default)]
pub(crate) struct Workers {
    pub(crate) workers: Vec<Worker>,
    pub(crate) documents: Vec<Value>,
    pub(crate) untold: Vec<UntoldWorkers>,
}

impl Fleet {
    pub(crate) async fn fetch(client: &Client) -> Result<Self, ApiError> {
        let (apps, services) = futures::try_join!(client.apps(), client.services())?;
        Ok(Self::new(apps, services))
    }

    /// Sorted by name, so that two looks at the same fleet look the same.
    pub(crate) fn new(mut apps: Vec<Fetched<App>>, mut services: Vec<Fetched<Service>>) -> Self {
        apps.sort_by(|a, b| {
            (&a.document.name, &a.document.namespace).cmp(&(&b.document.name, &b.document.namespace))
        });
        services.sort_by(|a, b| a.document.job_name.cmp(&b.document.job_name));
        let (apps, app_documents) = split(apps);
        let (mut services, service_documents): (Vec<Service>, _) = split(services);
        for service in &mut services {
            service.instance_list.sort_by_key(|instance| instance.instance_number);
        }
        Self { apps, app_documents, services, service_documents }
    }

    pub(crate) fn names(&self) -> Names<'_> {
        Names::new(&self.apps, &self.services)
    }

    pub(crate) fn service(&self, id: Id) -> Option<&Service> {
        self.services.iter().find(|service| service.id == id)
    }

    pub(crate) fn services_of(&self, app: Id) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(move |service| service.application_id == app)
    }
}

impl Clusters {
    pub(crate) async fn fetch(client: &Client) -> Result<Self, ApiError> {
        Ok(Self::new(client.clusters().await?))
    }

    /// Sorted by name.
    pub(crate) fn new(mut clusters: Vec<Fetched<Cluster>>) -> Self {
        clusters.sort_by(|a, b| a.document.cluster_name.cmp(&b.document.cluster_name));
        let (clusters, documents) = split(clusters);
        Self { clusters, documents }
    }

    /// The name of a cluster; nothing for one that is not known.
    pub(crate) fn name(&self, id: Option<Id>) -> &str {
        let cluster = self.clusters.iter().find(|cluster| Some(cluster.id) == id);
        cluster.map_or("", |cluster| cluster.cluster_name.as_str())
    }
}

impl Workers {
    pub(crate) async fn fetch(client: &Client) -> Result<Self, ApiError> {
        Ok(Self::new(client.workers().await?))
    }

    /// Sorted by cluster, then by name.
    pub(crate) fn new(Told { mut workers, untold }: Told) -> Self {
        let key = |of: &Fetched<Worker>| (of.document.cluster_name.clone(), of.document.worker.name.clone());
        workers.sort_by_cached_key(key);
        let (workers, documents) = split(workers);
        Self { workers, documents, untold }
    }
}

fn split<T>(fetched: Vec<Fetched<T>>) -> (Vec<T>, Vec<Value>) {
    fetched.into_iter().map(|Fetched { document, raw }| (document, raw)).unzip()
}
