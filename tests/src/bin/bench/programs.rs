//! How long the kernel spends in Hypha's programs, by its own count (`kernel.bpf_stats_enabled`).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use netmanager::bench::{Awake, Transport, round_trips};

use crate::cell::{Cell, Places};
use crate::measure::{QUESTION, Quantity, Taken};

/// Those that warm packets meet, by the names that the kernel has of them.
const PROGRAMS: [(&str, Quantity); 2] =
    [("from_container", Quantity::FromContainer), ("from_uplink", Quantity::FromUplink)];

/// Per packet of UDP questions and answers, which are all of one warm flow. The programs of other cells rest meanwhile.
/// The kernel's looking at the clock, some 20 ns, is in it.
pub(crate) fn per_packet(cell: &Cell, duration: Duration, places: Places) -> Result<Taken> {
    let _awake = Awake::keep().context("keep the CPUs awake")?;
    let _counting = enable_stats(Stats::RunTime).context("have the kernel count the time in programs")?;
    let before = spent()?;
    cell.client(|peer| round_trips(peer, Transport::Udp, QUESTION, duration, places.client))??;
    let after = spent()?;
    let mut numbers = Vec::new();
    for (name, quantity) in PROGRAMS {
        let (time, runs) = after.get(name).copied().unwrap_or_default();
        let (earlier, earlier_runs) = before.get(name).copied().unwrap_or_default();
        let (time, runs) = (time.saturating_sub(earlier), runs.saturating_sub(earlier_runs));
        if runs > 0 {
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds, shown with three digits")]
            numbers.push((quantity, time.as_nanos() as f64 / runs as f64));
        }
    }
    ensure!(!numbers.is_empty(), "none of the programs has run");
    Ok(Taken::numbers(&numbers))
}

/// In all programs of each name, and how often they ran.
fn spent() -> Result<BTreeMap<String, (Duration, u64)>> {
    let mut spent = BTreeMap::new();
    for program in loaded_programs() {
        // One that has gone meanwhile is of somebody else.
        let Ok(program) = program else { continue };
        let name = program.name_as_str().unwrap_or_default().to_owned();
        let (time, runs): &mut (Duration, u64) = spent.entry(name).or_default();
        *time += program.run_time();
        *runs += program.run_count();
    }
    Ok(spent)
}
