//! One instance, as the root keeps it.

use std::net::{Ipv4Addr, Ipv6Addr};

use protocol::address::INSTANCE6_FIRST;
use protocol::id::Id;
use protocol::link::LinkOffer;
use protocol::net::NetInstance;
use protocol::service::Instance as Document;
use protocol::status::Status;
use serde::{Deserialize, Serialize};

use super::{WAITING, beside};

/// What must not be lost of an instance: which cluster has it, how it was last, and where it is reached. It is one value of
/// the store. What changes with every report (load, logs) is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub number: u32,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_detail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_location: Option<String>,
    /// From here on as its cluster says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    #[serde(default)]
    pub host_port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publicip: Option<String>,
    /// Its address, and where it is reached.
    pub place: NetInstance,
    /// Where it was when its cluster fell silent and another one got it, if that may have it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<NetInstance>,
}

impl Instance {
    /// One that waits for a cluster.
    pub(super) fn new(number: u32, address: Ipv4Addr) -> Self {
        let address_v6: Ipv6Addr = beside(address, INSTANCE6_FIRST);
        Self {
            number,
            status: Status::Requested,
            status_detail: Some(WAITING.to_owned()),
            cluster_id: None,
            cluster_location: None,
            worker_id: None,
            host_ip: None,
            host_port: 0,
            publicip: None,
            place: NetInstance {
                instance_number: number,
                instance_ip: Some(address),
                instance_ip_v6: Some(address_v6.to_string()),
                cluster_id: None,
                worker_id: None,
                namespace_ip: None,
                namespace_ip_v6: None,
                host_ip: None,
                host_port: 0,
                links: LinkOffer::default(),
                location: None,
            },
            original: None,
        }
    }

    /// As clients read it, but for what is only observed.
    #[must_use]
    pub fn document(&self) -> Document {
        Document {
            cluster_id: self.cluster_id,
            cluster_location: self.cluster_location.clone(),
            status_detail: self.status_detail.clone(),
            worker_id: self.worker_id,
            host_ip: self.host_ip.clone(),
            host_port: self.host_port,
            publicip: self.publicip.clone(),
            ..Document::new(self.number, self.status)
        }
    }

    /// Whether the cluster had it, and may have it back.
    #[must_use]
    pub fn is_original_of(&self, cluster: Id) -> bool {
        self.original.as_ref().is_some_and(|original| original.cluster_id == Some(cluster))
    }

    pub(super) fn give_to(&mut self, cluster: Id, location: &str) {
        self.cluster_id = Some(cluster);
        self.cluster_location = Some(location.to_owned());
        self.status = Status::ClusterScheduled;
        self.status_detail = Some("Waiting for the cluster to take it".to_owned());
        self.place.cluster_id = Some(cluster);
    }

    pub(super) fn observe(&mut self, reported: &Document) {
        self.status = reported.status;
        self.status_detail.clone_from(&reported.status_detail);
        self.worker_id = reported.worker_id;
        self.host_ip.clone_from(&reported.host_ip);
        self.host_port = reported.host_port;
        self.publicip.clone_from(&reported.publicip);
    }

    pub(super) fn settle(&mut self, reported: &NetInstance) {
        let place = &mut self.place;
        place.namespace_ip.clone_from(&reported.namespace_ip);
        place.namespace_ip_v6.clone_from(&reported.namespace_ip_v6);
        place.host_ip.clone_from(&reported.host_ip);
        place.host_port = reported.host_port;
        place.links = reported.links;
        place.location = reported.location;
        if reported.worker_id.is_some() {
            place.worker_id = reported.worker_id;
        }
    }
}
