//! `report.md`: a run for people to read, and to paste from.

use std::fmt::Write;

use crate::plan::Mode;
use crate::results::Results;
use crate::subject::Underlay;
use crate::summary::Summary;
use crate::table::Table;

/// The whole file.
pub(crate) fn markdown(results: &Results, summary: &Summary) -> String {
    let mut text = String::from("# Overlay benchmark\n\n");
    // Writing to a string does not fail.
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap_or_default();
    line(format_args!("- date: {}", results.started));
    line(format_args!("- commit: {}", results.commit));
    line(format_args!("- machine: {}", results.machine.line()));
    line(format_args!(
        "- others used {:.0} % of all CPUs just before{}",
        results.machine.busy_before * 100.0,
        if results.machine.is_idle() { "" } else { ": **not an idle machine, do not trust these numbers**" }
    ));
    line(format_args!(
        "- {} rounds, {} s each measure, all variants in turns",
        results.rounds, results.seconds
    ));
    let mode = match results.mode {
        Mode::Full => "",
        Mode::Quick => " --quick",
        Mode::Tiny => " --tiny",
    };
    line(format_args!(
        "- again: `cargo xtask bench{mode} --rounds {} --seconds {}`",
        results.rounds, results.seconds
    ));
    line(format_args!(
        "\nEach cell: the median of the rounds, how far the farthest round is from it, and (in brackets) the ratio to plain routing."
    ));
    for underlay in Underlay::ALL {
        if summary.keys_of(underlay).next().is_none() {
            continue;
        }
        line(format_args!("\n## {}\n\n{}.\n", heading(underlay), underlay.description()));
        line(format_args!("{}", Table::of(summary, underlay).markdown()));
        for variant in summary.variants(underlay) {
            line(format_args!("- {variant}: {}", variant.description()));
        }
        if let Some(offloads) = results.offloads.get(&underlay) {
            line(format_args!("- uplinks: {}", offloads.join(", ")));
        }
    }
    if !results.skipped.is_empty() || !results.failed.is_empty() {
        line(format_args!("\n## Not measured\n"));
    }
    for skipped in &results.skipped {
        line(format_args!("- {} on {}: {}", skipped.variant, skipped.underlay.id(), skipped.reason));
    }
    for failed in &results.failed {
        let (measure, variant, underlay) = (&failed.measure, &failed.variant, failed.underlay.id());
        line(format_args!(
            "- {measure} of {variant} on {underlay}, round {}: {}",
            failed.round, failed.error
        ));
    }
    text
}

fn heading(underlay: Underlay) -> &'static str {
    match underlay {
        Underlay::Superpacket => "Superpacket underlay",
        Underlay::Wire => "Wire underlay",
        Underlay::SameNode => "Same node",
    }
}
