//! Reads what clusters report.

use protocol::cluster::{Report, ReportedService};
use serde_json::Value;

/// The longest report that is read. It carries the histories of all instances of a cluster: Oakestra's are some 10 KB for each.
pub(crate) const REPORT_MAX: usize = 16 << 20;

/// As many workers as are kept of one cluster.
const WORKERS_MAX: usize = 16_384;

/// A report, and its services apart.
pub(crate) struct Read {
    pub(crate) report: Report,
    pub(crate) jobs: Vec<ReportedService>,
    /// All services could be read.
    pub(crate) is_whole: bool,
}

impl Read {
    /// # Errors
    /// When it is no report, for people.
    pub(crate) fn of(body: &[u8], cluster: &str) -> Result<Self, String> {
        let mut read = Self::leniently(body, cluster)?;
        if let Some(workers) = &mut read.report.workers {
            workers.truncate(WORKERS_MAX);
        }
        Ok(read)
    }

    fn leniently(body: &[u8], cluster: &str) -> Result<Self, String> {
        if let Ok(mut report) = serde_json::from_slice::<Report>(body) {
            let jobs = std::mem::take(&mut report.jobs);
            return Ok(Self { report, jobs, is_whole: true });
        }
        // One service that cannot be read must not hide the others.
        let mut body: Value =
            serde_json::from_slice(body).map_err(|error| format!("The body is not valid JSON: {error}."))?;
        let Some(Value::Array(all)) = body.get_mut("jobs").map(Value::take) else {
            return Err("A report needs the list 'jobs'.".to_owned());
        };
        body["jobs"] = Value::Array(Vec::new());
        let report =
            serde_json::from_value(body).map_err(|error| format!("The report cannot be read: {error}."))?;
        let count = all.len();
        let mut jobs = Vec::with_capacity(count);
        for job in all {
            match serde_json::from_value(job) {
                Ok(job) => jobs.push(job),
                Err(error) => {
                    tracing::warn!(%cluster, %error, "service in a report cannot be read, left out");
                }
            }
        }
        Ok(Self { report, is_whole: jobs.len() == count, jobs })
    }
}
