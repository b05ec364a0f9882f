//! An instance that was given to the branch.

use protocol::id::Id;
use protocol::service::{Instance as Document, Service};
use protocol::status::Status;
use serde::{Deserialize, Serialize};

/// What must not be lost of an instance. It is one value of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// As it came from above, without its instances.
    pub(super) service: Service,
    /// As its cluster last said it is, without its load.
    pub(super) document: Document,
    /// The cluster that has it. `None`: it waits for one.
    pub(super) cluster: Option<Id>,
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) kept: Kept,
    /// The same with its load.
    pub(super) document: Document,
    /// Why the last cluster that was given it did not take it.
    pub(super) refusal: Option<String>,
}

impl Instance {
    /// One that waits for a cluster.
    pub(super) fn new(service: Service, document: Document) -> Self {
        let mut waiting = Document::new(document.instance_number, Status::Requested);
        waiting.status_detail = Some("Waiting for scheduling decision".to_owned());
        waiting.extra = document.extra;
        Self::of(Kept { service, document: waiting, cluster: None })
    }

    pub(super) fn of(kept: Kept) -> Self {
        Self { document: kept.document.clone(), kept, refusal: None }
    }

    pub(super) fn is_of(&self, cluster: Id) -> bool {
        self.kept.cluster == Some(cluster)
    }

    /// It has found no worker in its cluster, or no cluster.
    pub(super) fn is_unschedulable(&self) -> bool {
        self.document.status.is_unschedulable()
    }

    /// Gives it to a cluster, which has yet to take it.
    pub(super) fn give_to(&mut self, cluster: Id, location: &str) {
        let number = self.document.instance_number;
        let extra = std::mem::take(&mut self.document.extra);
        self.document = Document {
            cluster_location: Some(location.to_owned()),
            status_detail: Some("Waiting for the cluster to take it".to_owned()),
            extra,
            ..Document::new(number, Status::ClusterScheduled)
        };
        self.kept.cluster = Some(cluster);
        self.kept.document = self.document.clone();
    }

    /// Says what it is waiting for. Says whether that is news.
    pub(super) fn explain(&mut self, status: Status, detail: &str) -> bool {
        let is_said =
            self.document.status == status && self.document.status_detail.as_deref() == Some(detail);
        if !is_said {
            self.document.status = status;
            self.document.status_detail = Some(detail.to_owned());
            self.kept.document = lasting(&self.document);
        }
        !is_said
    }

    /// Takes over what its cluster says. Says whether that is to be kept.
    pub(super) fn observe(&mut self, reported: Document) -> bool {
        let lasting = lasting(&reported);
        // The one above makes its own histories of what it is told.
        self.document = Document { cpu_history: Vec::new(), memory_history: Vec::new(), ..reported };
        self.refusal = None;
        if self.kept.document == lasting {
            return false;
        }
        self.kept.document = lasting;
        true
    }

    /// The service with this instance alone, as the cluster that has it is sent it.
    pub(super) fn order(&self) -> Service {
        let document = Document { cluster_id: self.kept.cluster, ..self.kept.document.clone() };
        let status = Some(document.status);
        let status_detail = document.status_detail.clone();
        Service { instance_list: vec![document], status, status_detail, ..self.kept.service.clone() }
    }
}

/// Without what changes with every report.
fn lasting(document: &Document) -> Document {
    Document {
        cpu_percent: None,
        memory_percent: None,
        disk: None,
        logs: String::new(),
        cpu_history: Vec::new(),
        memory_history: Vec::new(),
        last_modified_timestamp: 0.0,
        ..document.clone()
    }
}
