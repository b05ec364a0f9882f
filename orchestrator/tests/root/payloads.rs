//! The root's documents against those of a real Oakestra: every key that its clients may read, of the same kind.

use serde_json::{Value, json};

use crate::bed::{Bed, web_at};
use crate::cluster::{Cluster, job};

const CAPTURED: &str = include_str!("../../../tests/fixtures/oakestra-payloads.txt");

/// The body that follows the line which begins so.
fn captured(source: &str) -> Value {
    let mut lines = CAPTURED.lines().skip_while(|line| !line.starts_with(source));
    lines.next().expect("the source is in the capture");
    serde_json::from_str(lines.next().expect("a body follows").trim()).expect("the body is JSON")
}

/// Every key of `model` is in `own`, with a value of the same kind. `null` stands for any.
fn same_shape(own: &Value, model: &Value, path: &str) {
    match (own, model) {
        (_, Value::Null) | (Value::Null, _) => {}
        (Value::Object(own), Value::Object(model)) => {
            for (key, value) in model {
                let own = own.get(key).unwrap_or_else(|| panic!("{path}.{key} is missing"));
                same_shape(own, value, &format!("{path}.{key}"));
            }
        }
        (Value::Array(own), Value::Array(model)) => {
            if let (Some(own), Some(model)) = (own.first(), model.first()) {
                same_shape(own, model, &format!("{path}[0]"));
            }
        }
        // What Go reads as an integer must be one; where Oakestra itself writes 0 and 0.0, either will do.
        (Value::Number(own), Value::Number(model)) if model.as_i64().is_some_and(|number| number != 0) => {
            assert!(own.is_u64() || own.is_i64(), "{path}: {own} is no integer, as {model} is");
        }
        (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        (own, model) => panic!("{path}: {own} is of another kind than {model}"),
    }
}

#[tokio::test]
async fn documents_have_the_keys_and_kinds_of_oakestras() {
    let bed = Bed::start().await;
    let cluster = Cluster::join(&bed, "bed").await;
    let service = bed.service("smp", web_at("10.30.109.1")).await;
    bed.deploy(&service).await;
    let order = cluster.told(&format!("POST /api/service/{service}/0")).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    cluster.report(&bed, json!([job(&shown, 0, "RUNNING")])).await;

    let model = captured("GET /api/service/");
    same_shape(&bed.get(&format!("/api/service/{service}")).await.ok(), &model, "service");
    same_shape(
        &bed.get("/api/clusters/active").await.ok(),
        &captured("GET /api/clusters/active"),
        "clusters",
    );
    same_shape(
        &bed.get("/api/applications/").await.ok(),
        &captured("GET /api/applications/"),
        "applications",
    );

    // What a cluster is sent is the document that it hands on to its worker.
    let mut model = captured("+1.509");
    model.as_object_mut().unwrap().remove("instance_number");
    same_shape(&order.body, &strip_what_only_a_cluster_knows(model), "order");
}

fn strip_what_only_a_cluster_knows(mut deploy: Value) -> Value {
    let instance = deploy["instance_list"][0].as_object_mut().unwrap();
    instance.remove("worker_id");
    deploy
}
