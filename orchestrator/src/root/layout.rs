//! The store of earlier versions: there, a service and all of its instances were one value. They are taken apart when a root
//! first finds them.

use std::collections::BTreeSet;

use protocol::id::Id;
use protocol::net::{NetInstance, ServiceIp};
use protocol::service::{Instance as Document, Service};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::key;
use super::record::{Head, Instance};
use crate::store::{Entry, Store, StoreError, Transaction};

/// Instances that are written, or deleted, in one transaction.
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
    // The service comes last: if this is interrupted, it is done again. An older root may have removed instances meanwhile.
    let left = store.list::<IgnoredAny>(&key::instances(id)).await?;
    for part in left.chunks(TOGETHER) {
        let deleted = part.iter().fold(Transaction::new(), |transaction, (path, _)| transaction.delete(path));
        store.commit(deleted).await?;
    }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use protocol::sla::Microservice;
    use serde_json::json;

    use super::super::key;
    use super::super::record::{Instance, Parent, Record};
    use super::{Kept, of_today};
    use crate::object_id;
    use crate::store::Store;

    #[tokio::test]
    async fn what_an_earlier_attempt_has_left_of_instances_that_are_gone_since_goes() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(&data.path().join("store")).unwrap();
        let parent = Parent {
            application: object_id::new(),
            app_name: "shop".to_owned(),
            app_ns: "prod".to_owned(),
            owner: "Admin".to_owned(),
        };
        let sla = Microservice {
            microservice_name: "web".to_owned(),
            microservice_namespace: "prod".to_owned(),
            virtualization: "docker".to_owned(),
            ..Microservice::default()
        };
        let address = |last| Ipv4Addr::new(10, 30, 0, last);
        let mut record = Record::new(object_id::new(), &parent, sla, address(1), None).unwrap();
        for last in 2..=3 {
            record.add_instance(address(last));
        }
        let id = record.service.id;
        for instance in record.instances() {
            store.put(&key::instance(id, instance.number), instance).await.unwrap();
        }
        record.remove_instances([0]);
        let places: Vec<_> = record.instances().map(|instance| &instance.place).collect();
        let old = json!({
            "owner": record.owner, "service": record.document(), "address": record.address,
            "interested": [], "places": places,
        });
        let path = key::service(id);
        store.put(&path, &old).await.unwrap();

        let kept = store.get::<Kept>(&path).await.unwrap().unwrap();
        of_today(&store, &path, kept).await.unwrap();
        let left = store.list::<Instance>(&key::instances(id)).await.unwrap();
        let left: Vec<_> = left.into_iter().map(|(_, entry)| entry.value.number).collect();
        assert_eq!(left, [1], "the other one was removed by an older root");
        let next = store.get::<u32>(&key::next_instance(id)).await.unwrap();
        assert_eq!(next.map(|entry| entry.value), Some(2));
    }
}
