//! The project's own marks, as ratios within one run: `marks.json`. A miss is for people to think about, never a failure:
//! it may be the machine's.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::measure::Quantity;
use crate::subject::{Underlay, Variant};
use crate::summary::{Key, Summary};
use crate::table::{Table, title};

const MARKS: &str = include_str!("marks.json");

/// Of all combinations of measures, quantities and underlays that exist.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    what: String,
    measures: Vec<String>,
    quantities: Vec<Quantity>,
    underlays: Vec<Underlay>,
    variant: Variant,
    to: Variant,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }
}

/// Each mark whose two variants were measured, with what came of it.
pub(crate) fn check(summary: &Summary) -> Result<Table> {
    let mut rows = vec![header()];
    for mark in read()? {
        for key in summary.keys.iter().filter(|key| mark.covers(key)) {
            let Some(ratio) = summary.ratio(key, &mark.variant, &mark.to) else { continue };
            let verdict = if mark.bound.holds(ratio) { "reached" } else { "MISSED" };
            rows.push(vec![
                mark.what.clone(),
                format!("{}, {}", key.underlay.id(), title(key)),
                format!("{} / {}", mark.variant, mark.to),
                mark.bound.text(),
                format!("{ratio:.2}"),
                verdict.to_owned(),
            ]);
        }
    }
    Ok(Table(rows))
}

fn header() -> Vec<String> {
    ["mark", "of", "ratio", "bound", "measured", ""].map(ToOwned::to_owned).to_vec()
}

fn read() -> Result<Vec<Mark>> {
    serde_json::from_str(MARKS).context("understand marks.json")
}

impl Mark {
    fn covers(&self, key: &Key) -> bool {
        self.measures.contains(&key.measure)
            && self.quantities.contains(&key.quantity)
            && self.underlays.contains(&key.underlay)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, read};
    use crate::measure::Measure;
    use crate::subject::Variant;

    #[test]
    fn every_mark_is_of_something_that_is_measured() {
        let ids: Vec<_> = Measure::ALL.iter().map(|measure| measure.id()).collect();
        for mark in read().unwrap() {
            assert!(mark.measures.iter().all(|measure| ids.contains(measure)), "{mark:?}");
            for variant in [&mark.variant, &mark.to] {
                assert!(Variant::BUILT_IN.contains(variant), "{mark:?}");
            }
        }
    }

    #[test]
    fn a_bound_holds_up_to_itself() {
        assert!(Bound::AtLeast(0.8).holds(0.8) && !Bound::AtLeast(0.8).holds(0.79));
        assert!(Bound::AtMost(1.03).holds(1.03) && !Bound::AtMost(1.03).holds(1.04));
    }
}
