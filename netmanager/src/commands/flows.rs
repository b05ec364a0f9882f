//! `netmanager flows`: the connections that the data plane remembers, read from the pinned map.

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{write_json, write_table};
use crate::app::Paths;
use crate::cli::Format;
use crate::datapath::{Flow, FlowState, Tables, Transport};

#[derive(Serialize)]
struct Row {
    transport: &'static str,
    client: String,
    service: String,
    /// Nothing if the chosen instance is gone.
    instance: Option<String>,
    nsip: Option<String>,
    node: Option<String>,
    idle_seconds: u64,
    /// How far it has come.
    state: &'static str,
}

/// # Errors
/// When there is no data plane, or it cannot be read.
pub fn run(paths: &Paths, format: Format, out: &mut impl Write) -> Result<()> {
    let tables = Tables::open(&paths.bpffs)
        .with_context(|| format!("open the data plane pinned under {}", paths.bpffs.display()))?;
    let mut flows = tables.flows().context("read the flows")?;
    flows.sort_by_key(|flow| (flow.client.ip(), flow.service.ip(), flow.client.port()));
    let rows: Vec<_> = flows.iter().map(Row::from).collect();
    match format {
        Format::Json => write_json(out, &rows)?,
        Format::Table if rows.is_empty() => writeln!(out, "No flows.")?,
        Format::Table => {
            let dash = || "-".to_owned();
            let cells: Vec<_> = rows
                .into_iter()
                .map(|row| {
                    vec![
                        row.transport.to_owned(),
                        row.client,
                        row.service,
                        row.instance.unwrap_or_else(dash),
                        row.nsip.unwrap_or_else(dash),
                        row.node.unwrap_or_else(dash),
                        row.state.to_owned(),
                        format!("{}s", row.idle_seconds),
                    ]
                })
                .collect();
            write_table(
                out,
                &["PROTO", "CLIENT", "SERVICE", "INSTANCE", "NSIP", "NODE", "STATE", "IDLE"],
                &cells,
            )?;
        }
    }
    Ok(())
}

impl From<&Flow> for Row {
    fn from(flow: &Flow) -> Self {
        Self {
            transport: match flow.transport {
                Transport::Tcp => "tcp",
                Transport::Udp => "udp",
                Transport::Icmp => "icmp",
            },
            client: flow.client.to_string(),
            service: flow.service.to_string(),
            instance: flow.backend.map(|backend| backend.instance_ip.to_string()),
            nsip: flow.backend.map(|backend| backend.ns_ip.to_string()),
            node: flow.backend.map(|backend| backend.node.to_string()),
            idle_seconds: flow.idle.as_secs(),
            state: match flow.state {
                FlowState::New => "unanswered",
                FlowState::Answered | FlowState::Assured => "open",
                FlowState::Closing => "closing",
                FlowState::Closed => "closed",
            },
        }
    }
}
