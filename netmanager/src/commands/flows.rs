//! `netmanager flows`: the connections that the data plane remembers.

use std::io::Write;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::source::{Question, Source};
use super::{write_json, write_table};
use crate::app::Paths;
use crate::cli::Format;
use crate::datapath::{Flow, FlowState, Transport};
use crate::names::{self, Names};
use crate::plane::Seen;

/// Which flows are shown: names or addresses of their ends; nothing is no condition.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// The container that has begun it.
    pub from: Option<String>,
    /// The service that it dialled, or the instance that it has got.
    pub to: Option<String>,
}

impl Wanted {
    fn takes(&self, flow: &Flow, names: &Names) -> bool {
        let is_instance = |text: &str, address: IpAddr| {
            text.parse() == Ok(address)
                || names.instance(address).is_some_and(|name| {
                    names::is_instance_meant(name, text) || names::is_meant(&name.service, text)
                })
        };
        let is_service = |text: &str| {
            let address = flow.service.ip();
            text.parse() == Ok(address)
                || names.service(address).is_some_and(|name| names::is_meant(name, text))
        };
        let backend = flow.backend.map(|backend| IpAddr::V4(backend.ns_ip));
        let reaches =
            |text: &str| is_service(text) || backend.is_some_and(|address| is_instance(text, address));
        self.from.as_deref().is_none_or(|text| is_instance(text, flow.client.ip()))
            && self.to.as_deref().is_none_or(reaches)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    transport: String,
    client: String,
    /// The instance that has begun it, and the service that it dialled, as far as they are known.
    client_name: Option<String>,
    service_name: Option<String>,
    service: String,
    /// Nothing if the chosen instance is gone.
    instance: Option<String>,
    nsip: Option<String>,
    node: Option<String>,
    idle_seconds: u64,
    /// How far it has come.
    state: String,
}

/// # Errors
/// When there is no data plane, or it cannot be read.
pub async fn run(paths: &Paths, wanted: Wanted, format: Format, out: &mut impl Write) -> Result<()> {
    let source = Source::find(paths).await?;
    let rows: Vec<Row> = source.ask(paths, &Question::Flows(wanted)).await?;
    match format {
        Format::Json => write_json(out, &rows)?,
        Format::Table if rows.is_empty() => writeln!(out, "No flows.")?,
        Format::Table => {
            let dash = || "-".to_owned();
            let cells: Vec<_> = rows
                .into_iter()
                .map(|row| {
                    vec![
                        row.transport,
                        row.client,
                        row.service,
                        row.instance.unwrap_or_else(dash),
                        row.nsip.unwrap_or_else(dash),
                        row.node.unwrap_or_else(dash),
                        row.state,
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

/// What is remembered, by its ends.
pub(crate) fn rows(seen: &impl Seen, names: &Names, wanted: &Wanted) -> Result<Vec<Row>> {
    let mut flows = seen.flows().context("read the flows")?;
    flows.retain(|flow| wanted.takes(flow, names));
    flows.sort_by_key(|flow| (flow.client.ip(), flow.service.ip(), flow.client.port()));
    let named = flows.iter().map(|flow| Row {
        client_name: names.instance(flow.client.ip()).map(ToString::to_string),
        service_name: names.service(flow.service.ip()).map(ToString::to_string),
        ..Row::from(flow)
    });
    Ok(named.collect())
}

impl From<&Flow> for Row {
    fn from(flow: &Flow) -> Self {
        Self {
            transport: match flow.transport {
                Transport::Tcp => "tcp",
                Transport::Udp => "udp",
                Transport::Icmp => "icmp",
            }
            .to_owned(),
            client: flow.client.to_string(),
            client_name: None,
            service_name: None,
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
            }
            .to_owned(),
        }
    }
}
