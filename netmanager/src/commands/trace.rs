//! `netmanager trace`: what becomes of packets, live, as the programs tell it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use netmanager_common::trace::Verdict;
use nix::net::if_::if_indextoname;
use serde::Serialize;

use super::exit::{Exit, NotFound};
use super::source::Source;
use crate::app::Paths;
use crate::cli::Format;
use crate::datapath::{Ends, Tables, TraceFilter, Traced, Tracer};
use crate::names::Names;
use crate::state::Store;

/// Which packets are shown, and how many.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Name or address of the sender; nothing is anybody.
    pub from: Option<String>,
    /// Name or address of the receiver: a service or an instance.
    pub to: Option<String>,
    pub drops_only: bool,
    /// Nothing: until Ctrl-C.
    pub count: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Line {
    /// Milliseconds since 1970.
    time_ms: u128,
    program: &'static str,
    interface: Option<String>,
    verdict: &'static str,
    reason: Option<&'static str>,
    protocol: String,
    /// Of the inner IP packet.
    length: u32,
    /// As the packet came.
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    source_name: Option<String>,
    destination_name: Option<String>,
    /// As it goes on, if it does.
    onward_source: Option<SocketAddr>,
    onward_destination: Option<SocketAddr>,
    /// The other node.
    node: Option<IpAddr>,
}

/// # Errors
/// When an end is not known, there is no data plane in the kernel, or somebody else traces.
pub async fn run(paths: &Paths, wanted: &Wanted, format: Format, out: &mut impl Write) -> Result<Exit> {
    let tables = match Source::find(paths).await? {
        Source::Kernel(tables) => tables,
        Source::Daemon(_) => bail!(
            "the daemon of this node forwards packets itself, so there are no programs in the kernel that could tell of \
             them; `netmanager drops --watch` tells what it drops"
        ),
    };
    let names = Names::read(&Store::at(&paths.state_dir))?;
    let end = |text: &Option<String>| {
        text.as_deref().map_or(Ok(Vec::new()), |text| addresses(&tables, &names, text))
    };
    let filter =
        TraceFilter { from: end(&wanted.from)?, to: end(&wanted.to)?, drops_only: wanted.drops_only };
    let mut tracer = Tracer::open(&paths.bpffs, &filter).context("let the programs tell of packets")?;
    let mut renewal = tokio::time::interval(Tracer::RENEWAL);
    let (mut shown, mut untold) = (0, 0);
    while wanted.count.is_none_or(|count| shown < count) {
        tokio::select! {
            stopped = tokio::signal::ctrl_c() => {
                stopped.context("listen for Ctrl-C")?;
                return Ok(Exit::Stopped);
            }
            _ = renewal.tick() => {
                tracer.renew()?;
                let more = tracer.untold()?;
                if more > untold {
                    writeln!(
                        std::io::stderr(),
                        "{} more packets are not shown: there are too many; name an end by --from or --to",
                        more - untold
                    )?;
                    untold = more;
                }
            }
            traced = tracer.next() => {
                let line = line(&traced?, &names);
                match format {
                    Format::Json => {
                        serde_json::to_writer(&mut *out, &line)?;
                        writeln!(out)?;
                    }
                    Format::Table => writeln!(out, "{}", text(&line))?,
                }
                out.flush()?;
                shown += 1;
            }
        }
    }
    Ok(Exit::Done)
}

/// The addresses that a person means: of containers here, instances and services.
fn addresses(tables: &Tables, names: &Names, text: &str) -> Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = match text.parse() {
        Ok(address) => vec![address],
        Err(_name) => {
            names.addresses_of(text).chain(names.instances_of(text).map(|(address, _)| address)).collect()
        }
    };
    // One who is named by one address sends from another.
    for endpoint in tables.endpoints()? {
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

fn line(traced: &Traced, names: &Names) -> Line {
    let name = |end: Option<SocketAddr>| {
        let address = end?.ip();
        let name = names.show(address);
        (name != address.to_string()).then_some(name)
    };
    let source = traced.came.map(|Ends { source, .. }| source);
    let destination = traced.came.map(|Ends { destination, .. }| destination);
    Line {
        time_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
        program: traced.program,
        interface: if_indextoname(traced.ifindex)
            .ok()
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| !name.is_empty()),
        verdict: verdict(traced.verdict),
        reason: traced.reason.map(|reason| reason.name()),
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

fn text(line: &Line) -> String {
    let end = |end: Option<SocketAddr>, name: &Option<String>| match (end, name) {
        (Some(end), Some(name)) => format!("{name} {}", ported(end)),
        (Some(end), None) => ported(end),
        (None, _) => "-".to_owned(),
    };
    let mut text = format!(
        "{}  {:<14}  {:<10}  {:<5}  {:>5} B  {} > {}",
        super::time_of_day(line.time_ms),
        line.program,
        line.verdict,
        line.protocol,
        line.length,
        end(line.source, &line.source_name),
        end(line.destination, &line.destination_name)
    );
    let is_translated = (line.onward_source, line.onward_destination) != (line.source, line.destination);
    if let (Some(source), Some(destination), true) =
        (line.onward_source, line.onward_destination, is_translated)
    {
        text += &format!("  as {} > {}", ported(source), ported(destination));
    }
    if let Some(node) = line.node {
        text += &format!("  {} node {node}", if line.verdict == "sent" { "to" } else { "from" });
    }
    if let Some(reason) = line.reason {
        text += &format!("  because {reason}");
    }
    text
}

/// Without a port where there is none.
fn ported(end: SocketAddr) -> String {
    if end.port() == 0 { end.ip().to_string() } else { end.to_string() }
}

#[cfg(test)]
mod tests {
    use netmanager_common::event::DropReason;
    use netmanager_common::trace::Verdict;

    use super::{line, text};
    use crate::datapath::{Ends, FROM_CONTAINER, Traced};
    use crate::names::Names;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    #[test]
    fn a_line_tells_what_the_packet_was_and_what_became_of_it() {
        let sent = Traced {
            program: FROM_CONTAINER,
            ifindex: u32::MAX,
            verdict: Verdict::Sent,
            reason: None,
            came: ends("10.18.0.2:40000", "10.30.0.4:80"),
            goes: ends("10.30.0.7:40000", "10.18.0.66:80"),
            node: Some([192, 0, 2, 2].into()),
            protocol: 6,
            length: 60,
        };
        let dropped = Traced {
            verdict: Verdict::Dropped,
            reason: Some(DropReason::NoEndpoint),
            goes: None,
            node: None,
            protocol: 1,
            came: ends("10.18.0.2:0", "10.18.9.9:0"),
            ..sent
        };
        let shown = |traced| {
            let mut line = line(&traced, &Names::default());
            line.time_ms = 0;
            text(&line)
        };
        assert_eq!(
            shown(sent),
            "00:00:00Z  from_container  sent        tcp       60 B  10.18.0.2:40000 > 10.30.0.4:80  \
             as 10.30.0.7:40000 > 10.18.0.66:80  to node 192.0.2.2"
        );
        assert_eq!(
            shown(dropped),
            "00:00:00Z  from_container  dropped     icmp      60 B  10.18.0.2 > 10.18.9.9  because no-endpoint"
        );
    }
}
