//! What is served against what the API's own description says of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Bed, web_at};
use crate::cluster::{Cluster, job};
use crate::why::decided;
use crate::workers::told;

struct Description(Value);

impl Description {
    /// The schema of what this operation answers when all is well.
    fn answer(&self, method: &Method, path: &str) -> &Value {
        let operation = &self.0["paths"][path][method.as_str().to_lowercase()];
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path} has no described answer: {operation}");
        schema
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let Some(reference) = schema["$ref"].as_str() else { return schema };
        let target = self.0.pointer(reference.trim_start_matches('#'));
        target.unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    /// Every described key is there unless it is optional, and of the described kind.
    fn check(&self, value: &Value, schema: &Value, path: &str) {
        let schema = self.resolve(schema);
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        let is_of = |kind: &&str| match *kind {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("{path}: the description has a kind {other}"),
        };
        assert!(kinds.iter().any(is_of), "{path}: {value} is none of {kinds:?}");
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(item, &schema["items"], &format!("{path}[{index}]"));
        }
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            match value.get(key) {
                Some(value) => self.check(value, schema, &format!("{path}.{key}")),
                None => assert!(!required.contains(&key.as_str()), "{path}.{key} is missing"),
            }
        }
    }
}

/// Something of each kind, so that there is something to answer with.
pub(crate) struct Furnished {
    /// The service, as it was shown before it ran.
    pub(crate) shown: Value,
    /// They are there as long as these are kept.
    pub(crate) clusters: [Cluster; 2],
}

pub(crate) async fn furnish(bed: &Bed) -> Furnished {
    let cluster = Cluster::join(bed, "bed").await;
    let service = bed.service("shop", web_at("10.30.109.1")).await;
    bed.deploy(&service).await;
    cluster.told(&format!("POST /api/service/{service}/0")).await;
    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    cluster.report(bed, json!([job(&shown, 0, "RUNNING")])).await;
    cluster.decides(decided());
    let another = Cluster::join(bed, "another").await;
    another.report_workers(bed, json!([told("6b033dc62c1f07cbdcd88440", "pi-1")])).await;
    Furnished { shown, clusters: [cluster, another] }
}

#[tokio::test]
async fn answers_are_as_described() {
    let bed = Bed::start().await;
    let description = Description(bed.get("/docs/openapi.json").await.ok());
    let Furnished { shown, clusters: _clusters } = furnish(&bed).await;
    let (service, application) =
        ["microserviceID", "applicationID"].map(|key| shown[key].as_str().unwrap()).into();
    let organization = bed.get("/api/organization").await.ok()[0]["_id"]["$oid"].as_str().unwrap().to_owned();

    for (path, id) in [
        ("/api/application/{id}", application),
        ("/api/applications", ""),
        ("/api/applications/{user}", "Admin"),
        ("/api/service/{id}", service),
        ("/api/services", ""),
        ("/api/services/{id}", application),
        ("/api/clusters", ""),
        ("/api/clusters/active", ""),
        ("/v1/why/{id}", service),
        ("/v1/status", ""),
        ("/v1/workers", ""),
        ("/api/organization", ""),
        ("/api/user/{username}", "Admin"),
        ("/api/users", ""),
        ("/api/users/{organization}", &organization),
        ("/api/permission/{username}", "Admin"),
    ] {
        let asked = path.split('{').next().unwrap().to_owned() + id;
        let answer = bed.get(&asked).await.ok();
        assert!(answer.as_array().is_none_or(|list| !list.is_empty()), "{asked} shows nothing to check");
        description.check(&answer, description.answer(&Method::GET, path), path);
    }
    let another = bed.post(&format!("/api/service/{service}/instance"), json!({})).await.ok();
    let path = "/api/service/{id}/instance";
    description.check(&another, description.answer(&Method::POST, path), path);
}
