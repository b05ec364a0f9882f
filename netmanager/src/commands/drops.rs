//! `netmanager drops`: which packets the data plane has dropped, what that means, and what can be done.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;

use super::exit::Exit;
use super::source::Source;
use super::{write_json, write_table};
use crate::api::client;
use crate::app::Paths;
use crate::cli::Format;
use crate::datapath::{Counters, DropReason};
use crate::remedy;
use crate::report::{Drops, Report};

/// How often the counters are read while somebody watches.
const INTERVAL: Duration = Duration::from_secs(1);

/// What happened to packets for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    reason: &'static str,
    /// Dropped since the data plane was loaded.
    packets: u64,
    /// Given to netmanager instead, which has answered or forwarded most of them.
    given_to_netmanager: u64,
    meaning: &'static str,
    remedy: &'static str,
}

/// What was added within one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Change {
    /// Milliseconds since 1970.
    time_ms: u128,
    reason: &'static str,
    /// More packets dropped than at the look before.
    more: u64,
    packets: u64,
    meaning: &'static str,
    remedy: &'static str,
}

/// # Errors
/// When there is no data plane, or it cannot be read.
pub async fn show(paths: &Paths, format: Format, out: &mut impl Write) -> Result<()> {
    let rows = rows(&counters(&Source::find(paths).await?).await?);
    match format {
        Format::Json => write_json(out, &rows)?,
        Format::Table => write(out, &rows)?,
    }
    Ok(())
}

/// Prints what is added, one line for each reason and second, until Ctrl-C; as JSON one object a line.
///
/// # Errors
/// As [`show`].
pub async fn watch(paths: &Paths, format: Format, out: &mut impl Write) -> Result<Exit> {
    let source = Source::find(paths).await?;
    let mut before = counters(&source).await?;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.tick().await;
    loop {
        tokio::select! {
            stopped = tokio::signal::ctrl_c() => {
                stopped.context("listen for Ctrl-C")?;
                return Ok(Exit::Stopped);
            }
            _ = ticks.tick() => {}
        }
        let now = counters(&source).await?;
        let time_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        for change in changes(&before, &now, time_ms) {
            match format {
                Format::Json => {
                    serde_json::to_writer(&mut *out, &change)?;
                    writeln!(out)?;
                }
                Format::Table => writeln!(
                    out,
                    "{}  {:<22}  +{}  ({} in all)  {}",
                    super::time_of_day(time_ms),
                    change.reason,
                    change.more,
                    change.packets,
                    change.remedy
                )?,
            }
        }
        out.flush()?;
        before = now;
    }
}

async fn counters(source: &Source) -> Result<Counters> {
    match source {
        Source::Kernel(tables) => tables.counters().context("read the counters in the kernel"),
        Source::Daemon(socket) => {
            let report = client::report(socket).await.map_err(|error| anyhow::anyhow!(error));
            let report = report.with_context(|| format!("ask the daemon at {}", socket.display()))?;
            Ok(reported(&report.with_context(|| format!("the daemon at {} has stopped", socket.display()))?))
        }
    }
}

/// A daemon of another version may count what is not known here.
fn reported(report: &Report) -> Counters {
    let counts = |counts: &[Drops]| {
        let reason = |name: &str| DropReason::ALL.iter().copied().find(|reason| reason.name() == name);
        counts.iter().filter_map(|count| Some((reason(&count.reason)?, count.packets))).collect()
    };
    Counters { endpoints: Vec::new(), drops: counts(&report.drops), punts: counts(&report.punts) }
}

/// What has been counted so far, most packets first.
fn rows(counters: &Counters) -> Vec<Row> {
    let drops: BTreeMap<_, _> = counters.drops.iter().copied().collect();
    let punts: BTreeMap<_, _> = counters.punts.iter().copied().collect();
    let of = |counts: &BTreeMap<DropReason, u64>, reason| counts.get(reason).copied().unwrap_or_default();
    let mut rows: Vec<_> = DropReason::ALL
        .iter()
        .filter(|reason| drops.contains_key(reason) || punts.contains_key(reason))
        .map(|reason| Row {
            reason: reason.name(),
            packets: of(&drops, reason),
            given_to_netmanager: of(&punts, reason),
            meaning: reason.meaning(),
            remedy: remedy::of(*reason),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.packets, row.given_to_netmanager)));
    rows
}

/// Counters start anew when an upgrade has brought new tables.
fn changes(before: &Counters, now: &Counters, time_ms: u128) -> Vec<Change> {
    let before: BTreeMap<_, _> = before.drops.iter().copied().collect();
    let changed = now.drops.iter().filter_map(|(reason, packets)| {
        let more = packets.saturating_sub(before.get(reason).copied().unwrap_or_default());
        (more > 0).then(|| Change {
            time_ms,
            reason: reason.name(),
            more,
            packets: *packets,
            meaning: reason.meaning(),
            remedy: remedy::of(*reason),
        })
    });
    changed.collect()
}

fn write(out: &mut impl Write, rows: &[Row]) -> std::io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "No packets dropped.");
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|row| vec![row.reason.to_owned(), row.packets.to_string(), row.given_to_netmanager.to_string()])
        .collect();
    write_table(out, &["REASON", "DROPPED", "TO NETMANAGER"], &cells)?;
    for row in rows {
        writeln!(out, "\n{}: {}\n  {}", row.reason, row.meaning, row.remedy)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{changes, rows, write};
    use crate::datapath::{Counters, DropReason};

    fn counters(drops: &[(DropReason, u64)], punts: &[(DropReason, u64)]) -> Counters {
        Counters { endpoints: Vec::new(), drops: drops.to_vec(), punts: punts.to_vec() }
    }

    #[test]
    fn reasons_are_listed_by_their_weight_each_with_words() {
        let counted = counters(
            &[(DropReason::NotIp, 3), (DropReason::SpoofedSource, 7)],
            &[(DropReason::ServiceUnknown, 2)],
        );
        let mut out = Vec::new();
        write(&mut out, &rows(&counted)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\
REASON           DROPPED  TO NETMANAGER
spoofed-source   7        0
not-ip           3        0
service-unknown  0        2

spoofed-source: From a container with an address or MAC that is not its own.
  Let the container send from its own address; a bridge or VPN inside of it needs masquerading.

not-ip: Neither IPv4, IPv6 nor ARP.
  Nothing: the overlay carries IP only.

service-unknown: To a service address that is not in the table (yet); a miss was raised.
  Is the address right, the service deployed, the cluster reachable? `netmanager status` shows the session.
"
        );
    }

    #[test]
    fn without_drops_it_says_so() {
        let mut out = Vec::new();
        write(&mut out, &rows(&Counters::default())).unwrap();
        assert_eq!(out, b"No packets dropped.\n");
    }

    #[test]
    fn only_what_was_added_is_shown() {
        let before = counters(&[(DropReason::NotIp, 3), (DropReason::TooBig, 9)], &[]);
        let now =
            counters(&[(DropReason::NotIp, 3), (DropReason::TooBig, 11), (DropReason::VlanTag, 1)], &[]);
        let seen: Vec<_> = changes(&before, &now, 0)
            .iter()
            .map(|change| (change.reason, change.more, change.packets))
            .collect();
        assert_eq!(seen, [("too-big", 2, 11), ("vlan-tag", 1, 1)]);
        assert!(changes(&now, &counters(&[], &[]), 0).is_empty(), "new tables begin at 0");
    }
}
