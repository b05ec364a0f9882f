//! What the root has, kept up to date by what it tells. Pure.

use std::collections::BTreeMap;

use protocol::id::Id;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Seen;
use crate::api::{Change, Fetched, Told, Topic};
use crate::fleet::{Clusters, Fleet, Workers};

#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// A topic that nothing was told of is missing.
    documents: BTreeMap<Topic, BTreeMap<Id, Value>>,
}

/// A document without what it has to have.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("a document of {topic:?} has no {key}")]
    Nameless { topic: Topic, key: &'static str },
    #[error("a document of {topic:?} cannot be read")]
    Document { topic: Topic, source: serde_json::Error },
}

impl Mirror {
    pub(super) fn apply(&mut self, topic: Topic, change: Change) -> Result<(), Unreadable> {
        let (upsert, remove) = match change {
            Change::All(all) => {
                self.documents.insert(topic, BTreeMap::new());
                (all, Vec::new())
            }
            Change::Some { upsert, remove } => (upsert, remove),
        };
        let documents = self.documents.entry(topic).or_default();
        for id in remove {
            documents.remove(&id);
        }
        for document in upsert {
            documents.insert(id(topic, &document)?, document);
        }
        Ok(())
    }

    /// Whether each of these was told of.
    pub(super) fn has(&self, topics: &[Topic]) -> bool {
        topics.iter().all(|topic| self.documents.contains_key(topic))
    }

    pub(super) fn seen(&self) -> Result<Seen, Unreadable> {
        Ok(Seen {
            fleet: Fleet::new(self.all(Topic::Applications)?, self.all(Topic::Services)?),
            clusters: Clusters::new(self.all(Topic::Clusters)?),
            workers: Workers::new(Told { workers: self.all(Topic::Workers)?, untold: Vec::new() }),
        })
    }

    fn all<T: DeserializeOwned>(&self, topic: Topic) -> Result<Vec<Fetched<T>>, Unreadable> {
        let documents = self.documents.get(&topic).into_iter().flat_map(BTreeMap::values);
        documents
            .map(|document| serde_json::from_value(document.clone()))
            .collect::<Result<_, _>>()
            .map_err(|source| Unreadable::Document { topic, source })
    }
}

fn id(topic: Topic, document: &Value) -> Result<Id, Unreadable> {
    let key = match topic {
        Topic::Applications => "applicationID",
        Topic::Services => "microserviceID",
        Topic::Clusters => "_id",
        Topic::Events | Topic::Workers => "id",
    };
    let id = serde_json::from_value(document[key].clone());
    id.map_err(|_no_id| Unreadable::Nameless { topic, key })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Change, Mirror, Topic, Unreadable};
    use crate::sample;

    fn names(mirror: &Mirror) -> Vec<String> {
        let clusters = mirror.seen().unwrap().clusters.clusters;
        clusters.into_iter().map(|cluster| cluster.cluster_name).collect()
    }

    #[test]
    fn documents_come_are_replaced_and_go() {
        let cluster = |number, name| json!(sample::cluster(number, name));
        let mut mirror = Mirror::default();
        assert!(!mirror.has(&[Topic::Clusters]));
        mirror.apply(Topic::Clusters, Change::All(vec![cluster(4, "home"), cluster(5, "berlin")])).unwrap();
        assert!(mirror.has(&[Topic::Clusters]) && !mirror.has(&[Topic::Clusters, Topic::Services]));
        assert_eq!(names(&mirror), ["berlin", "home"]);
        let change = Change::Some { upsert: vec![cluster(4, "house")], remove: vec![sample::id(5)] };
        mirror.apply(Topic::Clusters, change).unwrap();
        assert_eq!(names(&mirror), ["house"]);
        mirror.apply(Topic::Clusters, Change::All(Vec::new())).unwrap();
        assert_eq!(names(&mirror), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_is_no_empty_list() {
        let mut mirror = Mirror::default();
        let nameless = mirror.apply(Topic::Workers, Change::All(vec![json!({ "name": "pi-1" })]));
        assert!(matches!(nameless, Err(Unreadable::Nameless { topic: Topic::Workers, key: "id" })));
        mirror.apply(Topic::Workers, Change::All(vec![json!({ "id": sample::id(1) })])).unwrap();
        assert!(matches!(mirror.seen(), Err(Unreadable::Document { topic: Topic::Workers, .. })));
    }
}
