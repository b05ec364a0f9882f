//! Builds every variant, then measures them in turns.

use std::time::Duration;

use anyhow::Result;
use integration::interrupt;

use crate::cell::{Cell, Places};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::results::{Failed, Results, Sample, Skipped, Times};

/// What a measure takes beside its duration.
const OVERHEAD: Duration = Duration::from_millis(100);

/// Fills `results`. Ctrl-C ends it after the measure that is under way.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<()> {
    let places = Places::choose();
    let cells = build(plan, places, results)?;
    let per_round: usize = cells.iter().map(|cell| measures_of(plan, cell)).sum();
    let mut progress = Progress::new(per_round * plan.rounds as usize, plan.duration + OVERHEAD);
    progress.say(&format!(
        "{} variants, {per_round} measures in each of {} rounds of {} s",
        cells.len(),
        plan.rounds,
        plan.duration.as_secs_f64()
    ));
    for round in 1..=plan.rounds {
        progress.round((round, plan.rounds));
        for &measure in &plan.measures {
            // Not always the same one first.
            let first = round as usize % cells.len().max(1);
            let count = cells.len();
            for offset in 0..count {
                let cell = &cells[(first + offset) % count];
                if !measure.applies_to(&cell.variant, cell.underlay) {
                    continue;
                }
                interrupt::check()?;
                let (underlay, variant) = (cell.underlay, cell.variant.clone());
                progress.step(&format!("{} {variant} {}", underlay.id(), measure.id()), (round, plan.rounds));
                match measure.take(cell, plan.duration, places) {
                    Ok(taken) => {
                        results.samples.extend(taken.numbers.into_iter().map(|(quantity, value)| Sample {
                            measure: measure.id(),
                            quantity,
                            unit: quantity.unit().to_owned(),
                            underlay,
                            variant: variant.clone(),
                            round,
                            value,
                        }));
                        results.times.extend(taken.distribution.map(|microseconds| Times {
                            measure: measure.id(),
                            underlay,
                            variant,
                            round,
                            microseconds,
                        }));
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        progress.say(&format!(
                            "failed: {} {variant} {}: {error}",
                            underlay.id(),
                            measure.id()
                        ));
                        results.failed.push(Failed {
                            measure: measure.id(),
                            underlay,
                            variant,
                            round,
                            error,
                        });
                    }
                }
            }
        }
    }
    progress.end();
    Ok(())
}

fn build(plan: &Plan, places: Places, results: &mut Results) -> Result<Vec<Cell>> {
    let mut progress = Progress::new(plan.cells.len(), OVERHEAD);
    let mut cells = Vec::new();
    for (underlay, variant) in &plan.cells {
        interrupt::check()?;
        progress.step(&format!("building {variant} on {}", underlay.id()), (0, plan.rounds));
        match Cell::build(variant, *underlay, places, &plan.extras) {
            Ok(cell) => {
                if !results.offloads.contains_key(underlay) {
                    results.offloads.insert(*underlay, cell.bed.pair.offloads()?);
                }
                cells.push(cell);
            }
            Err(error) => {
                let reason = format!("{error:#}");
                progress.say(&format!("skipped: {variant} on {}: {reason}", underlay.id()));
                results.skipped.push(Skipped { underlay: *underlay, variant: variant.clone(), reason });
            }
        }
    }
    Ok(cells)
}

fn measures_of(plan: &Plan, cell: &Cell) -> usize {
    plan.measures.iter().filter(|measure| measure.applies_to(&cell.variant, cell.underlay)).count()
}
