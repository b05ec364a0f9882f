//! Rows of `hypha get clusters`.

use protocol::cluster::Cluster;
use serde_json::Value;

use crate::output::{Column, Field, Mood, Row};
use crate::view::{age, megabytes};

pub(crate) const COLUMNS: &[Column] = &[
    Column::text("CLUSTER"),
    Column::text("STATE"),
    Column::number("WORKERS"),
    Column::number("CPUS"),
    Column::number("CPU"),
    Column::number("MEMORY"),
    Column::text("LOCATION"),
    Column::text("ADDRESS").wide(),
    Column::text("RUNTIMES").wide(),
    Column::number("SEEN"),
];

/// `now`: seconds since the epoch. A cluster that is out of reach keeps its row, with its age.
pub(crate) fn row(cluster: &Cluster, document: &Value, now: f64) -> Row {
    let (state, mood) = match (cluster.active, cluster.cordoned) {
        (false, _) => ("lost", Mood::Bad),
        (true, true) => ("cordoned", Mood::Changing),
        (true, false) => ("active", Mood::Good),
    };
    Row {
        name: format!("cluster/{}", cluster.cluster_name),
        fields: vec![
            cluster.cluster_name.as_str().into(),
            Field::mood(state, mood),
            cluster.active_nodes.to_string().into(),
            cluster.total_cpu_cores.to_string().into(),
            format!("{:.0} %", cluster.aggregated_cpu_percent).into(),
            megabytes(cluster.memory_in_mb).into(),
            cluster.cluster_location.as_str().into(),
            format!("{}:{}", cluster.ip, cluster.port).into(),
            runtimes(cluster).into(),
            age(now, cluster.last_modified_timestamp).into(),
        ],
        document: document.clone(),
    }
}

/// Each runtime once: a cluster repeats them for each worker.
fn runtimes(cluster: &Cluster) -> String {
    let mut runtimes = cluster.virtualization.clone();
    runtimes.sort_unstable();
    runtimes.dedup();
    runtimes.join(" ")
}
