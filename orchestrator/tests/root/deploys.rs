//! From a request to a cluster and back.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bed::{Bed, eventually, sla, web};
use crate::cluster::{Cluster, job};

#[tokio::test]
async fn an_instance_reaches_its_cluster_and_its_state_comes_back() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    bed.deploy(&service).await;

    let order = cluster.told(&format!("POST /api/service/{service}/1")).await;
    assert_eq!(order.body["_id"], json!(service), "clusters read the id as plain text");
    assert_eq!(order.body["instance_list"].as_array().unwrap().len(), 1);
    assert_eq!(order.body["instance_list"][0]["instance_number"], 1);
    assert_eq!(order.body["instance_list"][0]["cluster_id"], json!(cluster.id));
    assert_eq!(order.body["virtualization"], "docker");

    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(shown["instance_list"][1]["status"], "CLUSTER_SCHEDULED");
    cluster.report(&bed, json!([job(&shown, 0, "RUNNING"), job(&shown, 1, "CREATING")])).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    let first = &shown["instance_list"][0];
    assert_eq!((&first["status"], &first["host_ip"]), (&json!("RUNNING"), &json!("192.0.2.32")));
    assert_eq!((&first["cpu_percent"], &first["logs"]), (&json!("1.500000"), &json!("hello")));
    assert_eq!(shown["status"], "CREATING", "a service runs when all of it does");
    cluster.report(&bed, json!([job(&shown, 0, "RUNNING"), job(&shown, 1, "RUNNING")])).await;
    assert_eq!(bed.get(&format!("/api/service/{service}")).await.ok()["status"], "RUNNING");

    bed.delete(&format!("/api/service/{service}/instance/0")).await.ok();
    cluster.told(&format!("DELETE /api/service/{service}/0")).await;
    let left = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(left["instance_list"].as_array().unwrap().len(), 1);
    let application = left["applicationID"].as_str().unwrap();
    bed.delete(&format!("/api/application/{application}")).await.ok();
    cluster.told(&format!("DELETE /api/service/{service}/1")).await;
}

#[tokio::test]
async fn a_cluster_that_is_away_is_told_when_it_is_back_even_by_a_root_that_was_restarted() {
    let bed = Bed::start().await;
    let mut cluster = Cluster::register(&bed, "lab").await;
    cluster.report(&bed, json!([])).await;
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    let waiting = bed
        .service_when(&service, |shown| {
            shown["instance_list"][0]["status_detail"]
                .as_str()
                .is_some_and(|why| why.contains("cannot be reached"))
        })
        .await;
    assert_eq!(waiting["instance_list"][0]["status"], "CLUSTER_SCHEDULED");

    let bed = bed.restart().await;
    cluster.serve().await;
    let order = cluster.told(&format!("POST /api/service/{service}/0")).await;
    assert_eq!(order.body["job_name"], "shop.test.web.test");
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(shown["next_instance_progressive_number"], 1);
}

#[tokio::test]
async fn a_cluster_that_refuses_is_asked_again_and_the_reason_is_shown() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    cluster.refuse(Some(StatusCode::INTERNAL_SERVER_ERROR));
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    bed.service_when(&service, |shown| {
        shown["status_detail"].as_str().is_some_and(|why| why.contains("500") && why.contains("not now"))
    })
    .await;
    cluster.refuse(None);
    cluster.told(&format!("POST /api/service/{service}/0")).await;
}

#[tokio::test]
async fn what_was_taken_back_before_the_cluster_took_it_is_removed_there() {
    let bed = Bed::start().await;
    let mut cluster = Cluster::register(&bed, "lab").await;
    cluster.report(&bed, json!([])).await;
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    bed.service_when(&service, |shown| shown["status"] == "CLUSTER_SCHEDULED").await;
    bed.delete(&format!("/api/service/{service}/instance/-1")).await.ok();
    cluster.serve().await;
    cluster.told(&format!("DELETE /api/service/{service}/0")).await;
    assert!(cluster.orders().iter().all(|order| !order.what.starts_with("POST")), "{:?}", cluster.orders());
}

#[tokio::test]
async fn what_fits_nowhere_waits_with_a_reason_and_is_placed_when_there_is_room() {
    let bed = Bed::start().await;
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    let waiting = bed.service_when(&service, |shown| shown["status"] == "NoActiveClusterWithCapacity").await;
    assert_eq!(waiting["status_detail"], "No cluster has registered yet.");

    let cluster = Cluster::join(&bed, "lab").await;
    cluster.told(&format!("POST /api/service/{service}/0")).await;

    let mut large = web();
    large["memory"] = json!(5000);
    let large = bed.service("bank", large).await;
    bed.deploy(&large).await;
    bed.service_when(&large, |shown| {
        shown["status_detail"] == "No cluster fits (lab: needs 5000 MB of memory, 3900 MB are free)."
    })
    .await;
    cluster.report_with(&bed, 8000, json!([])).await;
    cluster.told(&format!("POST /api/service/{large}/0")).await;
}

#[tokio::test]
async fn a_direct_constraint_names_the_cluster() {
    let bed = Bed::start().await;
    let _near = Cluster::join(&bed, "near").await;
    let far = Cluster::join(&bed, "far").await;
    let mut service = web();
    service["constraints"] = json!([{ "type": "direct", "cluster": "far" }]);
    let placed = bed.service("shop", service.clone()).await;
    bed.deploy(&placed).await;
    far.told(&format!("POST /api/service/{placed}/0")).await;
    service["constraints"][0]["cluster"] = json!("nowhere");
    let lost = bed.service("bank", service).await;
    bed.deploy(&lost).await;
    bed.service_when(&lost, |shown| shown["status"] == "TargetClusterNotFound").await;
}

#[tokio::test]
async fn a_cluster_is_told_to_remove_what_nobody_wants() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let unknown = json!({ "microserviceID": "6b033dd4d683569b0801fa18", "job_name": "old.test.web.test" });
    cluster.report(&bed, json!([job(&unknown, 0, "UNDEPLOYED")])).await;
    assert_eq!(cluster.orders(), []);
    cluster.report(&bed, json!([job(&unknown, 0, "RUNNING")])).await;
    cluster.told("DELETE /api/service/6b033dd4d683569b0801fa18/-1").await;

    let service = bed.service("shop", web()).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    cluster.report(&bed, json!([job(&shown, 5, "RUNNING"), "nonsense"])).await;
    cluster.told(&format!("DELETE /api/service/{service}/5")).await;
}

#[tokio::test]
async fn a_cluster_keeps_its_id_and_what_runs_there_keeps_its_place_over_restarts() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    cluster.told(&format!("POST /api/service/{service}/0")).await;
    let before = bed.get(&format!("/api/service/{service}")).await.ok();
    cluster.report(&bed, json!([job(&before, 0, "RUNNING")])).await;

    let bed = bed.restart().await;
    assert_eq!(bed.get("/api/clusters/active").await.ok(), json!([]), "not heard of since the start");
    let again = Cluster::register(&bed, "lab").await;
    assert_eq!(again.id, cluster.id);
    cluster.forget();
    assert_eq!(bed.get("/api/clusters/active").await.ok()[0]["port"], json!(again.port.to_string()));
    let after = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(after["instance_list"][0]["status"], "RUNNING");
    assert_eq!(after["instance_list"][0]["cluster_id"], json!(cluster.id));
}

#[tokio::test]
async fn fifty_instances_at_once_all_arrive_and_all_go() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let mut small = web();
    small["memory"] = json!(1);
    let service = bed.service("shop", small).await;
    let path = format!("/api/service/{service}/instance");
    futures::future::join_all((0..50).map(|_| bed.post(&path, Value::Null))).await;
    let posts = |orders: &Vec<crate::cluster::Order>, method: &str| {
        orders.iter().filter(|order| order.what.starts_with(method)).count()
    };
    eventually(
        "deploys",
        || async { cluster.orders() },
        |orders| (posts(orders, "POST") == 50).then_some(()),
    )
    .await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    let mut numbers: Vec<_> = shown["instance_list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["instance_number"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    bed.delete(&format!("/api/service/{service}/instance/-1")).await.ok();
    eventually(
        "removals",
        || async { cluster.orders() },
        |orders| (posts(orders, "DELETE") == 50).then_some(()),
    )
    .await;
}

#[tokio::test]
async fn what_one_user_makes_is_made_whole_or_not_at_all() {
    let bed = Bed::start().await;
    let mut document = sla("shop", web());
    let mut second = document["applications"][0].clone();
    second["application_name"] = json!("bank");
    document["applications"].as_array_mut().unwrap().push(second);
    bed.post("/api/application/", sla("bank", web())).await.ok();
    bed.post("/api/application/", document).await.is(409);
    assert_eq!(bed.get("/api/applications").await.ok().as_array().unwrap().len(), 1);
    assert_eq!(bed.request(Method::GET, "/api/clusters").send().await.unwrap().status(), 200);
}
