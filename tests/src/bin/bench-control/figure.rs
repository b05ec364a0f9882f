//! What is measured, with the mark that it is to reach.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Serialize;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    FirstAnswer,
    Running,
    Gone,
    Avoided,
    Burst,
    Messages,
    MessagesBack,
    Placing,
    PlacingNear,
    ClusterTalk,
    WorkerTalk,
    ControlMemory,
    ControlCpu,
    ControlWakeUps,
    ControlWritten,
    WorkerMemory,
    WorkerCpu,
    WorkerWakeUps,
    WorkerWritten,
    Joined,
    ScaleMemory,
    ScaleCpu,
    Placed,
    AllRunning,
    PlacedCpu,
    ScaleMessages,
    FullMemory,
    FullCpu,
    TakenBack,
}

impl What {
    fn title(self) -> &'static str {
        match self {
            Self::FirstAnswer => "deploy call to the first answer of a client that tries all the time",
            Self::Running => "deploy call to RUNNING at the root",
            Self::Gone => "undeploy call to the end of the container",
            Self::Avoided => "death of one of two instances to the last connection sent to it",
            Self::Burst => "all of a burst RUNNING at the root",
            Self::Messages => "MQTT messages for one more instance",
            Self::MessagesBack => "MQTT messages to take it back",
            Self::ClusterTalk => "cluster and root idle, what they say to each other",
            Self::WorkerTalk => "a worker idle with one instance, MQTT",
            Self::Placing => "a decision among 10,000 workers, best fit",
            Self::PlacingNear => "the same, by geography and latency, nearest",
            Self::ControlMemory => "root and cluster idle, memory (RSS)",
            Self::ControlCpu => "root and cluster idle, of one core",
            Self::ControlWakeUps => "root and cluster idle, wake-ups",
            Self::ControlWritten => "root and cluster idle, written to disk",
            Self::WorkerMemory => "node-engine and netmanager idle, memory (RSS)",
            Self::WorkerCpu => "node-engine and netmanager idle, of one core",
            Self::WorkerWakeUps => "node-engine and netmanager idle, wake-ups",
            Self::WorkerWritten => "node-engine and netmanager idle, written to disk",
            Self::Joined => "workers join",
            Self::ScaleMemory => "root and clusters idle without instances, memory (RSS)",
            Self::ScaleCpu => "root and clusters idle without instances, of one core",
            Self::Placed => "instances placed, from the first call to the last worker that has it",
            Self::AllRunning => "from the first call to all RUNNING at the root",
            Self::PlacedCpu => "CPU time of root and clusters for each",
            Self::ScaleMessages => "MQTT messages for each",
            Self::FullMemory => "root and clusters idle with all instances, memory (RSS)",
            Self::FullCpu => "root and clusters idle with all instances, of one core",
            Self::TakenBack => "instances taken back",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::FirstAnswer
            | Self::Running
            | Self::Gone
            | Self::Avoided
            | Self::Placing
            | Self::PlacingNear => "ms",
            Self::Burst => "s",
            Self::Messages | Self::MessagesBack | Self::ScaleMessages => "",
            Self::Joined | Self::Placed | Self::TakenBack => "1/s",
            Self::AllRunning => "s",
            Self::ScaleMemory | Self::FullMemory => "MB",
            Self::ScaleCpu | Self::FullCpu => "%",
            Self::PlacedCpu => "ms",
            Self::ClusterTalk => "KB/min",
            Self::WorkerTalk => "MB/day",
            Self::ControlMemory | Self::WorkerMemory => "MB",
            Self::ControlCpu | Self::WorkerCpu => "%",
            Self::ControlWakeUps | Self::WorkerWakeUps => "1/s",
            Self::ControlWritten | Self::WorkerWritten => "KB/min",
        }
    }

    /// Nothing where no mark is set.
    fn mark(self) -> Option<Mark> {
        let most = match self {
            Self::Placed => return Some(Mark::AtLeast(3000.0)),
            Self::FirstAnswer | Self::Running => 500.0,
            Self::Gone => 140.0,
            // The mark is of the time from its report on; this is the whole.
            Self::Avoided => 100.0,
            Self::Burst | Self::ClusterTalk | Self::WorkerTalk => 5.0,
            Self::Placing => 1.0,
            Self::PlacingNear => 50.0,
            Self::ControlMemory => 60.0,
            Self::WorkerMemory => 20.0,
            Self::ControlCpu => 1.0,
            Self::WorkerCpu => 0.5,
            Self::ControlWritten => 7.0,
            Self::WorkerWritten => 0.0,
            Self::Messages | Self::ScaleMessages => 6.0,
            Self::MessagesBack
            | Self::ControlWakeUps
            | Self::WorkerWakeUps
            | Self::Joined
            | Self::ScaleMemory
            | Self::ScaleCpu
            | Self::AllRunning
            | Self::PlacedCpu
            | Self::FullMemory
            | Self::FullCpu
            | Self::TakenBack => return None,
        };
        Some(Mark::AtMost(most))
    }
}

/// What a figure is to reach.
#[derive(Debug, Clone, Copy)]
enum Mark {
    AtMost(f64),
    AtLeast(f64),
}

impl Mark {
    fn verdict(self, figure: f64) -> String {
        let (is_reached, wanted) = match self {
            Self::AtMost(most) => (figure <= most, format!("at most {most}")),
            Self::AtLeast(least) => (figure >= least, format!("at least {least}")),
        };
        if is_reached { wanted } else { format!("MISSED: {wanted}") }
    }
}

/// What came of it, each thing as often as it was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures(Vec<Figure>);

#[derive(Debug, Serialize)]
struct Figure {
    what: What,
    /// How many were simulated, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<u32>,
    unit: &'static str,
    samples: Vec<f64>,
}

impl Figures {
    pub(crate) fn add(&mut self, what: What, sample: f64) {
        self.insert(what, None, sample);
    }

    /// With so many simulated workers.
    pub(crate) fn add_at(&mut self, what: What, workers: u32, sample: f64) {
        self.insert(what, Some(workers), sample);
    }

    fn insert(&mut self, what: What, workers: Option<u32>, sample: f64) {
        let known = self.0.iter_mut().find(|figure| (figure.what, figure.workers) == (what, workers));
        match known {
            Some(figure) => figure.samples.push(sample),
            None => self.0.push(Figure { what, workers, unit: what.unit(), samples: vec![sample] }),
        }
    }

    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("write the figures as JSON")
    }

    /// Medians with the least and the most, and whether the mark is reached.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for Figure { what, workers, unit, samples } in &self.0 {
            let mut sorted = samples.clone();
            sorted.sort_by(f64::total_cmp);
            let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { continue };
            let median = sorted[sorted.len() / 2];
            let spread = if sorted.len() > 1 { format!("{least:.1} to {most:.1}") } else { String::new() };
            let mark = what.mark().map(|mark| mark.verdict(median)).unwrap_or_default();
            let title = match workers {
                Some(workers) => format!("{workers} workers: {}", what.title()),
                None => what.title().to_owned(),
            };
            // Writing to a String cannot fail.
            let _ok = writeln!(text, "{title:<68} {median:>8.1} {unit:<7} {spread:<18} {mark}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Figures, What};

    #[test]
    fn the_table_shows_the_median_the_spread_and_what_is_missed() {
        let mut figures = Figures::default();
        for sample in [300.0, 900.0, 600.0] {
            figures.add(What::FirstAnswer, sample);
        }
        figures.add(What::Burst, 3.0);
        figures.add_at(What::Placed, 1000, 2999.0);
        figures.add_at(What::Placed, 10_000, 3000.0);
        let table = figures.table();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].contains("600.0 ms") && lines[0].contains("300.0 to 900.0"), "{table}");
        assert!(lines[0].ends_with("MISSED: at most 500") && lines[1].ends_with("at most 5"), "{table}");
        assert!(!lines[1].contains("MISSED"), "{table}");
        assert!(
            lines[2].starts_with("1000 workers: ") && lines[2].ends_with("MISSED: at least 3000"),
            "{table}"
        );
        assert!(lines[3].starts_with("10000 workers: ") && !lines[3].contains("MISSED"), "{table}");
    }
}
