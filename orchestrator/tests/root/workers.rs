//! Workers, as clusters tell of them, and what an operator says of one.

use axum::http::StatusCode;
use protocol::cluster::TAKEN_HEADER;
use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Bed, eventually};
use crate::cluster::Cluster;

pub(crate) const PI: &str = "6b033dc62c1f07cbdcd88440";

/// A worker in a report of a cluster of ours.
pub(crate) fn told(id: &str, name: &str) -> Value {
    json!({ "_id": id, "name": name, "ip": "192.0.2.31", "state": "ready", "cordoned": false, "draining": false, "silent": 1, "vcpus": 4,
        "cpu_percent": 7.5, "memory": 3200, "memory_percent": 20.0, "architecture": "arm64",
        "virtualization": ["docker"], "instances": 3 })
}

async fn listed(bed: &Bed) -> Value {
    bed.get("/v1/workers").await.ok()
}

#[tokio::test]
async fn workers_are_listed_as_their_clusters_tell_of_them() {
    let bed = Bed::start().await;
    let berlin = Cluster::join(&bed, "berlin").await;
    let home = Cluster::join(&bed, "home").await;
    Cluster::join(&bed, "oak").await;
    home.report_workers(&bed, json!([told(PI, "pi-2"), told("6b033dc62c1f07cbdcd88441", "pi-1")])).await;
    berlin.report_workers(&bed, json!([])).await;
    let list = listed(&bed).await;
    let names: Vec<_> = list["workers"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["pi-1", "pi-2"]);
    let worker = &list["workers"][1];
    assert_eq!((&worker["cluster_name"], &worker["cluster_active"]), (&json!("home"), &json!(true)));
    let kept = told(PI, "pi-2");
    for (key, value) in kept.as_object().unwrap() {
        assert_eq!(&worker[key], value, "{key}");
    }
    assert_eq!(list["untold"], json!([{ "cluster_name": "oak", "count": 2 }]), "it is not one of ours");
}

#[tokio::test]
async fn a_report_continues_the_last_one_by_the_number_of_its_answer() {
    let bed = Bed::start().await;
    let home = Cluster::join(&bed, "home").await;
    let (one, two) = (told(PI, "pi-1"), told("6b033dc62c1f07cbdcd88441", "pi-2"));
    let report = |workers: Value, since: Option<String>| {
        let since = since.map(|number| number.parse::<u32>().unwrap());
        let body = json!({ "active_nodes": 2, "jobs": [], "workers": workers, "since": since });
        let request = bed.request(Method::POST, &format!("/api/information/{}", home.id)).json(&body).send();
        async {
            let answer = request.await.unwrap();
            let number = answer.headers().get(TAKEN_HEADER).map(|it| it.to_str().unwrap().to_owned());
            (answer.status().as_u16(), number)
        }
    };
    // Some time after a cluster has appeared, what it reports is held against what it was given.
    let number = eventually(
        "a report that may be continued",
        || report(json!([one, two]), None),
        |(status, number)| number.clone().filter(|_| *status == 200).map(Some),
    )
    .await;
    let (status, next) = report(json!([]), number.clone()).await;
    assert_eq!(status, 200);
    assert_eq!(listed(&bed).await["workers"].as_array().map(Vec::len), Some(2), "both are as they were");
    assert_eq!(report(json!([]), number).await, (409, None));
    assert_eq!(report(json!([]), next).await, (409, None), "after a mistake everything is to be told");
    assert_eq!(report(json!([one]), None).await.0, 200);
    assert_eq!(listed(&bed).await["workers"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_operator_s_word_is_passed_on_and_shown_when_the_cluster_has_kept_it() {
    let bed = Bed::start().await;
    let home = Cluster::join(&bed, "home").await;
    home.report_workers(&bed, json!([told(PI, "pi-2")])).await;
    for (verb, cordoned) in [("cordon", true), ("cordon", true), ("drain", true), ("uncordon", false)] {
        home.forget();
        bed.post(&format!("/v1/workers/{PI}/{verb}"), json!({})).await.ok();
        home.told(&format!("POST /api/worker/{PI}/{verb}")).await;
        assert_eq!(listed(&bed).await["workers"][0]["cordoned"], json!(cordoned));
    }
    for (answer, said) in
        [(StatusCode::NOT_FOUND, "does not know"), (StatusCode::CONFLICT, "Cluster home: not now.")]
    {
        home.refuse(Some(answer));
        let refused = bed.post(&format!("/v1/workers/{PI}/cordon"), json!({})).await.is(502);
        assert!(refused["message"].as_str().unwrap().contains(said), "{refused}");
        assert_eq!(listed(&bed).await["workers"][0]["cordoned"], json!(false));
    }
    bed.post("/v1/workers/6b033dc62c1f07cbdcd88449/cordon", json!({})).await.is(404);
    bed.post("/v1/workers/pi-2/cordon", json!({})).await.is(404);
}

#[tokio::test]
async fn a_worker_is_deleted_by_its_cluster_or_with_its_reason_not() {
    let bed = Bed::start().await;
    let home = Cluster::join(&bed, "home").await;
    home.report_workers(&bed, json!([told(PI, "pi-2"), told("6b033dc62c1f07cbdcd88441", "pi-1")])).await;
    home.refuse(Some(StatusCode::CONFLICT));
    let refused = bed.delete(&format!("/v1/workers/{PI}")).await.is(409);
    assert_eq!(refused["message"], "Cluster home: not now.");
    assert_eq!(listed(&bed).await["workers"].as_array().map(Vec::len), Some(2));
    home.refuse(None);
    home.forget();
    bed.delete(&format!("/v1/workers/{PI}")).await.ok();
    home.told(&format!("DELETE /api/worker/{PI}")).await;
    let left = listed(&bed).await;
    assert_eq!(left["workers"].as_array().map(Vec::len), Some(1), "it is not shown any more: {left}");
    bed.delete(&format!("/v1/workers/{PI}")).await.is(404);
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_named() {
    let bed = Bed::start().await;
    let gone = Cluster::register(&bed, "gone").await;
    gone.report_workers(&bed, json!([told(PI, "pi-2")])).await;
    let answer = bed.post(&format!("/v1/workers/{PI}/cordon"), json!({})).await.is(502);
    let said = answer["message"].as_str().unwrap();
    assert!(said.starts_with("Cluster gone at 127.0.0.1:") && said.contains("cannot be reached"), "{said}");
}

#[tokio::test]
async fn a_report_with_a_worker_that_is_none_is_refused() {
    let bed = Bed::start().await;
    let home = Cluster::join(&bed, "home").await;
    let report = json!({ "jobs": [], "workers": [{ "name": "pi-2" }] });
    let refused = bed.post(&format!("/api/information/{}", home.id), report).await.is(400);
    assert!(refused["message"].as_str().unwrap().contains("_id"), "{refused}");
}

#[tokio::test]
async fn clusters_learn_where_the_processes_of_a_node_of_another_one_are_reached() {
    let bed = Bed::start().await;
    let node = |address: &str| format!("/api/net/node/{address}");
    bed.net(Method::GET, &node("10_18_0_62"), None).await.is(400);
    let home = Cluster::join(&bed, "home").await;
    let itself = json!({ "nsip": "10.18.0.62", "nsipv6": "fc00::3e", "host_port": "50103",
        "host_ip": "192.0.2.31", "links": ["vx"] });
    let mut worker = told(PI, "pi-2");
    worker["itself"] = itself.clone();
    home.report_workers(&bed, json!([worker])).await;
    for address in ["10_18_0_62", "10.18.0.62", "fc00::3e"] {
        assert_eq!(bed.net(Method::GET, &node(address), None).await.ok(), itself, "{address}");
    }
    for address in ["10_18_0_63", "pi-2"] {
        bed.net(Method::GET, &node(address), None).await.is(404);
    }
}
