//! From a request at the root to a worker two levels below, and back.

use serde_json::json;

use crate::bed::Bed;
use crate::root::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_runs_two_levels_below_is_found_from_everywhere_and_leaves_nothing_behind() {
    let mut bed = Bed::start().await;
    let near = bed.deploy_in("near", &["north", "oslo"]).await;
    let far = bed.deploy_in("far", &["rome"]).await;
    let instance = bed.running(&near).await;
    assert_eq!(instance["cluster_id"], bed.id_of("north").await, "the root knows the branch alone");
    assert_eq!(instance["worker_id"], json!(bed.oslo.worker.id.to_string()));
    assert_eq!(bed.running(&far).await["cluster_id"], bed.id_of("rome").await);
    assert_eq!(bed.oslo.worker.told(), ["deploy near.test.web.test 0"]);

    let is_at = |place: &'static str| move |list: &serde_json::Value| list[0]["namespace_ip"] == place;
    let sibling = &mut bed.bergen.worker;
    let seen = sibling.sees("near.test.web.test", is_at("10.18.0.2")).await;
    assert_eq!(seen[0]["worker_id"], json!(bed.oslo.worker.id.to_string()));
    sibling.sees("far.test.web.test", is_at("10.18.2.2")).await;
    let address = seen[0]["service_ip"][0]["Address"].as_str().unwrap().to_owned();
    let by_address = sibling.query("", &address).await;
    assert_eq!(by_address["app_name"], "near.test.web.test", "{by_address}");
    bed.rome.worker.sees("near.test.web.test", is_at("10.18.0.2")).await;

    let why = bed.root.get(&format!("/v1/why/{near}")).await.ok();
    assert_eq!(why["instances"][0]["decisions"][0]["chosen"], "pi-oslo", "{why}");

    bed.bergen.worker.listen_to("near.test.web.test").await;
    bed.root.delete(&format!("/api/service/{near}/instance/0")).await.ok();
    bed.bergen.worker.hears_of("near.test.web.test").await;
    bed.bergen.worker.sees("near.test.web.test", |list| list == &json!([])).await;
    let deleted = |told: &Vec<String>| (told.len() == 2).then(|| told.clone());
    let told = eventually("a delete", || async { bed.oslo.worker.told() }, deleted).await;
    assert_eq!(told[1], "delete near.test.web.test 0");
    let left = bed.root.get(&format!("/api/service/{near}")).await.ok();
    assert_eq!(left["instance_list"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_below_a_branch_get_blocks_of_the_root_and_are_found_under_them() {
    let mut bed = Bed::start().await;
    let mut blocks = Vec::new();
    for worker in [&mut bed.oslo.worker, &mut bed.bergen.worker, &mut bed.rome.worker] {
        let block = worker.subnet().await["address"].as_str().unwrap().to_owned();
        assert_eq!(worker.subnet().await["address"], json!(block), "one for ever");
        blocks.push(block);
    }
    let nsip = blocks[0].replace(".0.0", ".0.62").replace(".0.128", ".0.190").replace(".0.64", ".0.126");
    bed.oslo.worker.is_itself_at(&nsip).await;
    for worker in [&mut bed.bergen.worker, &mut bed.rome.worker] {
        let found = worker.finds(&nsip).await;
        assert_eq!(found["namespace_ip"], json!(nsip), "where the node itself is, {found}");
    }
    blocks.sort();
    assert_eq!(blocks, ["10.18.0.0", "10.18.0.128", "10.18.0.64"]);
}
