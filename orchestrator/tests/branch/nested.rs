//! A branch below a branch.

use serde_json::json;

use crate::bed::{Bed, Branch, Cluster};
use crate::root::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_runs_three_levels_below_and_is_found_from_everywhere() {
    let mut bed = Bed::start().await;
    let fjord = Branch::start("fjord", bed.branch.address()).await;
    let mut narvik = Cluster::start("narvik", "10.18.3", fjord.address()).await;
    bed.has_workers(4).await;
    // Each level finds one of its own in the list.
    let deep = bed.deploy_in("deep", &["north", "fjord", "narvik"]).await;
    let instance = bed.running(&deep).await;
    assert_eq!(instance["cluster_id"], bed.id_of("north").await);
    assert_eq!(instance["worker_id"], json!(narvik.worker.id.to_string()));
    let far = bed.deploy_in("far", &["rome"]).await;
    bed.running(&far).await;
    for worker in [&mut bed.oslo.worker, &mut bed.rome.worker] {
        worker.sees("deep.test.web.test", |list| list[0]["namespace_ip"] == "10.18.3.2").await;
    }
    narvik.worker.sees("far.test.web.test", |list| list[0]["namespace_ip"] == "10.18.2.2").await;
    assert!(narvik.worker.subnet().await["address"].is_string());
    let cordon = format!("/v1/workers/{}/cordon", narvik.worker.id);
    bed.root.post(&cordon, json!({})).await.ok();

    narvik.worker.listen_to("far.test.web.test").await;
    bed.root.delete(&format!("/api/service/{far}/instance/0")).await.ok();
    narvik.worker.hears_of("far.test.web.test").await;
    bed.root.delete(&format!("/api/service/{deep}/instance/0")).await.ok();
    let deleted = |told: &Vec<String>| told.contains(&"delete deep.test.web.test 0".to_owned()).then_some(());
    eventually("a delete", || async { narvik.worker.told() }, deleted).await;
}
