//! Clusters that are not heard of any more.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Answer, Bed, eventually, web};
use crate::cluster::{CLUSTER_HEADER, Cluster, job};

/// A root that gives clusters up soon, and two of them: the first one has the instance of a service that asks for this.
struct Lost {
    bed: Bed,
    lost: Cluster,
    other: Cluster,
    service: String,
}

impl Lost {
    async fn start(keys: Value) -> Self {
        let bed = Bed::with(|config| config.cluster_timeout = Duration::from_secs(2)).await;
        let (lost, other) = (Cluster::join(&bed, "lost").await, Cluster::join(&bed, "other").await);
        lost.report_with(&bed, 9000, json!([])).await;
        let mut described = web();
        for (key, value) in keys.as_object().unwrap() {
            described[key] = value.clone();
        }
        let service = bed.service("shop", described).await;
        bed.deploy(&service).await;
        lost.told(&format!("POST /api/service/{service}/0")).await;
        let run = Self { bed, lost, other, service };
        run.report(&run.lost, "RUNNING").await;
        run.settle(&run.lost, "10.18.0.2").await.ok();
        run.lost.forget();
        run
    }

    async fn shown(&self) -> Value {
        self.bed.get(&format!("/api/service/{}", self.service)).await.ok()
    }

    async fn report(&self, cluster: &Cluster, status: &str) {
        cluster.report(&self.bed, json!([job(&self.shown().await, 0, status)])).await;
    }

    /// A cluster says where the instance is.
    async fn settle(&self, cluster: &Cluster, ns_ip: &str) -> Answer {
        let place = json!({ "job_id": self.service, "instances": [{
            "instance_number": 0, "namespace_ip": ns_ip, "namespace_ip_v6": "", "host_ip": "192.0.2.31", "host_port": 50103,
        }] });
        let request = self.bed.net_request(Method::POST, "/api/net/service/net_deploy_status");
        Answer::of(request.header(CLUSTER_HEADER, &cluster.id).json(&place)).await
    }

    /// Where the root says that the instance is.
    async fn ns_ip(&self) -> Value {
        let table = self.bed.net_request(Method::GET, "/api/net/service/shop_test_web_test/instances");
        let table = Answer::of(table.header(CLUSTER_HEADER, &self.other.id)).await.ok();
        table["instance_list"][0]["namespace_ip"].clone()
    }

    /// The other cluster reports all the while, until it is given the instance; the first one is silent.
    async fn until_replaced(&self) {
        let given = format!("POST /api/service/{}/0", self.service);
        let report = || async {
            self.other.report(&self.bed, json!([])).await;
            self.other.orders()
        };
        eventually("the instance", report, |orders| orders.iter().find(|order| order.what == given).cloned())
            .await;
    }
}

#[tokio::test]
async fn what_a_lost_cluster_had_goes_to_another_one_and_is_removed_from_it_when_it_is_back() {
    let run = Lost::start(json!({})).await;
    run.until_replaced().await;
    let shown = run.shown().await;
    assert_eq!(shown["instance_list"][0]["cluster_id"], json!(run.other.id));
    run.settle(&run.other, "10.18.0.66").await.ok();

    run.settle(&run.lost, "10.18.0.2").await.ok();
    assert_eq!(run.ns_ip().await, "10.18.0.66", "it is not the lost one's any more");
    run.report(&run.lost, "RUNNING").await;
    run.lost.told(&format!("DELETE /api/service/{}/0", run.service)).await;
    assert_eq!(run.shown().await["instance_list"][0]["cluster_id"], json!(run.other.id));
}

#[tokio::test]
async fn what_is_to_be_kept_stays_with_its_cluster_and_says_that_nothing_is_known_of_it() {
    let run = Lost::start(json!({ "on_disconnect": "keep" })).await;
    let report = || async {
        run.other.report(&run.bed, json!([])).await;
        run.shown().await
    };
    let detail = "Its cluster is not heard of: the state is what it said last";
    eventually("the word", report, |shown| {
        (shown["instance_list"][0]["status_detail"] == detail).then_some(())
    })
    .await;
    // One that does not ask for it goes, so that there was a look at both.
    let mut free = web();
    free["on_disconnect"] = json!("replace_after 2s");
    run.lost.report_with(&run.bed, 9000, json!([])).await;
    let goes = run.bed.service("bank", free).await;
    run.bed.deploy(&goes).await;
    run.lost.told(&format!("POST /api/service/{goes}/0")).await;
    let report = || async {
        run.other.report(&run.bed, json!([])).await;
        run.other.orders()
    };
    let given = format!("POST /api/service/{goes}/0");
    eventually("the other", report, |orders| orders.iter().any(|order| order.what == given).then_some(()))
        .await;
    assert_eq!(run.shown().await["instance_list"][0]["cluster_id"], json!(run.lost.id));
}

#[tokio::test]
async fn an_original_is_given_back_to_its_cluster_at_its_old_address_also_after_a_restart() {
    let mut run = Lost::start(json!({ "reconcile": "original" })).await;
    run.until_replaced().await;
    run.settle(&run.other, "10.18.0.66").await.ok();
    run.report(&run.other, "RUNNING").await;
    assert_eq!(run.ns_ip().await, "10.18.0.66");
    run.bed = run.bed.restart().await;

    run.report(&run.lost, "RUNNING").await;
    run.other.told(&format!("DELETE /api/service/{}/0", run.service)).await;
    run.other.told("POST /api/net/job/update").await;
    let shown = run.shown().await;
    assert_eq!(shown["instance_list"][0]["cluster_id"], json!(run.lost.id));
    assert_eq!(run.ns_ip().await, "10.18.0.2");
    assert_eq!(run.lost.orders(), []);
}

#[tokio::test]
async fn what_makes_no_sense_of_an_outage_is_refused_by_its_path() {
    let bed = Bed::start().await;
    let mut described = web();
    described["on_disconnect"] = json!("replace");
    let said = bed.post("/api/application/", crate::bed::sla("shop", described)).await.is(422).to_string();
    assert!(said.contains("applications[0].microservices[0].on_disconnect"), "{said}");
}
