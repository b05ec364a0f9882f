//! The store of earlier versions: there, a service and all of its instances were one value. They are taken apart when a root
//! first finds them.

use std::collections::BTreeSet;

use protocol::id::Id;
use protocol::net::{NetInstance, ServiceIp};
use protocol::service::{Instance as Document, Service};
use serde::Deserialize;

use super::key;
use super::record::{Head, Instance};
use crate::store::{Entry, Store, StoreError, Transaction};

/// Instances that are written in one transaction.
const TOGETHER: usize = 256;

/// What is under the key of a service, of whichever layout.
#[derive(Debug, Deserialize)]
pub(super) struct Kept {
    owner: String,
    service: Service,
    address: ServiceIp,
    #[serde(default)]
    closest: Option<ServiceIp>,
    interested: BTreeSet<Id>,
    /// Of the earlier layout: addresses of the instances, which are in the service.
    #[serde(default)]
    places: Option<Vec<NetInstance>>,
    #[serde(default)]
    originals: Vec<NetInstance>,
}

/// The service itself. What it had beside that is under keys of its own afterwards.
pub(super) async fn of_today(store: &Store, path: &str, entry: Entry<Kept>) -> Result<Head, StoreError> {
    let Entry {
        value: Kept { owner, mut service, address, closest, interested, places, originals },
        revision,
    } = entry;
    let Some(places) = places else { return Ok(Head { owner, service, address, closest, interested }) };
    let instances = std::mem::take(&mut service.instance_list);
    let next = std::mem::take(&mut service.next_instance_progressive_number);
    (service.status, service.status_detail) = (None, None);
    let head = Head { owner, service, address, closest, interested };
    let id = head.service.id;
    let instances: Vec<_> =
        instances.into_iter().filter_map(|document| instance(document, &places, &originals)).collect();
    tracing::info!(service = %head.service.job_name, instances = instances.len(), "the store's layout is brought up to date");
    // The service comes last: if this is interrupted, it is done again.
    for part in instances.chunks(TOGETHER) {
        let written = part.iter().fold(Transaction::new(), |transaction, instance| {
            transaction.put(&key::instance(id, instance.number), instance)
        });
        store.commit(written).await?;
    }
    let last = Transaction::new().expect(path, Some(revision)).put(path, &head);
    store.commit(last.put(&key::next_instance(id), &next)).await?;
    Ok(head)
}

fn instance(document: Document, places: &[NetInstance], originals: &[NetInstance]) -> Option<Instance> {
    let number = document.instance_number;
    let of = |all: &[NetInstance]| all.iter().find(|place| place.instance_number == number).cloned();
    Some(Instance {
        number,
        status: document.status,
        status_detail: document.status_detail,
        cluster_id: document.cluster_id,
        cluster_location: document.cluster_location,
        worker_id: document.worker_id,
        host_ip: document.host_ip,
        host_port: document.host_port,
        publicip: document.publicip,
        // Both were always written together.
        place: of(places)?,
        original: of(originals),
    })
}
