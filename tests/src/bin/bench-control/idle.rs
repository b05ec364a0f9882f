//! What daemons take while nothing happens.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::memory::megabytes;
use integration::{Lab, interrupt};

use crate::figure::{Figures, What};

/// After the last deployment, until all is quiet.
const SETTLE: Duration = Duration::from_secs(15);

/// Of some processes together, since they started.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    cpu: Duration,
    wake_ups: u64,
    written: u64,
}

/// Watches the daemons of the control nodes, and of each worker.
pub(crate) fn watch(lab: &Lab, duration: Duration, figures: &mut Figures) -> Result<()> {
    sleep(SETTLE)?;
    let control: Vec<u32> = lab.control.daemons().map(integration::daemon::Daemon::pid).collect();
    let workers: Vec<[u32; 2]> =
        lab.workers.iter().map(|worker| [worker.node_engine.pid(), worker.netmanager.pid()]).collect();
    let spent = || -> Result<(Spent, Vec<Spent>)> {
        Ok((Spent::of(&control)?, workers.iter().map(|pids| Spent::of(pids)).collect::<Result<_>>()?))
    };
    let (before, begun) = (spent()?, Instant::now());
    sleep(duration)?;
    let (after, seconds) = (spent()?, begun.elapsed().as_secs_f64());
    figures.add(What::ControlMemory, megabytes(&control)?);
    let [cpu, wake_ups, written] = after.0.since(&before.0, seconds);
    figures.add(What::ControlCpu, cpu);
    figures.add(What::ControlWakeUps, wake_ups);
    figures.add(What::ControlWritten, written);
    for ((after, before), pids) in after.1.iter().zip(&before.1).zip(&workers) {
        figures.add(What::WorkerMemory, megabytes(pids)?);
        let [cpu, wake_ups, written] = after.since(before, seconds);
        figures.add(What::WorkerCpu, cpu);
        figures.add(What::WorkerWakeUps, wake_ups);
        figures.add(What::WorkerWritten, written);
    }
    Ok(())
}

/// Ctrl-C ends it.
pub(crate) fn sleep(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(100).min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

impl Spent {
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        let mut spent = Self::default();
        for pid in pids {
            let tasks = format!("/proc/{pid}/task");
            for task in fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))? {
                let task = task?.path();
                // One that has ended meanwhile has spent what it did.
                let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
                let nanoseconds = read("schedstat").split(' ').next().and_then(|text| text.parse().ok());
                spent.cpu += Duration::from_nanos(nanoseconds.unwrap_or(0));
                spent.wake_ups += value(&read("status"), "voluntary_ctxt_switches:");
            }
            spent.written += value(&read(*pid, "io")?, "write_bytes:");
        }
        Ok(spent)
    }

    /// Of one core in per cent, wake-ups a second, kilobytes a minute.
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    pub(crate) fn since(&self, before: &Self, seconds: f64) -> [f64; 3] {
        [
            self.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds * 100.0,
            self.wake_ups.saturating_sub(before.wake_ups) as f64 / seconds,
            self.written.saturating_sub(before.written) as f64 / 1e3 / seconds * 60.0,
        ]
    }
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// The number behind a word that begins a line.
fn value(text: &str, word: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(word));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_number_is_read_behind_its_word() {
        let text = "Rss:  10 kB\nPss:     7 kB\nPss_Dirty: 3 kB\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t5\n";
        assert_eq!(
            (value(text, "Pss:"), value(text, "voluntary_ctxt_switches:"), value(text, "x:")),
            (7, 5, 0)
        );
    }
}
