//! Measures the running instances every 2 s, and at once when there is a new one; keeps their logs short on the way.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::name::InstanceName;
use protocol::node::ResourceReport;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::logs;
use crate::report::{InstanceReporter, Live};
use crate::runtime::Runtime;
use crate::verdict::chain;

const EVERY: Duration = Duration::from_secs(2);
/// containerd counts the files of each instance for this.
const DISK_EVERY: Duration = Duration::from_secs(60);

/// Sends a report of `live` to `reports` until `shutdown`.
pub async fn measure(
    live: watch::Receiver<Vec<Live>>,
    reports: watch::Sender<ResourceReport>,
    runtime: Arc<Runtime>,
    log_dir: PathBuf,
    shutdown: CancellationToken,
) {
    let (disk_sender, disk) = watch::channel(HashMap::new());
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = measure_usage(live.clone(), disk, reports) => {}
        () = measure_disk(live, disk_sender, runtime, log_dir) => {}
    }
}

async fn measure_usage(
    mut live: watch::Receiver<Vec<Live>>,
    disk: watch::Receiver<HashMap<InstanceName, u64>>,
    reports: watch::Sender<ResourceReport>,
) {
    let mut reporter = InstanceReporter::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = live.changed() => if changed.is_err() { return },
        }
        let instances = live.borrow_and_update().clone();
        let used = disk.borrow().clone();
        let measured = tokio::task::spawn_blocking(move || {
            for instance in &instances {
                if let Err(error) = logs::shorten(&instance.log) {
                    tracing::debug!(instance = %instance.name, %error, "log not shortened");
                }
            }
            let report = reporter.measure(&instances, &used);
            (reporter, report)
        });
        let (returned, report) = match measured.await {
            Ok(measured) => measured,
            Err(error) => {
                tracing::error!(%error, "measuring ended in a panic");
                (InstanceReporter::default(), ResourceReport::default())
            }
        };
        reporter = returned;
        reports.send_replace(report);
    }
}

async fn measure_disk(
    mut live: watch::Receiver<Vec<Live>>,
    disk: watch::Sender<HashMap<InstanceName, u64>>,
    runtime: Arc<Runtime>,
    log_dir: PathBuf,
) {
    let mut ticks = tokio::time::interval(DISK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = live.changed() => if changed.is_err() { return },
        }
        let instances = live.borrow_and_update().clone();
        let mut used = HashMap::new();
        for instance in &instances {
            match runtime.disk_usage(&instance.name).await {
                Ok(bytes) => {
                    used.insert(instance.name.clone(), bytes);
                }
                Err(error) => {
                    tracing::debug!(instance = %instance.name, error = chain(&error), "disk use not known")
                }
            }
        }
        disk.send_replace(used);
        let log_dir = log_dir.clone();
        let pruned = tokio::task::spawn_blocking(move || {
            logs::prune(&log_dir, |name| instances.iter().any(|instance| instance.name == *name))
        });
        if let Ok(Err(error)) = pruned.await {
            tracing::debug!(%error, "old logs not removed");
        }
    }
}
