//! `netmanager services`: what is behind each service address that this node knows.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::exit::NotFound;
use super::source::{Question, Source};
use super::{write_json, write_table};
use crate::app::Paths;
use crate::cli::Format;
use crate::names::{self, Names};
use crate::plane::Seen;
use crate::report::policy;

/// Which services are shown.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// Name or address; nothing is all of them.
    pub service: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    address: IpAddr,
    /// Nothing if the cluster has not said it.
    service: Option<String>,
    /// The instance whose own address it is.
    instance: Option<u32>,
    policy: String,
    /// Connections that have taken a turn so far.
    turns: u32,
    backends: Vec<Backend>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Backend {
    /// Its number, as far as the cluster has said it.
    instance: Option<u32>,
    instance_ip: IpAddr,
    ns_ip: IpAddr,
    node: SocketAddr,
    /// Whether it runs on this node.
    here: bool,
    /// It keeps the connections that it has and gets no new ones: it was found to be a dead end, or drains.
    resting: bool,
    /// The time until an answer from it, as measured; microseconds.
    round_trip_us: Option<u64>,
    /// Connections from this node's containers to the address that it has now.
    flows: usize,
}

/// # Errors
/// When there is no data plane, it cannot be read, or `wanted` names no service in it.
pub async fn run(paths: &Paths, wanted: Wanted, format: Format, out: &mut impl Write) -> Result<()> {
    let source = Source::find(paths).await?;
    let rows: Vec<Row> = source.ask(paths, &Question::Services(wanted)).await?;
    match format {
        Format::Json => write_json(out, &rows)?,
        Format::Table if rows.is_empty() => {
            writeln!(out, "No services known: none was dialled, and none runs here.")?;
        }
        Format::Table => write(out, &rows)?,
    }
    Ok(())
}

/// What is known, by name.
pub(crate) fn rows(seen: &impl Seen, names: &Names, wanted: &Wanted) -> Result<Vec<Row>> {
    let mut rows = all(seen, names).context("read the services")?;
    if let Some(wanted) = &wanted.service {
        rows.retain(|row| is_wanted(row, names, wanted));
        if rows.is_empty() {
            let known =
                "`netmanager services` lists those that are; one that nobody has dialled may exist elsewhere";
            return Err(NotFound(format!("no service '{wanted}' is known on this node: {known}")).into());
        }
    }
    Ok(rows)
}

fn all(seen: &impl Seen, names: &Names) -> Result<Vec<Row>> {
    let mut flows: HashMap<(IpAddr, IpAddr), usize> = HashMap::new();
    for flow in seen.flows()? {
        if let Some(backend) = flow.backend {
            *flows.entry((flow.service.ip(), backend.ns_ip.into())).or_default() += 1;
        }
    }
    let here: Vec<_> = seen.endpoints()?.iter().map(|endpoint| endpoint.ns_ip).collect();
    let ranges = seen.ranges()?;
    let mut rows = Vec::new();
    for service in seen.services()? {
        let address = service.service_ip;
        // Other nodes themselves, which whoever answers their processes looks up in the same table.
        if !ranges.is_service(address) {
            continue;
        }
        let of_family = |v4, v6: Option<Ipv6Addr>| match v6 {
            Some(v6) if address.is_ipv6() => IpAddr::V6(v6),
            _ => IpAddr::V4(v4),
        };
        let live = service.backends.iter().map(|backend| (backend, false));
        let backends = live.chain(service.resting.iter().map(|backend| (backend, true)));
        let backends = backends.map(|(backend, resting)| {
            let round_trip = seen.round_trip(backend)?;
            Ok(Backend {
                instance: names.instance(backend.ns_ip.into()).map(|name| name.number),
                instance_ip: of_family(backend.instance_ip, backend.instance_ip6),
                ns_ip: of_family(backend.ns_ip, backend.ns_ip6),
                node: backend.node,
                here: here.contains(&backend.ns_ip),
                flows: flows.get(&(address, backend.ns_ip.into())).copied().unwrap_or_default(),
                resting,
                round_trip_us: round_trip.and_then(|time| time.as_micros().try_into().ok()),
            })
        });
        rows.push(Row {
            address,
            service: names.service(address).map(ToString::to_string),
            instance: names.instance(address).map(|name| name.number),
            policy: policy(service.policy).to_owned(),
            turns: seen.turns_taken(address)?,
            backends: backends.collect::<Result<_>>()?,
        });
    }
    rows.sort_by_key(|row| (row.service.clone(), row.instance, row.address));
    Ok(rows)
}

fn is_wanted(row: &Row, names: &Names, wanted: &str) -> bool {
    let by_address = wanted.parse() == Ok(row.address);
    let named = names.service(row.address).is_some_and(|name| names::is_meant(name, wanted));
    let instance = names.instance(row.address).is_some_and(|name| names::is_instance_meant(name, wanted));
    by_address || named || instance
}

fn write(out: &mut impl Write, rows: &[Row]) -> std::io::Result<()> {
    let dash = || "-".to_owned();
    let mut cells = Vec::new();
    for row in rows {
        let name = match (&row.service, row.instance) {
            (Some(service), Some(number)) => format!("{service} instance {number}"),
            (Some(service), None) => service.clone(),
            (None, _) => dash(),
        };
        let turns = if row.backends.len() > 1 { row.turns.to_string() } else { dash() };
        let mut first = vec![name, row.address.to_string(), row.policy.clone(), turns];
        if row.backends.is_empty() {
            first.extend(["none".to_owned(), dash(), dash(), dash(), "0".to_owned()]);
            cells.push(first);
            continue;
        }
        for backend in &row.backends {
            let place = if backend.here { "this node".to_owned() } else { backend.node.to_string() };
            let instance = backend.instance.map_or_else(dash, |number| number.to_string());
            let round_trip = backend.round_trip_us.map_or_else(dash, milliseconds);
            let flows = match backend.resting {
                true => format!("{} (no new ones)", backend.flows),
                false => backend.flows.to_string(),
            };
            let mut line = std::mem::replace(&mut first, vec![String::new(); 4]);
            line.extend([instance, backend.ns_ip.to_string(), place, round_trip, flows]);
            cells.push(line);
        }
    }
    let header = ["SERVICE", "ADDRESS", "CHOOSES", "TURNS", "INSTANCE", "NSIP", "NODE", "RTT", "FLOWS"];
    write_table(out, &header, &cells)
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:02}ms", microseconds / 1000, microseconds % 1000 / 10)
}
