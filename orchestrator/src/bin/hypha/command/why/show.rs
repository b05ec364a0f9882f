//! A reason as text and as a document.

use protocol::decision::{Decision, Score};
use serde_json::{Value, json};

use super::{Lacking, Offer, Reason};
use crate::terminal::plain;
use crate::view::age;

pub(super) fn text(reason: &Reason, now: f64) -> String {
    let mut lines = vec![format!("{}  {} {}", reason.name, reason.state, reason.place).trim_end().to_owned()];
    if !reason.cause.is_empty() {
        lines.push(format!("  {}", reason.cause));
    }
    if let Some(Lacking { wants, clusters }) = &reason.lacking {
        lines.push(format!("  it wants {}", wants.join(", ")));
        lines.extend(clusters.iter().map(|Offer { cluster, lacks, has }| match lacks.as_str() {
            "" => format!("  cluster {cluster}: {has}"),
            lacks => format!("  cluster {cluster}: {lacks} ({has})"),
        }));
    }
    if let Some(last) = reason.decisions.first() {
        lines.extend(decision(last, now));
    } else if !reason.unknown.is_empty() {
        lines.push(format!("  how it was decided is not known: {}", reason.unknown));
    }
    if reason.lacking.is_some() {
        lines.push("  it is placed as soon as there is room, without being asked for again".to_owned());
    }
    // Names and details come from workers and clusters.
    lines.iter().map(|line| plain(line)).collect::<Vec<_>>().join("\n")
}

fn decision(of: &Decision, now: f64) -> Vec<String> {
    let ago = age(now, of.at);
    let fit =
        u64::from(of.candidates).saturating_sub(of.rejections.iter().map(|one| u64::from(one.count)).sum());
    let candidates = of.candidates;
    let mut lines = Vec::new();
    match &of.chosen {
        Some(chosen) => {
            lines.push(format!(
                "  {chosen} was chosen {ago} ago by {}: {fit} of {candidates} workers fit",
                of.algorithm
            ));
            if of.scores.len() > 1 {
                lines.extend(scores(&of.scores));
            }
        }
        None => {
            let times = if of.times > 1 { format!(" {} times, last", of.times) } else { String::new() };
            lines.push(format!("  looked for a worker{times} {ago} ago: {fit} of {candidates} fit"));
        }
    }
    let width = of.rejections.iter().map(|rejection| rejection.filter.len()).max().unwrap_or(0);
    let rejected = of.rejections.iter();
    lines.extend(rejected.map(|one| format!("  {:>4}  {:width$}  {}", one.count, one.filter, one.detail)));
    if !of.would_help.is_empty() {
        lines.push(format!("  any one of these would do:  {}", of.would_help.join("  |  ")));
    }
    lines
}

/// The parts in columns; the first worker that differs from the chosen one in a part lost by it.
fn scores(scores: &[Score]) -> Vec<String> {
    let header = scores.first().into_iter().flat_map(|score| &score.parts).map(|part| part.name.to_string());
    let mut rows = vec![std::iter::once(String::new()).chain(header).collect::<Vec<_>>()];
    rows.extend(scores.iter().map(|score| {
        let parts = score.parts.iter().map(|part| part.value.to_string());
        std::iter::once(score.worker.clone()).chain(parts).collect()
    }));
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<_> =
        (0..columns).map(|column| rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let mut cells = row.iter().zip(&widths);
        let name = cells.next().map(|(cell, width)| format!("{cell:width$}")).unwrap_or_default();
        let cells = cells.map(|(cell, width)| format!("{cell:>width$}"));
        let line = std::iter::once(name).chain(cells).collect::<Vec<_>>().join("  ");
        format!("        {line}")
    };
    rows.iter().map(line).collect()
}

pub(super) fn document(reason: &Reason) -> Value {
    let mut document =
        json!({ "name": reason.name, "state": reason.state, "place": reason.place, "cause": reason.cause });
    if let Some(Lacking { wants, clusters }) = &reason.lacking {
        document["wants"] = json!(wants);
        document["clusters"] = clusters
            .iter()
            .map(|Offer { cluster, lacks, has }| json!({ "name": cluster, "lacks": lacks, "offer": has }))
            .collect();
    }
    document["decisions"] = json!(reason.decisions);
    if !reason.unknown.is_empty() {
        document["unknown"] = json!(reason.unknown);
    }
    document
}
