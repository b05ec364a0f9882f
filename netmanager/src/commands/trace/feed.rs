//! Where lines are made: beside the programs' tables, or in the daemon that forwards packets itself.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use netmanager_common::trace::Verdict;
use nix::net::if_::if_indextoname;
use tokio::time::{Interval, interval};

use super::{Line, Told, Wanted};
use crate::commands::exit::NotFound;
use crate::datapath::{Ends, Tables, TraceFilter, Traced, Tracer};
use crate::names::Names;
use crate::plane::Seen;
use crate::userspace::{Reader, Watch};

/// What a data plane tells, with names. There is one for each data plane at a time.
#[derive(Debug)]
pub(crate) struct Feed {
    teller: Teller,
    names: Names,
    renewal: Interval,
    untold: u64,
}

#[derive(Debug)]
enum Teller {
    Programs(Box<Tracer>),
    Process(Watch),
}

impl Feed {
    /// Of the programs pinned there, whose tables these are. Call within a tokio runtime.
    pub(super) fn of_programs(pins: &Path, tables: &Tables, names: Names, wanted: &Wanted) -> Result<Self> {
        let filter = filter(tables, &names, wanted)?;
        let tracer = Tracer::open(pins, &filter).context("let the programs tell of packets")?;
        Ok(Self::new(Teller::Programs(Box::new(tracer)), names))
    }

    /// Of this process; nothing if somebody else is told already. Call within a tokio runtime.
    pub(crate) fn of_process(tables: &Reader, names: Names, wanted: &Wanted) -> Result<Option<Self>> {
        let filter = filter(tables, &names, wanted)?;
        Ok(tables.watch(&filter).map(|watch| Self::new(Teller::Process(watch), names)))
    }

    fn new(teller: Teller, names: Names) -> Self {
        Self { teller, names, renewal: interval(Tracer::RENEWAL), untold: 0 }
    }

    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Told> {
        loop {
            tokio::select! {
                _ = self.renewal.tick() => {
                    self.teller.renew()?;
                    let before = std::mem::replace(&mut self.untold, self.teller.untold()?);
                    let untold = self.untold.saturating_sub(before);
                    if untold > 0 {
                        return Ok(Told::Untold { untold });
                    }
                }
                traced = self.teller.next() => {
                    return Ok(Told::Packet(Box::new(line(&traced?, &self.names))));
                }
            }
        }
    }
}

impl Teller {
    async fn next(&mut self) -> Result<Traced> {
        match self {
            Self::Programs(tracer) => Ok(tracer.next().await?),
            Self::Process(watch) => Ok(watch.next().await),
        }
    }

    fn renew(&mut self) -> Result<()> {
        match self {
            Self::Programs(tracer) => Ok(tracer.renew()?),
            Self::Process(_) => Ok(()),
        }
    }

    fn untold(&self) -> Result<u64> {
        match self {
            Self::Programs(tracer) => Ok(tracer.untold()?),
            Self::Process(watch) => Ok(watch.untold()),
        }
    }
}

fn filter(seen: &impl Seen, names: &Names, wanted: &Wanted) -> Result<TraceFilter> {
    let end =
        |text: &Option<String>| text.as_deref().map_or(Ok(Vec::new()), |text| addresses(seen, names, text));
    Ok(TraceFilter { from: end(&wanted.from)?, to: end(&wanted.to)?, drops_only: wanted.drops_only })
}

/// The addresses that a person means: of containers here, instances and services.
fn addresses(seen: &impl Seen, names: &Names, text: &str) -> Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = match text.parse() {
        Ok(address) => vec![address],
        Err(_name) => {
            names.addresses_of(text).chain(names.instances_of(text).map(|(address, _)| address)).collect()
        }
    };
    // One who is named by one address sends from another.
    for endpoint in seen.endpoints()? {
        let v4 = [Some(endpoint.ns_ip), endpoint.instance_ip].into_iter().flatten().map(IpAddr::V4);
        let v6 = [endpoint.ns_ip6, endpoint.instance_ip6].into_iter().flatten().map(IpAddr::V6);
        let own: Vec<_> = v4.chain(v6).collect();
        if own.iter().any(|own| found.contains(own)) {
            found.extend(own);
        }
    }
    found.sort_unstable();
    found.dedup();
    match found.len() {
        0 => Err(NotFound(format!(
            "'{text}' is known on this node neither as a service nor as an instance; give its address, or see `netmanager services`"
        ))
        .into()),
        count if count > TraceFilter::MOST => Err(NotFound(format!(
            "'{text}' has {count} addresses here, more than can be looked for at a time ({}); name an instance (service/2) or \
             one address",
            TraceFilter::MOST
        ))
        .into()),
        _ => Ok(found),
    }
}

pub(super) fn line(traced: &Traced, names: &Names) -> Line {
    let name = |end: Option<SocketAddr>| {
        let address = end?.ip();
        let name = names.show(address);
        (name != address.to_string()).then_some(name)
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let source = traced.came.map(|Ends { source, .. }| source);
    let destination = traced.came.map(|Ends { destination, .. }| destination);
    Line {
        time_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        program: traced.program.into(),
        interface: if_indextoname(traced.ifindex)
            .ok()
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| !name.is_empty()),
        verdict: verdict(traced.verdict).into(),
        reason: traced.reason.map(|reason| reason.name().into()),
        protocol: protocol(traced.protocol),
        length: traced.length,
        source,
        destination,
        source_name: name(source),
        destination_name: name(destination),
        onward_source: traced.goes.map(|Ends { source, .. }| source),
        onward_destination: traced.goes.map(|Ends { destination, .. }| destination),
        node: traced.node,
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered => "delivered",
        Verdict::Sent => "sent",
        Verdict::Host => "host",
        Verdict::Given => "netmanager",
        Verdict::Dropped => "dropped",
    }
}

fn protocol(number: u8) -> String {
    match number {
        0 => "-".to_owned(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        other => other.to_string(),
    }
}
