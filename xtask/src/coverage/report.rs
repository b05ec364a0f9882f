//! What was reached, in words. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::lines::{Line, Lines};
use super::probe::Place;

/// What the object's own sources are, among those of what it is built with.
const OURS: [&str; 2] = ["netmanager-ebpf/src/", "netmanager-common/src/"];

/// What came of the tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Blocks that ran, that did not, and of which it is not known.
    pub(super) reached: usize,
    pub(super) missed: usize,
    pub(super) untold: usize,
    /// How many lines of each file have code, and which of them never ran in any of their copies.
    pub(super) files: BTreeMap<String, File>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    pub(super) lines: usize,
    pub(super) missed: BTreeSet<u32>,
}

impl Report {
    /// `marks`: a byte for each place, 0 if it was never reached.
    pub(super) fn new(places: &[Place], marks: &[u8], lines: &Lines) -> Self {
        let mut report = Self { reached: 0, missed: 0, untold: 0, files: BTreeMap::new() };
        let (mut all, mut reached) = (BTreeSet::new(), BTreeSet::new());
        for (place, mark) in places.iter().zip(marks) {
            let of: BTreeSet<&Line> = lines.of(&place.section, place.start, place.end);
            let was_reached = match (place.is_marked, mark) {
                (false, _) => {
                    report.untold += 1;
                    // Not said of what may have run.
                    true
                }
                (true, 0) => {
                    report.missed += 1;
                    false
                }
                (true, _) => {
                    report.reached += 1;
                    true
                }
            };
            if was_reached {
                reached.extend(of.iter().copied());
            }
            all.extend(of);
        }
        for line in all {
            let Some(file) = ours(&line.file).filter(|_| line.number > 0) else { continue };
            let of_file = report.files.entry(file.to_owned()).or_default();
            of_file.lines += 1;
            if !reached.contains(line) {
                of_file.missed.insert(line.number);
            }
        }
        report
    }

    /// `source` gives the text of a file.
    pub(super) fn text(&self, source: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for (name, File { lines, missed }) in self.files.iter().filter(|(_, file)| !file.missed.is_empty()) {
            writeln!(text, "{name}: {} of {lines} lines", lines - missed.len()).ok();
            let source = source(name);
            let rows: Vec<_> = source.lines().collect();
            for number in missed {
                let at = usize::try_from(*number).unwrap_or_default().saturating_sub(1);
                let row = rows.get(at).map_or("", |row| row.trim());
                writeln!(text, "{number:>6}  {row}").ok();
            }
        }
        let lines: usize = self.files.values().map(|file| file.lines).sum();
        let missed: usize = self.files.values().map(|file| file.missed.len()).sum();
        let share = |part: usize, of: usize| 100.0 * part as f64 / of.max(1) as f64;
        let told = self.reached + self.missed;
        writeln!(
            text,
            "\n{} of {told} blocks were reached ({:.1} %), {} of {lines} lines in any of their copies ({:.1} %); of {} blocks it \
             cannot be told",
            self.reached,
            share(self.reached, told),
            lines - missed,
            share(lines - missed, lines),
            self.untold,
        )
        .ok();
        text
    }
}

/// The path from the top of the repository on.
fn ours(path: &str) -> Option<&str> {
    OURS.iter().find_map(|folder| path.rfind(folder).and_then(|at| path.get(at..)))
}
