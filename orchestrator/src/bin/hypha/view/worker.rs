//! Rows of `hypha get workers`.

use orchestrator::schedule::milliseconds;
use protocol::cluster::{Worker, WorkerState};
use serde_json::Value;

use crate::output::{Column, Field, Mood, Row};
use crate::view::{age, megabytes};

pub(crate) const COLUMNS: &[Column] = &[
    Column::text("WORKER"),
    Column::text("STATE"),
    Column::text("CLUSTER"),
    Column::number("INSTANCES"),
    Column::number("CPUS"),
    Column::number("CPU"),
    Column::number("FREE"),
    Column::text("ARCH"),
    Column::text("ADDRESS").wide(),
    Column::text("RUNTIMES").wide(),
    Column::number("RTT").wide(),
    Column::number("SEEN"),
];

/// `now`: seconds since the epoch. A worker that is silent keeps its row, with its age.
pub(crate) fn row(of: &Worker, document: &Value, now: f64) -> Row {
    let worker = &of.worker;
    let (state, mood) = state(of);
    Row {
        name: format!("worker/{}", worker.name),
        fields: vec![
            worker.name.as_str().into(),
            Field::mood(state, mood),
            of.cluster_name.as_str().into(),
            worker.instances.to_string().into(),
            worker.vcpus.to_string().into(),
            format!("{:.0} %", worker.cpu_percent).into(),
            megabytes(worker.memory).into(),
            worker.architecture.as_str().into(),
            worker.ip.as_str().into(),
            worker.virtualization.join(" ").into(),
            worker.rtt_ms.map(milliseconds).unwrap_or_default().into(),
            age(now, last_heard(of)).into(),
        ],
        document: document.clone(),
    }
}

/// When its cluster last heard of it: seconds since the epoch.
#[expect(clippy::cast_precision_loss, reason = "shown to the second")]
pub(crate) fn last_heard(of: &Worker) -> f64 {
    of.told_timestamp - of.worker.silent as f64
}

/// What hinders most stands first.
fn state(of: &Worker) -> (&'static str, Mood) {
    match of.worker.state {
        _ if !of.cluster_active => ("cluster lost", Mood::Bad),
        WorkerState::Dead => ("dead", Mood::Bad),
        WorkerState::Unreachable => ("unreachable", Mood::Changing),
        WorkerState::Ready if of.worker.draining && of.worker.instances > 0 => ("draining", Mood::Changing),
        WorkerState::Ready if of.worker.draining => ("drained", Mood::Changing),
        WorkerState::Ready if of.worker.cordoned => ("cordoned", Mood::Changing),
        WorkerState::Ready => ("ready", Mood::Good),
    }
}
