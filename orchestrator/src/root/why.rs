//! Why the instances of a service are where they are: what each cluster lacks for one more, seen from here, and what the
//! clusters themselves decided, which they are asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use protocol::decision::{ClusterVerdict, Decisions, Why, WhyInstance};
use protocol::id::Id;
use reqwest::StatusCode;

use super::Root;
use super::cluster::{Cluster, unanswered};
use super::place;
use super::record::Record;
use crate::store::StoreError;

/// A person waits for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Clusters that are asked at the same time.
const AT_ONCE: usize = 16;

impl Root {
    pub(super) async fn why(&self, record: &Record) -> Result<Why, StoreError> {
        let service = record.service.id;
        let candidates = self.candidates().await?;
        let mut clusters: Vec<_> = candidates
            .iter()
            .map(|candidate| ClusterVerdict {
                cluster: candidate.name.clone(),
                lacks: place::verdict(&record.service.sla, candidate).unwrap_or_default(),
            })
            .collect();
        clusters.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        let asked: BTreeSet<_> = record.instances().filter_map(|instance| instance.cluster_id).collect();
        let answers: Vec<_> = futures::stream::iter(asked)
            .map(async |cluster| (cluster, self.ask_why(cluster, service).await))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let instances = record.instances().map(|instance| {
            let instance_number = instance.number;
            let answer = answers.iter().find(|(cluster, _)| Some(*cluster) == instance.cluster_id);
            let (decisions, unknown) = match answer.map(|(_, answer)| answer) {
                None => (Vec::new(), String::new()),
                Some(Err(unknown)) => (Vec::new(), unknown.clone()),
                Some(Ok(decisions)) => {
                    (decisions.instances.get(&instance_number).cloned().unwrap_or_default(), String::new())
                }
            };
            WhyInstance { instance_number, decisions, unknown }
        });
        Ok(Why { instances: instances.collect(), clusters })
    }

    /// What a cluster decided, or why that is not to be had, for people.
    async fn ask_why(&self, cluster: Id, service: Id) -> Result<Decisions, String> {
        let known: Option<Cluster> = self.cluster(cluster).await.map_err(|error| error.to_string())?;
        let Some(cluster) = known else {
            return Err("its cluster is not known any more".to_owned());
        };
        let url = format!("http://{}/v1/why/{service}", cluster.authority());
        let sent = self.client.get(url).timeout(ANSWER_WITHIN).send().await;
        let answer = sent.map_err(|error| format!("cluster {} {}", cluster.name, unanswered(&error)))?;
        match answer.status() {
            status if status.is_success() => {
                let unreadable = |_error| format!("cluster {} does not say how it decided", cluster.name);
                answer.json().await.map_err(unreadable)
            }
            // It does not know the service yet, or it is one of Oakestra's.
            StatusCode::NOT_FOUND => Err(format!("cluster {} has nothing to say of it", cluster.name)),
            status => Err(format!("cluster {} answered {status}", cluster.name)),
        }
    }
}
