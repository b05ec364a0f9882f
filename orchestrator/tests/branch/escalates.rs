//! What finds no worker in one cluster of a branch goes to another one there, and then elsewhere.

use serde_json::{Value, json};

use crate::bed::Bed;
use crate::root::{eventually, web};

/// An operator's wish, told to the root, and kept when the root shows it.
async fn cordon(bed: &Bed, worker: protocol::id::Id) {
    bed.root.post(&format!("/v1/workers/{worker}/cordon"), json!({})).await.ok();
    let is_kept = |told: &Value| {
        let workers = told["workers"].as_array()?;
        workers
            .iter()
            .any(|one| one["_id"] == json!(worker.to_string()) && one["cordoned"] == true)
            .then_some(())
    };
    eventually("a cordoned worker", || async { bed.root.get("/v1/workers").await.body }, is_kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fits_in_no_cluster_of_a_branch_goes_to_one_of_the_root() {
    let bed = Bed::start().await;
    cordon(&bed, bed.oslo.worker.id).await;
    let service = bed.root.service("first", web()).await;
    bed.root.deploy(&service).await;
    // The root finds most memory in the branch, and that has another cluster.
    let instance = bed.running(&service).await;
    assert_eq!(instance["cluster_id"], bed.id_of("north").await);
    assert_eq!(instance["worker_id"], json!(bed.bergen.worker.id.to_string()));

    cordon(&bed, bed.bergen.worker.id).await;
    let service = bed.root.service("second", web()).await;
    bed.root.deploy(&service).await;
    let instance = bed.running(&service).await;
    assert_eq!(instance["cluster_id"], bed.id_of("rome").await);
    assert_eq!(bed.rome.worker.told(), ["deploy second.test.web.test 0"]);
    assert_eq!(bed.oslo.worker.told(), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_nothing_fits_below_is_said_at_the_root() {
    let bed = Bed::start().await;
    cordon(&bed, bed.oslo.worker.id).await;
    let service = bed.deploy_in("held", &["north", "oslo"]).await;
    let waits = |instance: &Value| {
        instance["status_detail"].as_str().is_some_and(|detail| detail.contains("1 cordoned (pi-oslo)"))
    };
    let instance = bed.instance_when(&service, waits).await;
    assert_eq!(instance["status"], "NO_WORKER_CAPACITY");
    bed.root.post(&format!("/v1/workers/{}/uncordon", bed.oslo.worker.id), json!({})).await.ok();
    bed.running(&service).await;
}
