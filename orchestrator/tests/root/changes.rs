//! Applications and services that are described anew.

use serde_json::json;

use crate::bed::{Bed, sla, web, web_at};
use crate::cluster::Cluster;

#[tokio::test]
async fn an_application_is_described_anew_and_renamed_while_it_has_no_services() {
    let bed = Bed::start().await;
    let service = bed.service("shop", web()).await;
    bed.service("other", web()).await;
    let id =
        bed.get(&format!("/api/service/{service}")).await.ok()["applicationID"].as_str().unwrap().to_owned();
    let path = format!("/api/application/{id}");

    // The dashboard gives back what it has read.
    let mut shown = bed.get(&path).await.ok();
    shown["application_desc"] = json!("better");
    bed.put(&path, shown.clone()).await.ok();
    assert_eq!(bed.get(&path).await.ok(), shown);
    bed.put(&path, json!({ "application_name": "store" })).await.is(409);
    bed.put(&path, json!({ "microservices": [id] })).await.is(422);
    bed.put(&path, json!({ "application_desc": 7 })).await.is(400);

    bed.delete(&format!("/api/service/{service}")).await.ok();
    let wrong = bed.put(&path, json!({ "application_name": "a b" })).await.is(422);
    assert_eq!(wrong["errors"][0]["path"], "application_name");
    bed.put(&path, json!({ "application_name": "other" })).await.is(409);
    bed.put(&path, json!({ "application_name": "store" })).await.ok();
    assert_eq!(bed.get(&path).await.ok()["application_name"], "store");
    // The name is free again, and the new one is not.
    bed.post("/api/application", sla("store", web())).await.is(409);
    bed.post("/api/application", sla("shop", web())).await.ok();
}

#[tokio::test]
async fn a_service_is_described_anew_for_instances_to_come() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "lab").await;
    let service = bed.service("shop", web_at("10.30.7.7")).await;
    let path = format!("/api/service/{service}");
    bed.deploy(&service).await;
    cluster.told(&format!("POST /api/service/{service}/0")).await;

    let mut shown = bed.get(&path).await.ok();
    shown["code"] = json!("docker.io/library/nginx:1.27");
    shown["note"] = json!("kept");
    bed.put(&path, shown).await.ok();
    let changed = bed.get(&path).await.ok();
    for (key, value) in [
        ("code", "docker.io/library/nginx:1.27"),
        ("image", "docker.io/library/nginx:1.27"),
        ("note", "kept"),
        ("RR_ip", "10.30.7.7"),
        ("virtualization", "docker"),
        ("microserviceID", &service),
    ] {
        assert_eq!(changed[key], value, "{key}");
    }
    assert_eq!(changed["instance_list"].as_array().unwrap().len(), 1, "what runs is left alone");
    bed.deploy(&service).await;
    let order = cluster.told(&format!("POST /api/service/{service}/1")).await;
    assert_eq!(order.body["code"], "docker.io/library/nginx:1.27");

    // As the dashboard sends it: a whole SLA.
    let mut document = sla("shop", web());
    document["applications"][0]["microservices"][0]["memory"] = json!(64);
    bed.put(&path, document).await.ok();
    assert_eq!(bed.get(&path).await.ok()["memory"], 64);
}

#[tokio::test]
async fn what_others_know_a_service_by_stays() {
    let bed = Bed::start().await;
    let service = bed.service("shop", web_at("10.30.7.7")).await;
    let path = format!("/api/service/{service}");
    let refused = async |key: &str, value: serde_json::Value| {
        let mut description = web();
        description[key] = value;
        let refused = bed.put(&path, description).await.is(422);
        assert_eq!(refused["errors"][0]["path"], key, "{refused}");
    };
    refused("microservice_name", json!("db")).await;
    refused("addresses", json!({ "rr_ip": "10.30.7.8" })).await;
    refused("port", json!("99999")).await;
    refused("microserviceID", json!("6b033dd4d683569b0801fa18")).await;
    bed.put(&path, json!([])).await.is(400);
    bed.put(&path, json!("web")).await.is(422);
    bed.put("/api/service/6b033dd4d683569b0801fa18", web()).await.is(404);
}
