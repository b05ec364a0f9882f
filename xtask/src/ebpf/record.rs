//! How much of each program the verifiers of kernels look at, kept in the repository.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::progress::say;
use crate::vm;
use crate::workspace::{self, SELECTION};

const HEADER: &str = "\
# Instructions that the verifier of a kernel looks at: kernel, program, instructions.
# Written by `cargo xtask build-ebpf --record`; the datapath tests fail when one has grown by over a fifth.
";

/// The test that says it.
const TEST: &str = "verifier::";

/// How the test begins the lines that matter here: `tests/datapath/verifier.rs`.
const MARK: &str = "verified: ";

/// Kernel and program, and the instructions.
type Record = BTreeMap<(Release, String), u32>;

/// A series of Linux, such as 6.1.
type Release = (u32, u32);

/// Asks this kernel, and the virtual machine's if it is there, and rewrites their parts of the record.
pub(super) fn run() -> Result<()> {
    let path = path();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut record = read(&text)?;
    let measured = measured()?;
    record.retain(|(kernel, _), _| measured.keys().all(|(measured, _)| measured != kernel));
    record.extend(measured);
    std::fs::write(&path, written(&record)).with_context(|| format!("cannot write {}", path.display()))?;
    say(format_args!("recorded in {}", path.display()));
    Ok(())
}

fn path() -> PathBuf {
    workspace::root().join("netmanager-ebpf/verified.txt")
}

/// What the test of it says; whether the test is content with that does not matter.
fn measured() -> Result<Record> {
    let mut record = Record::new();
    let told = Cell::new(0_usize);
    let mut read = |line: &str| {
        if let Some((_, entry)) = line.split_once(MARK) {
            let (key, instructions) = entry_of(entry)?;
            record.insert(key, instructions);
            told.set(told.get() + 1);
        }
        Ok(())
    };
    let process = Process::cargo().args(["test", "--locked"]).args(SELECTION);
    process.args(["--test", "datapath", TEST, "--", "--nocapture"]).run_by_line(&mut read)?;
    if let Some(kernel) = vm::kernel::find() {
        let here = told.get();
        vm::run(Some(TEST), &[], &mut read)?;
        ensure!(
            told.get() > here,
            "the programs do not load on Linux {} in the virtual machine: cargo xtask test vm {TEST}",
            kernel.release
        );
    } else {
        say(format_args!("only this kernel is asked; for another one: cargo xtask setup --for vm"));
    }
    ensure!(!record.is_empty(), "the datapath tests have not said what the verifier looked at");
    Ok(record)
}

fn read(text: &str) -> Result<Record> {
    text.lines().filter(|line| !line.starts_with('#')).map(entry_of).collect()
}

fn entry_of(line: &str) -> Result<((Release, String), u32)> {
    let wrong = || format!("expected kernel, program and instructions: {line:?}");
    let [kernel, program, instructions] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        anyhow::bail!(wrong());
    };
    let (major, minor) = kernel.split_once('.').with_context(wrong)?;
    let number = |text: &str| text.parse().with_context(wrong);
    Ok((((number(major)?, number(minor)?), program.to_owned()), number(instructions)?))
}

fn written(record: &Record) -> String {
    let lines = record.iter().map(|(((major, minor), program), instructions)| {
        format!("{major}.{minor} {program} {instructions}\n")
    });
    HEADER.to_owned() + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::{HEADER, read, written};

    #[test]
    fn what_is_written_is_read_again_in_the_order_of_kernels() {
        let text = format!("{HEADER}6.1 a 30691\n6.1 b 8531\n6.18 a 32000\n");
        assert_eq!(written(&read(&text).unwrap()), text);
        let unordered = format!("{HEADER}6.18 a 32000\n6.1 b 8531\n6.1 a 30691\n");
        assert_eq!(written(&read(&unordered).unwrap()), text);
        assert!(read("6.1 a").is_err());
    }
}
