//! What the root says of the whole, and of what is not handed in yet.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Bed, sla, web, web_at};
use crate::cluster::{Cluster, job};
use crate::workers::told;

const PI: &str = "6b033dc62c1f07cbdcd88440";

#[tokio::test]
async fn status_counts_what_there_is_and_names_what_is_wrong() {
    let bed = Bed::start().await;
    assert_eq!(
        bed.get("/v1/status").await.ok(),
        json!({
            "clusters": { "active": 0, "total": 0 },
            "workers": { "active": 0, "cordoned": 0, "draining": 0, "cpus": 0, "memory_free_mb": 0 },
            "apps": 0, "services": 0, "instances": { "running": 0, "waiting": 0, "failed": 0 }, "problems": [],
        })
    );
    let home = Cluster::join(&bed, "home").await;
    let mut dead = told(PI, "pi-2");
    (dead["state"], dead["silent"]) = (json!("dead"), json!(60));
    home.report_workers(&bed, json!([dead])).await;
    let problems = bed.get("/v1/status").await.ok()["problems"].clone();
    assert_eq!(
        (&problems[0]["code"], &problems[0]["subject"]["name"]),
        (&json!("worker-dead"), &json!("pi-2"))
    );

    home.report_with(&bed, 9000, json!([])).await;
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    home.told(&format!("POST /api/service/{service}/0")).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    home.report(&bed, json!([job(&shown, 0, "FAILED")])).await;
    let status = bed.get("/v1/status").await.ok();
    assert_eq!(status["instances"], json!({ "running": 0, "waiting": 0, "failed": 1 }), "{status}");
    let problem = &status["problems"][0];
    assert_eq!(
        (&problem["code"], &problem["severity"]),
        (&json!("service-failed"), &json!("error")),
        "{status}"
    );
    assert_eq!(problem["subject"], json!({ "kind": "service", "id": service, "name": "shop/web" }));
    assert_eq!(status["problems"].as_array().unwrap().len(), 1, "{status}");
}

async fn validated(bed: &Bed, document: &Value) -> Value {
    let before = bed.get("/api/services").await.ok();
    let validation = bed.post("/v1/validate", document.clone()).await.ok();
    assert_eq!(bed.get("/api/services").await.ok(), before, "nothing is made");
    validation
}

#[tokio::test]
async fn what_is_wrong_with_a_document_is_told_by_its_pointer_and_nothing_is_made() {
    let bed = Bed::start().await;
    let mut wrong = sla("shop", web());
    wrong["applications"][0]["microservices"][0]["memory"] = json!("much");
    wrong["sla_version"] = json!("v9");
    let validation = validated(&bed, &wrong).await;
    let pointers: Vec<_> =
        validation["problems"].as_array().unwrap().iter().map(|problem| problem["pointer"].clone()).collect();
    assert_eq!(pointers, ["/sla_version", "/applications/0/microservices/0/memory"], "{validation}");
    assert_eq!(validation["applications"], json!([]));

    // An address that somebody has; but who hands the same in again is not in his own way.
    let with_address = sla("shop", web_at("10.30.7.7"));
    bed.post("/api/application", with_address.clone()).await.ok();
    let taken = validated(&bed, &sla("other", web_at("10.30.7.7"))).await;
    let pointer = "/applications/0/microservices/0/addresses/rr_ip";
    assert_eq!(taken["problems"][0]["pointer"], pointer, "{taken}");
    let again = validated(&bed, &with_address).await;
    assert_eq!((&again["problems"], &again["applications"][0]["exists"]), (&json!([]), &json!(true)));
}

#[tokio::test]
async fn what_each_cluster_lacks_for_a_document_is_told_before_it_is_handed_in() {
    let bed = Bed::start().await;
    let (large, small) = (Cluster::join(&bed, "large").await, Cluster::join(&bed, "small").await);
    large.report_with(&bed, 9000, json!([])).await;
    small.report_with(&bed, 50, json!([])).await;
    let validation = validated(&bed, &sla("shop", web())).await;
    let clusters = json!([
        { "cluster": "large", "lacks": "" },
        { "cluster": "small", "lacks": "needs 100 MB of memory, 50 MB are free" },
    ]);
    let expected = json!([{ "name": "shop.test", "exists": false,
        "services": [{ "name": "web.test", "clusters": clusters }] }]);
    assert_eq!(validation, json!({ "problems": [], "applications": expected }));
    let anybody = bed.request(Method::POST, "/v1/validate").json(&sla("shop", web())).send().await.unwrap();
    assert_eq!(anybody.status(), 401);
}
