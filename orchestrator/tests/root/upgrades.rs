//! What an earlier version has stored is understood.

use std::collections::BTreeMap;

use orchestrator::store::{Store, Transaction};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bed::Bed;

/// The store of a root that kept a service and its instances as one value, but for its users, and what it answered.
#[derive(Deserialize)]
struct Earlier {
    store: BTreeMap<String, Value>,
    services: Vec<Value>,
}

/// What is observed and not stored, or says that nothing was heard of a cluster since.
const OBSERVED: [&str; 8] = [
    "cpu_percent",
    "memory_percent",
    "disk",
    "logs",
    "cpu_history",
    "memory_history",
    "last_modified_timestamp",
    "status_detail",
];

fn without_observed(mut services: Vec<Value>) -> Vec<Value> {
    for instance in
        services.iter_mut().filter_map(|service| service["instance_list"].as_array_mut()).flatten()
    {
        instance.as_object_mut().unwrap().retain(|key, _| !OBSERVED.contains(&key.as_str()));
    }
    services.sort_by_key(|service| service["microserviceID"].to_string());
    services
}

#[tokio::test]
async fn a_store_with_one_value_for_a_service_and_its_instances_is_taken_over() {
    let earlier = include_str!("../fixtures/one-value-a-service.json");
    let earlier: Earlier = serde_json::from_str(earlier).unwrap();
    let data = tempfile::tempdir().unwrap();
    {
        let store = Store::open(&data.path().join("state.db")).unwrap();
        let written = earlier.store.iter().fold(Transaction::new(), |all, (key, value)| all.put(key, value));
        store.commit(written).await.unwrap();
    }
    let before = without_observed(earlier.services);
    let mut bed = Bed::on(data, None).await;
    for start in ["first", "second"] {
        let after = bed.get("/api/services").await.ok().as_array().unwrap().clone();
        assert_eq!(without_observed(after), before, "{start} start");
        bed = bed.restart().await;
    }

    let id = |name: &str| {
        let service = before.iter().find(|service| service["microservice_name"] == name).unwrap();
        service["microserviceID"].as_str().unwrap().to_owned()
    };
    let web = format!("/api/service/{}", id("web"));
    let added = bed.post(&format!("{web}/instance"), json!({})).await.ok();
    assert_eq!(added["instance_number"], 3, "no number is given twice");
    bed.delete(&format!("{web}/instance/2")).await.ok();
    let numbers: Vec<_> = {
        let service = bed.get(&web).await.ok();
        service["instance_list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["instance_number"].clone())
            .collect()
    };
    assert_eq!(numbers, [0, 3]);
    let application = before[0]["applicationID"].as_str().unwrap();
    bed.delete(&format!("/api/application/{application}")).await.ok();
    let bed = bed.restart().await;
    assert_eq!(bed.get("/api/services").await.ok(), json!([]));
}
