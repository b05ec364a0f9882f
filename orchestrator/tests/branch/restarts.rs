//! A branch that ends and begins again.

use serde_json::json;

use crate::bed::Bed;
use crate::root::{eventually, web};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_branch_loses_nothing_and_repeats_nothing() {
    let bed = Bed::start().await;
    let first = bed.deploy_in("first", &["north", "oslo"]).await;
    bed.running(&first).await;
    let north = bed.id_of("north").await;
    let Bed { root, branch, oslo, mut bergen, rome } = bed;
    bergen.worker.sees("first.test.web.test", |list| list[0]["namespace_ip"] == "10.18.0.2").await;
    bergen.worker.listen_to("first.test.web.test").await;

    let left = branch.stop().await;
    // Asked for while there is no branch.
    let mut service = web();
    service["constraints"] = json!([{ "type": "clusters", "allowed": ["north", "oslo"] }]);
    let second = root.service("second", service).await;
    root.deploy(&second).await;
    let branch = left.again().await;
    let mut bed = Bed { root, branch, oslo, bergen, rome };
    bed.running(&second).await;
    assert_eq!(bed.running(&first).await["cluster_id"], north);
    assert_eq!(bed.id_of("north").await, north, "the same name is the same cluster");
    assert_eq!(bed.oslo.worker.told(), ["deploy first.test.web.test 0", "deploy second.test.web.test 0"]);

    bed.root.delete(&format!("/api/service/{first}/instance/0")).await.ok();
    bed.bergen.worker.hears_of("first.test.web.test").await;
    bed.bergen.worker.sees("first.test.web.test", |list| list == &json!([])).await;
    let deleted =
        |told: &Vec<String>| told.contains(&"delete first.test.web.test 0".to_owned()).then_some(());
    eventually("a delete", || async { bed.oslo.worker.told() }, deleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_root_is_not_noticed_below_the_branch() {
    let mut bed = Bed::start().await;
    let service = bed.deploy_in("shop", &["north", "bergen"]).await;
    bed.running(&service).await;
    bed.root = bed.root.restart().await;
    let instance = bed.running(&service).await;
    assert_eq!(instance["worker_id"], json!(bed.bergen.worker.id.to_string()));
    bed.oslo.worker.sees("shop.test.web.test", |list| list[0]["namespace_ip"] == "10.18.1.2").await;
    let more = bed.deploy_in("more", &["north", "oslo"]).await;
    bed.running(&more).await;
    assert_eq!(bed.bergen.worker.told(), ["deploy shop.test.web.test 0"]);
}
