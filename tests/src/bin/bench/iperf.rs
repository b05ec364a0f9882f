//! Bulk by iperf3, the tool that most figures of others are by.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cell::{Cell, Running, find};
use crate::measure::{Quantity, Taken};

const PORT: &str = "5201";

/// As many streams at one time, for at least as long: iperf3 counts in whole seconds.
pub(crate) fn bulk(cell: &Cell, streams: usize, duration: Duration) -> Result<Taken> {
    let program = find("iperf3")?;
    let folder = tempfile::Builder::new().prefix("hypha-iperf3-").tempdir().context("make a folder")?;
    let mut server = cell.server_netns().command(&program)?;
    server.args(["--server", "--one-off", "--forceflush", "--port", PORT]);
    let mut server = Running::start(server, &folder.path().join("server.log"), Stdio::piped())?;
    // It speaks when it listens.
    server.first_line()?;
    let seconds = duration.as_secs_f64().ceil().max(1.0).to_string();
    let target = cell.peer().0.ip().to_string();
    let streams = streams.to_string();
    let arguments =
        ["--client", &target, "--port", PORT, "--json", "--time", &seconds, "--parallel", &streams];
    let said = cell.client_netns().output(&program.to_string_lossy(), &arguments)?;
    let report: Value = serde_json::from_str(&said).context("read what iperf3 says")?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    let rate = rate.with_context(|| format!("what iperf3 has received: {said}"))?;
    Ok(Taken::numbers(&[(Quantity::Throughput, rate / 1e9)]))
}
