//! Everything that a run has seen: `results.json`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::Quantity;
use crate::plan::Mode;
use crate::subject::{Underlay, Variant};

/// Changes when a reader of older files would misunderstand newer ones.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) format: u32,
    /// When it began, in UTC.
    pub(crate) started: String,
    /// What was measured: the commit of the source, with `-dirty` if that was changed.
    pub(crate) commit: String,
    pub(crate) mode: Mode,
    pub(crate) rounds: u32,
    /// Of each measure.
    pub(crate) seconds: f64,
    pub(crate) machine: Machine,
    /// Of a node's uplink, by `ethtool`.
    pub(crate) offloads: BTreeMap<Underlay, Vec<String>>,
    /// Variants that were asked for and could not be built.
    pub(crate) skipped: Vec<Skipped>,
    /// Measures that ended with an error.
    pub(crate) failed: Vec<Failed>,
    pub(crate) samples: Vec<Sample>,
    /// The parts of [`Times::microseconds`].
    pub(crate) quantiles: Vec<f64>,
    pub(crate) times: Vec<Times>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) underlay: Underlay,
    pub(crate) variant: Variant,
    pub(crate) reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) measure: String,
    pub(crate) underlay: Underlay,
    pub(crate) variant: Variant,
    pub(crate) round: u32,
    pub(crate) error: String,
}

/// One number of one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) measure: String,
    pub(crate) quantity: Quantity,
    pub(crate) unit: String,
    pub(crate) underlay: Underlay,
    pub(crate) variant: Variant,
    pub(crate) round: u32,
    pub(crate) value: f64,
}

/// The distribution of one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) measure: String,
    pub(crate) underlay: Underlay,
    pub(crate) variant: Variant,
    pub(crate) round: u32,
    pub(crate) microseconds: Vec<f64>,
}

impl Results {
    pub(crate) fn new(plan: &crate::plan::Plan, machine: Machine, started: String, commit: String) -> Self {
        Self {
            format: FORMAT,
            started,
            commit,
            mode: plan.mode,
            rounds: plan.rounds,
            seconds: plan.duration.as_secs_f64(),
            machine,
            offloads: BTreeMap::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
            samples: Vec::new(),
            quantiles: netmanager::bench::QUANTILES.to_vec(),
            times: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let results: Self =
            serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()))?;
        ensure!(results.format == FORMAT, "{} has format {}, not {FORMAT}", path.display(), results.format);
        Ok(results)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("write results as JSON")?;
        text.push('\n');
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }
}
