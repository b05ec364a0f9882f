//! A cluster below a branch that is killed.

use serde_json::{Value, json};

use crate::bed::Bed;
use crate::root::web;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_cluster_had_is_placed_at_its_sibling_with_the_same_address() {
    let bed = Bed::start().await;
    let mut service = web();
    service["constraints"] = json!([{ "type": "clusters", "allowed": ["north"] }]);
    let service = bed.root.service("shop", service).await;
    bed.root.deploy(&service).await;
    let before = bed.running(&service).await;
    let name = "shop.test.web.test";
    let Bed { root, branch, mut oslo, mut bergen, rome } = bed;
    if before["worker_id"] != json!(oslo.worker.id.to_string()) {
        std::mem::swap(&mut oslo, &mut bergen);
    }
    let (killed, mut sibling) = (oslo, bergen);
    let is_there = |list: &Value| list[0]["namespace_ip"].is_string();
    let address = sibling.worker.sees(name, is_there).await[0]["instance_ip"].clone();
    let _silent = killed.kill().await;

    let other = json!(sibling.worker.id.to_string());
    let moved = |shown: &Value| {
        let instance = &shown["instance_list"][0];
        instance["status"] == "RUNNING" && instance["worker_id"] == other
    };
    root.service_when(&service, moved).await;
    let is_moved = |list: &Value| list[0]["worker_id"] == other;
    assert_eq!(sibling.worker.sees(name, is_moved).await[0]["instance_ip"], address);
    drop((branch, rome));
}
