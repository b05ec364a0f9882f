//! `netmanager status`: from the daemon if one runs, else from what it has left in the kernel and on disk.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use super::{write_json, write_table};
use crate::api::client;
use crate::app::Paths;
use crate::cli::Format;
use crate::datapath::Tables;
use crate::hooks::{Hook, Place};
use crate::lock::Lock;
use crate::net::{LeftToNic, Links, OWN_LINK};
use crate::report::{Kernel, Peer, Report, SessionState, Unwrapping};
use crate::resolver::Resolver;
use crate::state::Store;

/// # Errors
/// When neither a daemon nor its state can be read.
pub async fn run(paths: &Paths, format: Format, out: &mut impl Write) -> Result<()> {
    let answer = client::report(&paths.socket).await;
    let report = match answer
        .map_err(|error| anyhow::anyhow!(error))
        .with_context(|| format!("ask the daemon at {}", paths.socket.display()))?
    {
        Some(report) => report,
        None => offline(paths).await?,
    };
    match format {
        Format::Json => write_json(out, &report)?,
        Format::Table => write_report(out, &report)?,
    }
    Ok(())
}

async fn offline(paths: &Paths) -> Result<Report> {
    let store = Store::at(&paths.state_dir);
    if let Some(pid) = Lock::holder(store.dir())? {
        anyhow::bail!(
            "a netmanager (pid {pid}) runs but does not serve {}: it is starting or stopping, or it was started with another --socket",
            paths.socket.display()
        );
    }
    let state = store.node()?;
    let mut resolver = Resolver::default();
    resolver.set_plan(state.plan);
    for table in store.tables()? {
        resolver.answered(table, std::time::Instant::now());
    }
    let kernel = match Tables::open(&paths.bpffs) {
        Ok(tables) => {
            Kernel::read(&tables, &Links::open()?).await.context("read the tables in the kernel")?
        }
        Err(_there_is_none) => Kernel::default(),
    };
    let owner = |address| resolver.owner(address).cloned();
    Ok(Report::new(&state, kernel, owner, None))
}

fn write_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let dash = || "-".to_owned();
    let show = |value: Option<String>| value.unwrap_or_else(dash);
    write_table(
        out,
        &["NODE", "MODE", "BLOCK", "ITSELF", "UPLINK", "ADDRESS", "ATTACHED BY", "TUNNEL"],
        &[vec![
            show(report.node.map(|id| id.to_string())),
            report.mode.clone(),
            show(report.subnet.map(|first| format!("{first}/26"))),
            show(report.own_ns_ip.map(|address| address.to_string())),
            show(report.uplink.as_ref().map(|uplink| uplink.name.clone())),
            show(report.uplink.as_ref().map(|uplink| uplink.address.to_string())),
            report.attach_mode.clone(),
            show(report.daemon.as_ref().map(|daemon| daemon.tunnel.to_string())),
        ]],
    )?;
    writeln!(out, "\n{}", session(report))?;
    if let Some(why) = report.daemon.as_ref().and_then(|daemon| daemon.fallback.as_ref()) {
        writeln!(
            out,
            "! The daemon forwards packets itself, slower and only while it runs, since the kernel did not take the \
             programs: {why}\n  `netmanager doctor` says what is missing."
        )?;
    }
    let left = report.daemon.as_ref().map(|daemon| daemon.left_to_nic);
    let done = match left.unwrap_or_default() {
        LeftToNic::All => "",
        LeftToNic::Checksums => "cut large packets into segments",
        LeftToNic::Nothing => "cut large packets into segments and compute checksums",
    };
    if !done.is_empty() {
        writeln!(
            out,
            "! Containers {done} themselves, for more CPU, since a way to another node lost what was left to the NIC.\n  With a \
             newer driver, `ip link delete {OWN_LINK}` has it tried again."
        )?;
    }

    write_hooks(out, &report.hooks)?;
    write_unwrapping(out, &report.unwrapping)?;
    if report.endpoints.is_empty() {
        writeln!(out, "\nNo containers.")?;
    } else {
        let rows: Vec<_> = report
            .endpoints
            .iter()
            .map(|endpoint| {
                let ports: Vec<_> = endpoint.ports.iter().map(ToString::to_string).collect();
                vec![
                    endpoint.instance.to_string(),
                    both(Some(endpoint.ns_ip), endpoint.ns_ip6),
                    both(endpoint.instance_ip, endpoint.instance_ip6),
                    endpoint.link.clone(),
                    endpoint.pid.to_string(),
                    if ports.is_empty() { dash() } else { ports.join(",") },
                    format!("{}/{}", endpoint.sent_packets, bytes(endpoint.sent_bytes)),
                    format!("{}/{}", endpoint.received_packets, bytes(endpoint.received_bytes)),
                ]
            })
            .collect();
        writeln!(out)?;
        let header = ["CONTAINER", "NSIP", "SERVICEIP", "LINK", "PID", "PORTS", "SENT", "RECEIVED"];
        write_table(out, &header, &rows)?;
    }

    if report.services.is_empty() {
        writeln!(out, "\nNo services known: none was dialled, and none runs here.")?;
    } else {
        let mut rows = Vec::new();
        for service in &report.services {
            let name = show(service.service.as_ref().map(ToString::to_string));
            let address = service.address.to_string();
            if service.backends.is_empty() {
                rows.push(vec![name, address, service.policy.clone(), "none".to_owned(), dash()]);
                continue;
            }
            for (number, backend) in service.backends.iter().enumerate() {
                let place = if backend.here { "this node".to_owned() } else { backend.node.to_string() };
                let instance = format!("{} {}", backend.instance_ip, backend.ns_ip);
                if number == 0 {
                    rows.push(vec![name.clone(), address.clone(), service.policy.clone(), instance, place]);
                } else {
                    rows.push(vec![String::new(), String::new(), String::new(), instance, place]);
                }
            }
        }
        writeln!(out)?;
        write_table(out, &["SERVICE", "ADDRESS", "CHOOSES", "BACKEND", "NODE"], &rows)?;
    }

    let on_trial = report.daemon.as_ref().map(|daemon| &daemon.links_on_trial);
    write_peers(out, &report.peers, |node| on_trial.is_some_and(|nodes| nodes.contains(&node)))?;
    writeln!(out, "\nFlows: {} open, {} closing.", report.flows.open, report.flows.closing)?;

    if report.drops.is_empty() {
        writeln!(out, "\nNo packets dropped.")
    } else {
        let rows: Vec<_> =
            report.drops.iter().map(|drop| vec![drop.reason.clone(), drop.packets.to_string()]).collect();
        writeln!(out)?;
        write_table(out, &["DROPPED BECAUSE", "PACKETS"], &rows)?;
        writeln!(out, "What they mean: netmanager drops")
    }
}

/// The addresses of both families, as far as there are any.
fn both(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> String {
    let v4 = v4.map(IpAddr::V4);
    let shown: Vec<_> = v4.into_iter().chain(v6.map(IpAddr::V6)).map(|address| address.to_string()).collect();
    if shown.is_empty() { "-".to_owned() } else { shown.join(" ") }
}

/// What is attached where; what is missing or too much in words.
fn write_hooks(out: &mut impl Write, hooks: &[Hook]) -> io::Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = hooks
        .iter()
        .map(|hook| {
            let interface = hook.interface.clone().unwrap_or_else(|| format!("{} (gone)", hook.ifindex));
            let ours = hook.attached.iter().find(|attached| attached.name == hook.program);
            let state = match hook.times() {
                0 => "missing",
                1 => "ok",
                _ => "there twice",
            };
            let others: Vec<_> =
                hook.foreign().map(|other| format!("{} ({})", other.name, other.place.name())).collect();
            vec![
                interface,
                hook.program.clone(),
                ours.map_or("-", |ours| Place::name(ours.place)).to_owned(),
                state.to_owned(),
                if others.is_empty() { "-".to_owned() } else { others.join(", ") },
            ]
        })
        .collect();
    writeln!(out)?;
    write_table(out, &["INTERFACE", "PROGRAM", "BY", "STATE", "OTHER PROGRAMS"], &rows)
}

fn write_unwrapping(out: &mut impl Write, unwrapping: &[Unwrapping]) -> io::Result<()> {
    if unwrapping.is_empty() {
        return Ok(());
    }
    let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let row = |it: &Unwrapping| {
        let early = it.early_packets.to_string();
        let merges = (!it.merges.is_empty()).then(|| it.merges.join(" "));
        vec![it.interface.clone(), show(&it.driver), it.place.clone(), show(&merges), early, show(&it.why)]
    };
    writeln!(out)?;
    let header = ["UPLINK", "DRIVER", "UNWRAPS BY", "KERNEL MERGES", "PACKETS IN DRIVER", "BECAUSE"];
    write_table(out, &header, &unwrapping.iter().map(row).collect::<Vec<_>>())
}

fn write_peers(out: &mut impl Write, peers: &[Peer], is_on_trial: impl Fn(IpAddr) -> bool) -> io::Result<()> {
    if peers.is_empty() {
        return Ok(());
    }
    let show = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = |peer: &Peer| {
        let mtu = show(peer.mtu.map(|mtu| mtu.to_string()));
        vec![
            peer.node.to_string(),
            peer.instances.to_string(),
            show(peer.round_trip_us.map(milliseconds)),
            format!(
                "{}{}",
                if peer.vx { "vx" } else { "bare" },
                if is_on_trial(peer.node.ip()) { " (on trial)" } else { "" }
            ),
            match peer.path_mtu {
                Some(carried) => format!("{mtu} (the path carries {carried})"),
                None => mtu,
            },
        ]
    };
    writeln!(out)?;
    write_table(out, &["PEER", "INSTANCES", "RTT", "LINK", "MTU"], &peers.iter().map(row).collect::<Vec<_>>())
}

/// With two decimal places, in integers.
fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:02} ms", microseconds / 1000, microseconds % 1000 / 10)
}

fn session(report: &Report) -> String {
    let Some(daemon) = &report.daemon else {
        return "The daemon does not run; what is shown is what the kernel goes on doing.".to_owned();
    };
    let cluster = report.cluster.as_deref().unwrap_or("?");
    let ago = |since: &std::time::SystemTime| {
        format!("{} s", since.elapsed().map_or(0, |elapsed| elapsed.as_secs()))
    };
    let state = match &daemon.session {
        SessionState::Unregistered => "waiting for node-engine to register this node".to_owned(),
        SessionState::Connecting => format!("connecting to the cluster at {cluster}"),
        SessionState::Up { since } => format!("connected to the cluster at {cluster} for {}", ago(since)),
        SessionState::Down { since, reason } => {
            format!("without the cluster at {cluster} for {}: {reason}", ago(since))
        }
    };
    format!("The daemon (pid {}) is {state}.", daemon.pid)
}

/// Three figures are enough for people; `-o json` has them all.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count}B");
    }
    // Two more decimal places are kept than shown, in integers.
    let mut hundredths = u128::from(count) * 100;
    let mut unit = "B";
    for larger in UNITS {
        if hundredths < 102_400 {
            break;
        }
        hundredths /= 1024;
        unit = larger;
    }
    format!("{}.{}{unit}", hundredths / 100, hundredths % 100 / 10)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Peer, bytes, milliseconds, write_peers};

    #[test]
    fn a_peer_is_shown_with_its_distance_and_what_gets_there() {
        assert_eq!([0, 1234, 25_009].map(milliseconds), ["0.00 ms", "1.23 ms", "25.00 ms"]);
        let peer = |last, round_trip_us, path_mtu| Peer {
            node: ([192, 0, 2, last], 50103).into(),
            instances: 2,
            round_trip_us,
            mtu: Some(1372),
            path_mtu,
            vx: path_mtu.is_none(),
        };
        let mut out = Vec::new();
        write_peers(&mut out, &[peer(2, Some(1234), Some(1400)), peer(3, None, None)], |node| {
            node == IpAddr::from([192, 0, 2, 3])
        })
        .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "
PEER             INSTANCES  RTT      LINK           MTU
192.0.2.2:50103  2          1.23 ms  bare           1372 (the path carries 1400)
192.0.2.3:50103  2          -        vx (on trial)  1372
"
        );
    }

    #[test]
    fn byte_counts_are_readable() {
        let shown: Vec<_> = [0, 1023, 1024, 1536, 10 << 20, 3 << 30, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0B", "1023B", "1.0KiB", "1.5KiB", "10.0MiB", "3.0GiB", "16383.9PiB"]);
    }
}
