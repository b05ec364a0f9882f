//! Why instances are where they are.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bed::{Bed, web};
use crate::cluster::{Cluster, job};

/// As a cluster of ours says it of an instance that waits.
pub(crate) fn decided() -> Value {
    json!({ "instances": { "0": [{
        "at": 1_795_374_561.5, "times": 3, "algorithm": "best fit", "candidates": 2, "chosen": null,
        "rejections": [{ "filter": "memory", "count": 2, "detail": "wants 100 MB free; most is 64 on pi-1" }],
        "scores": [{ "worker": "pi-3", "parts": [{ "name": "siblings", "value": 1 }] }],
        "would_help": ["memory <= 64: pi-1"],
    }] } })
}

#[tokio::test]
async fn what_clusters_lack_and_how_they_decided_is_said() {
    let bed = Bed::start().await;
    let (large, small) = (Cluster::join(&bed, "large").await, Cluster::join(&bed, "small").await);
    large.report_with(&bed, 9000, json!([])).await;
    small.report_with(&bed, 50, json!([])).await;
    let service = bed.service("shop", web()).await;
    bed.deploy(&service).await;
    large.told(&format!("POST /api/service/{service}/0")).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    large.report_with(&bed, 9000, json!([job(&shown, 0, "NO_WORKER_CAPACITY")])).await;

    let path = format!("/v1/why/{service}");
    let told = bed.get(&path).await.ok();
    let clusters = json!([
        { "cluster": "large", "lacks": "" },
        { "cluster": "small", "lacks": "needs 100 MB of memory, 50 MB are free" },
    ]);
    assert_eq!(told["clusters"], clusters);
    let unknown = json!([{
        "instance_number": 0, "decisions": [], "unknown": "cluster large has nothing to say of it",
    }]);
    assert_eq!(told["instances"], unknown, "it is one of Oakestra's");

    large.decides(decided());
    let told = bed.get(&path).await.ok();
    assert_eq!(told["instances"][0]["decisions"], decided()["instances"]["0"]);
    assert_eq!(told["instances"][0]["unknown"], "");
    large.refuse(Some(StatusCode::INTERNAL_SERVER_ERROR));
    let told = bed.get(&path).await.ok();
    let unknown = &told["instances"][0]["unknown"];
    assert_eq!(unknown, "cluster large answered 500 Internal Server Error");
}

#[tokio::test]
async fn it_is_said_to_those_only_who_may_see_the_service() {
    let bed = Bed::start().await;
    let service = bed.service("shop", web()).await;
    let path = format!("/v1/why/{service}");
    bed.request(Method::GET, &path).send().await.unwrap().error_for_status().unwrap_err();
    bed.get("/v1/why/6b033dc62c1f07cbdcd88440").await.is(404);
    assert_eq!(bed.get(&path).await.ok(), json!({ "instances": [], "clusters": [] }));
}
