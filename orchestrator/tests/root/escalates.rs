//! Instances that find no worker in the cluster they were given to.

use serde_json::{Value, json};

use crate::bed::{Bed, web};
use crate::cluster::{Cluster, job};

/// Gives an instance to the larger of two clusters; shows the service.
async fn placed_in_the_larger(bed: &Bed, larger: &Cluster, service: Value) -> (String, Value) {
    let service = bed.service("shop", service).await;
    bed.deploy(&service).await;
    larger.told(&format!("POST /api/service/{service}/0")).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    (service, shown)
}

fn cluster_of(shown: &Value) -> Value {
    shown["instance_list"][0]["cluster_id"].clone()
}

#[tokio::test]
async fn what_finds_no_worker_in_one_cluster_goes_to_another_and_is_not_handed_to_and_fro() {
    let bed = Bed::start().await;
    let (large, small) = (Cluster::join(&bed, "large").await, Cluster::join(&bed, "small").await);
    large.report_with(&bed, 9000, json!([])).await;
    let (service, shown) = placed_in_the_larger(&bed, &large, web()).await;
    assert_eq!(cluster_of(&shown), json!(large.id));

    large.report_with(&bed, 9000, json!([job(&shown, 0, "NO_WORKER_CAPACITY")])).await;
    large.told(&format!("DELETE /api/service/{service}/0")).await;
    let order = small.told(&format!("POST /api/service/{service}/0")).await;
    assert_eq!(order.body["instance_list"][0]["cluster_id"], json!(small.id));
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(cluster_of(&shown), json!(small.id));
    assert_eq!(shown["instance_list"][0]["status"], "CLUSTER_SCHEDULED");

    large.forget();
    small.report(&bed, json!([job(&shown, 0, "NO_WORKER_CAPACITY")])).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(cluster_of(&shown), json!(small.id), "the other one has just said no");
    small.report(&bed, json!([job(&shown, 0, "RUNNING")])).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(shown["instance_list"][0]["status"], "RUNNING");
    assert_eq!(large.orders(), []);
}

#[tokio::test]
async fn a_cordoned_cluster_gets_nothing_new_also_when_it_or_the_root_comes_back() {
    let bed = Bed::start().await;
    let held = Cluster::join(&bed, "held").await;
    for _ in 0..2 {
        bed.post(&format!("/v1/clusters/{}/cordon", held.id), json!({})).await.ok();
    }
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    let waits = |shown: &Value| shown["status_detail"] == "No cluster fits (held: it is cordoned).";
    bed.service_when(&service, waits).await;

    let bed = bed.restart().await;
    let again = Cluster::join(&bed, "held").await;
    assert_eq!(again.id, held.id);
    assert_eq!(bed.get("/api/clusters").await.ok()[0]["cordoned"], json!(true));
    bed.service_when(&service, waits).await;
    bed.post(&format!("/v1/clusters/{}/uncordon", held.id), json!({})).await.ok();
    again.told(&format!("POST /api/service/{service}/0")).await;
    bed.post("/v1/clusters/6b033dc62c1f07cbdcd88449/cordon", json!({})).await.is(404);
}

#[tokio::test]
async fn what_is_to_run_in_one_cluster_only_waits_there() {
    let bed = Bed::start().await;
    let (large, small) = (Cluster::join(&bed, "large").await, Cluster::join(&bed, "small").await);
    let mut pinned = web();
    pinned["constraints"] = json!([{ "type": "clusters", "allowed": ["large"] }]);
    let (service, shown) = placed_in_the_larger(&bed, &large, pinned).await;
    large.report(&bed, json!([job(&shown, 0, "NO_WORKER_CAPACITY")])).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(cluster_of(&shown), json!(large.id));
    assert_eq!(shown["instance_list"][0]["status"], "NO_WORKER_CAPACITY");
    assert_eq!(small.orders(), []);
}
