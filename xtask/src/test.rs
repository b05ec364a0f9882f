//! `cargo xtask test`: the tests, from those that need nothing to those that need the whole machine.

mod stage;
mod tally;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::progress::{answer, heading, say, seconds, step};
use crate::setup::{self, Purpose};
use crate::{check, daemons, rights, vm};

pub(crate) use self::stage::Kind;
use self::tally::Tally;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only the tests of this kind, without `check` before them
    #[arg(value_enum)]
    kind: Option<Kind>,
    /// Only the tests whose name holds this
    #[arg(requires = "kind")]
    filter: Option<String>,
    /// Test the daemons as they are given to people: optimised, without checks for overflows; takes longer to build
    #[arg(long)]
    release: bool,
    /// For the test harness, such as `--nocapture`
    #[arg(last = true)]
    harness: Vec<String>,
}

/// Some test failed, or did not run. Everything has been said when this is returned.
#[derive(Debug)]
pub(crate) struct Failed;

/// What came of one stage.
#[derive(Debug)]
struct Outcome {
    kind: Kind,
    tally: Tally,
    succeeded: bool,
    duration: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let kinds = arguments.kind.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    if let Some(kind) = kinds.iter().find(|kind| kind.is_privileged()) {
        rights::require(&format!("the {kind} tests"))?;
    }
    match arguments.kind {
        None => {
            setup::provide(Purpose::Everything)?;
            check::run()?;
        }
        Some(Kind::Vm) => setup::provide(Purpose::Vm)?,
        Some(kind) if kind.is_privileged() => setup::provide(Purpose::Tests)?,
        Some(_) => setup::provide(Purpose::Unit)?,
    }
    let mut binaries = None;
    if kinds.iter().any(|kind| kind.needs_daemons()) {
        binaries = Some(if arguments.release { daemons::build_release()? } else { daemons::build_debug()? });
    }
    if arguments.kind != Some(Kind::Vm) {
        step("test build", || stage::build(&kinds))?;
    }
    let outcomes = kinds
        .into_iter()
        .map(|kind| run_stage(kind, arguments, binaries.as_deref()))
        .collect::<Result<Vec<_>>>()?;
    summarise(&outcomes, start.elapsed())
}

/// `binaries` is where the daemons are, of stages that run them.
fn run_stage(kind: Kind, arguments: &Arguments, binaries: Option<&Path>) -> Result<Outcome> {
    heading(&format!("{kind} tests"));
    let start = Instant::now();
    let mut tally = Tally::default();
    let (filter, harness) = (arguments.filter.as_deref(), arguments.harness.as_slice());
    let mut excuses = 0;
    let line = |line: &str| {
        excuses += u64::from(tally::is_excuse(line));
        tally += Tally::of_line(line).unwrap_or_default();
        answer(format_args!("{line}"))
    };
    let succeeded = match kind {
        Kind::Vm => vm::run(filter, harness, line)?,
        _ => stage::command(kind, binaries, filter, harness).run_by_line(line)?.success(),
    };
    Ok(Outcome { kind, tally: tally.without(excuses), succeeded, duration: start.elapsed() })
}

/// The last line is for machines that count tests, and nothing may follow it.
fn summarise(outcomes: &[Outcome], duration: Duration) -> Result<()> {
    answer(format_args!(
        "\n{:<10} {:>7} {:>7} {:>7} {:>12}",
        "STAGE", "PASSED", "FAILED", "SKIPPED", "TIME"
    ))?;
    for Outcome { kind, tally, duration, .. } in outcomes {
        let Tally { passed, failed, skipped } = tally;
        answer(format_args!(
            "{:<10} {passed:>7} {failed:>7} {skipped:>7} {:>12}",
            kind.to_string(),
            seconds(*duration)
        ))?;
    }
    answer(format_args!("all of it, with setup, checks and builds, took {}", seconds(duration)))?;
    let problems: Vec<_> = outcomes.iter().filter_map(Outcome::problem).collect();
    for problem in &problems {
        say(format_args!("error: {problem}"));
    }
    let total = outcomes.iter().fold(Tally::default(), |sum, outcome| sum + outcome.tally);
    answer(format_args!("{total}"))?;
    if problems.is_empty() { Ok(()) } else { Err(Failed.into()) }
}

// === impl Outcome ===

impl Outcome {
    fn problem(&self) -> Option<String> {
        let Self { kind, tally, succeeded, .. } = self;
        if tally.failed > 0 {
            Some(format!("{} of the {kind} tests failed", tally.failed))
        } else if !succeeded {
            Some(format!("the {kind} tests did not run to their end"))
        } else if tally.passed == 0 {
            Some(format!("none of the {kind} tests ran"))
        } else {
            None
        }
    }
}

// === impl Failed ===

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not all tests passed")
    }
}

impl std::error::Error for Failed {}
