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
    Placing,
    PlacingNear,
    ControlMemory,
    ControlCpu,
    ControlWakeUps,
    ControlWritten,
    WorkerMemory,
    WorkerCpu,
    WorkerWakeUps,
    WorkerWritten,
}

impl What {
    fn title(self) -> &'static str {
        match self {
            Self::FirstAnswer => "deploy call to the first answer of a client that tries all the time",
            Self::Running => "deploy call to RUNNING at the root",
            Self::Gone => "undeploy call to the end of the container",
            Self::Avoided => "death of one of two instances to the last connection sent to it",
            Self::Burst => "all of a burst RUNNING at the root",
            Self::Placing => "a decision among 10,000 workers, best fit",
            Self::PlacingNear => "the same, by geography and latency, nearest",
            Self::ControlMemory => "root and cluster idle, memory (PSS)",
            Self::ControlCpu => "root and cluster idle, of one core",
            Self::ControlWakeUps => "root and cluster idle, wake-ups",
            Self::ControlWritten => "root and cluster idle, written to disk",
            Self::WorkerMemory => "node-engine and netmanager idle, memory (PSS)",
            Self::WorkerCpu => "node-engine and netmanager idle, of one core",
            Self::WorkerWakeUps => "node-engine and netmanager idle, wake-ups",
            Self::WorkerWritten => "node-engine and netmanager idle, written to disk",
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
            Self::ControlMemory | Self::WorkerMemory => "MB",
            Self::ControlCpu | Self::WorkerCpu => "%",
            Self::ControlWakeUps | Self::WorkerWakeUps => "1/s",
            Self::ControlWritten | Self::WorkerWritten => "KB/min",
        }
    }

    /// The most that it may be; nothing where no mark is set.
    fn mark(self) -> Option<f64> {
        match self {
            Self::FirstAnswer | Self::Running => Some(500.0),
            Self::Gone => Some(140.0),
            // The mark is of the time from its report on; this is the whole.
            Self::Avoided => Some(100.0),
            Self::Burst => Some(5.0),
            Self::Placing => Some(1.0),
            Self::PlacingNear => Some(50.0),
            Self::ControlMemory => Some(60.0),
            Self::WorkerMemory => Some(20.0),
            Self::ControlCpu => Some(1.0),
            Self::WorkerCpu => Some(0.5),
            Self::ControlWritten => Some(7.0),
            Self::WorkerWritten => Some(0.0),
            Self::ControlWakeUps | Self::WorkerWakeUps => None,
        }
    }
}

/// What came of it, each thing as often as it was measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures(Vec<Figure>);

#[derive(Debug, Serialize)]
struct Figure {
    what: What,
    unit: &'static str,
    samples: Vec<f64>,
}

impl Figures {
    pub(crate) fn add(&mut self, what: What, sample: f64) {
        match self.0.iter_mut().find(|figure| figure.what == what) {
            Some(figure) => figure.samples.push(sample),
            None => self.0.push(Figure { what, unit: what.unit(), samples: vec![sample] }),
        }
    }

    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("write the figures as JSON")
    }

    /// Medians with the least and the most, and whether the mark is reached.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for Figure { what, unit, samples } in &self.0 {
            let mut sorted = samples.clone();
            sorted.sort_by(f64::total_cmp);
            let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { continue };
            let median = sorted[sorted.len() / 2];
            let spread = if sorted.len() > 1 { format!("{least:.1} to {most:.1}") } else { String::new() };
            let mark = match what.mark() {
                Some(mark) if median <= mark => format!("at most {mark}"),
                Some(mark) => format!("MISSED: at most {mark}"),
                None => String::new(),
            };
            // Writing to a String cannot fail.
            let _ok = writeln!(text, "{:<68} {median:>8.1} {unit:<7} {spread:<18} {mark}", what.title());
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
        let table = figures.table();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].contains("600.0 ms") && lines[0].contains("300.0 to 900.0"), "{table}");
        assert!(lines[0].ends_with("MISSED: at most 500") && lines[1].ends_with("at most 5"), "{table}");
        assert!(!lines[1].contains("MISSED"), "{table}");
    }
}
