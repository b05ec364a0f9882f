//! Why the instances of a service are where they are: what each cluster lacks for one more, seen from here, and what the
//! clusters themselves decided, which they are asked for.

use std::collections::BTreeSet;

use futures::StreamExt;
use protocol::decision::{ClusterVerdict, Decisions, Why, WhyInstance};
use protocol::id::Id;

use super::Root;
use super::place;
use super::record::Record;
use crate::children::call;
use crate::store::StoreError;

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
        let known = self.cluster(cluster).await.map_err(|error| error.to_string())?;
        let Some(cluster) = known else {
            return Err("its cluster is not known any more".to_owned());
        };
        call::why(&self.client, &cluster, service).await
    }
}
