//! `cargo xtask bench`: the overlay's speed against what one would use instead, on nodes made of network namespaces.
//!
//! Read in this order: [`subject`] and [`measure`] say what is measured, [`cell`] builds it, [`run`] takes the numbers in
//! turns, [`results`] keeps every one of them, [`summary`] and what comes after shows them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to a person")]

mod arguments;
mod cell;
mod chart;
mod compare;
mod daemon;
mod iperf;
mod machine;
mod marks;
mod measure;
mod plan;
mod plot;
mod programs;
mod progress;
mod report;
mod results;
mod run;
mod scale;
mod subject;
mod summary;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use integration::{interrupt, lab};

use arguments::Arguments;
use machine::Machine;
use measure::Measure;
use plan::Plan;
use results::Results;
use subject::{Underlay, Variant};
use summary::Summary;
use table::Table;

fn main() -> ExitCode {
    match bench(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        list();
        return Ok(());
    }
    let plan = Plan::new(arguments)?;
    let before = arguments.compare.as_deref().map(Results::read).transpose()?;
    interrupt::catch()?;
    integration::netns::require_root()?;
    lab::prepare()?;
    let (started, commit) = (machine::now()?, machine::commit());
    let out = arguments.out.clone().unwrap_or_else(|| PathBuf::from("target/bench").join(&started));
    fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let mut results = Results::new(&plan, Machine::look()?, started, commit);
    let measured = run::run(&plan, &mut results);
    // What was measured before Ctrl-C is worth keeping.
    if results.samples.is_empty() {
        measured?;
        bail!("nothing was measured");
    }
    let summary = Summary::of(&results);
    results.write(&out.join("results.json"))?;
    let report = out.join("report.md");
    fs::write(&report, report::markdown(&results, &summary))
        .with_context(|| format!("write {}", report.display()))?;
    plot::write(&chart::charts(&results, &summary), &out)?;
    show(&results, &summary);
    if let Some(before) = &before {
        println!("\nRatios to plain routing since {} ({}):", before.started, before.commit);
        print!("{}", compare::compare(&Summary::of(before), &summary).text());
    }
    if arguments.check {
        println!("\nMarks:");
        print!("{}", marks::check(&summary)?.text());
    }
    println!("{}", report.display());
    measured
}

fn show(results: &Results, summary: &Summary) {
    println!("{}", results.machine.line());
    if !results.machine.is_idle() {
        let busy = results.machine.busy_before * 100.0;
        println!(
            "WARNING: others used {busy:.0} % of all CPUs before this began: do not trust these numbers"
        );
    }
    for underlay in Underlay::ALL {
        if summary.keys_of(underlay).next().is_some() {
            println!("\n{}: {}", underlay.id(), underlay.description());
            print!("{}", Table::of(summary, underlay).text());
        }
    }
    println!("\nIn brackets: the ratio to plain routing in this run.");
}

fn list() {
    println!("measures:");
    for measure in Measure::ALL {
        println!("  {:<16} {}", measure.id(), measure.title());
    }
    println!("variants:");
    for variant in Variant::BUILT_IN {
        println!("  {variant:<16} {}", variant.description());
    }
    println!("underlays:");
    for underlay in Underlay::ALL {
        println!("  {:<16} {}", underlay.id(), underlay.description());
    }
}
