//! `cargo xtask coverage`: which parts of the programs no test reaches.

mod blocks;
mod instruction;
mod lines;
mod probe;
mod report;

use std::path::Path;

use anyhow::{Context, Result};
use netmanager_ebpf_builder::Builder;

use crate::process::Process;
use crate::progress::{answer, say, step};
use crate::rights;
use crate::setup::{self, Purpose};
use crate::workspace::{self, SELECTION};

use self::lines::Lines;
use self::report::Report;

/// Makes netmanager embed another object than the one it builds: `netmanager/build.rs`.
const OBJECT: &str = "HYPHA_PROBED_OBJECT";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only the tests whose name holds this
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    rights::require("running programs in the kernel")?;
    setup::provide(Purpose::Tests)?;
    let root = workspace::root();
    let object = step("BPF object", || Ok(Builder::find(&root)?.build()?))?;
    let object = std::fs::read(&object).with_context(|| format!("read {}", object.display()))?;
    let lines = Lines::read(&object)?;
    let probed = probe::probe(&object).context("put marks into the object")?;
    let folder = root.join("target").join("coverage");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let (with_marks, marks) = (folder.join("netmanager-ebpf"), folder.join("marks"));
    std::fs::write(&with_marks, &probed.object).with_context(|| format!("write {}", with_marks.display()))?;
    say(format_args!(
        "    {} blocks get a mark",
        probed.places.iter().filter(|place| place.is_marked).count()
    ));

    let all_passed = tests(&with_marks, &marks, arguments.filter.as_deref())?;
    let marks = std::fs::read(&marks).with_context(|| format!("read {}", marks.display()))?;
    let report = Report::new(&probed.places, &marks, &lines);
    let source = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
    answer(format_args!("{}", report.text(source).trim_end()))?;
    if !all_passed {
        say(format_args!("some tests failed: the lines that they would have reached may be missing"));
    }
    Ok(())
}

/// Runs the datapath tests with the object that marks. Whether all passed.
fn tests(object: &Path, marks: &Path, filter: Option<&str>) -> Result<bool> {
    let watch = ["run", "--quiet", "--locked", "--package", "integration", "--bin", "reached", "--"];
    let test = ["cargo", "test", "--locked", "--no-fail-fast"];
    // Marks are work for the verifier that is not recorded.
    let harness = ["--test", "datapath", "--", "--test-threads=1", "--skip", "verifier::"];
    let process = Process::cargo()
        .args(watch)
        .arg(marks)
        .args(test)
        .args(SELECTION)
        .args(harness)
        .args(filter)
        .env(OBJECT, object);
    Ok(process.run_by_line(|line| answer(format_args!("{line}")))?.success())
}
