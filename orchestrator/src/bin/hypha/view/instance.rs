//! Rows of `hypha get instances`.

use protocol::service::{Instance, Service};
use serde_json::{Value, json};

use crate::fleet::{Clusters, Fleet};
use crate::name::Target;
use crate::output::{Column, Field, Row};
use crate::view::age;
use orchestrator::standing::{cause, mood, word};

pub(crate) const COLUMNS: &[Column] = &[
    Column::text("INSTANCE"),
    Column::text("STATE"),
    Column::text("NODE"),
    Column::text("CLUSTER"),
    Column::number("CPU"),
    Column::number("MEMORY").wide(),
    Column::number("DISK").wide(),
    Column::text("PUBLIC IP").wide(),
    Column::number("SEEN").wide(),
    Column::text("DETAIL"),
];

/// `now`: seconds since the epoch.
pub(crate) fn row(
    service: &Service,
    instance: &Instance,
    document: &Value,
    fleet: &Fleet,
    clusters: &Clusters,
    now: f64,
) -> Row {
    let label = fleet.names().label(Target::Instance(service.id, instance.instance_number));
    Row {
        name: format!("instance/{label}"),
        fields: vec![
            label.as_str().into(),
            Field::mood(word(instance.status), mood(instance.status)),
            node(instance).into(),
            clusters.name(instance.cluster_id).into(),
            percent(instance.cpu_percent.as_deref()).into(),
            percent(instance.memory_percent.as_deref()).into(),
            disk(instance).into(),
            instance.publicip.clone().unwrap_or_default().into(),
            age(now, instance.last_modified_timestamp).into(),
            cause(instance.status, instance.status_detail.as_deref()).into(),
        ],
        document: named(document, &label, service),
    }
}

/// The worker as far as the root knows it: its name where the root has one, else its address.
pub(crate) fn node(instance: &Instance) -> &str {
    let name = instance.extra.get("worker_name").and_then(Value::as_str).filter(|name| !name.is_empty());
    name.or(instance.host_ip.as_deref()).unwrap_or_default()
}

/// A share of the worker, which the wire has as text.
fn percent(text: Option<&str>) -> String {
    let percent: Option<f64> = text.and_then(|text| text.parse().ok());
    percent.map(|percent| format!("{percent:.1} %")).unwrap_or_default()
}

fn disk(instance: &Instance) -> String {
    let bytes: Option<u64> = instance.disk.as_deref().and_then(|text| text.parse().ok());
    bytes.map(|bytes| format!("{} kB", bytes.div_ceil(1024))).unwrap_or_default()
}

/// The instance's own document does not say whose it is.
fn named(document: &Value, label: &str, service: &Service) -> Value {
    let mut document = document.clone();
    if let Value::Object(members) = &mut document {
        members.insert("name".to_owned(), json!(label));
        members.insert("job_name".to_owned(), json!(service.job_name));
    }
    document
}
