//! `cargo xtask build-ebpf`: the BPF object, and what is in it.

mod object;
mod record;

use anyhow::{Context, Result};
use netmanager_ebpf_builder::Builder;

use crate::progress::{answer, say, step};
use crate::rights;
use crate::setup::{self, Purpose};
use crate::workspace;

use self::object::{Contents, Map, Program};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Load it, and record how much of it the verifiers look at: this kernel's, and that of `test vm` where it is set up
    #[arg(long)]
    record: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.record {
        rights::require("loading programs")?;
        setup::provide(Purpose::Tests)?;
        return record::run();
    }
    setup::provide(Purpose::Object)?;
    let path = step("BPF object", || {
        let builder = Builder::find(&workspace::root())?;
        say(format_args!("    with {} and {}", builder.toolchain(), builder.linker().path().display()));
        Ok(builder.build()?)
    })?;
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let contents =
        Contents::read(&bytes).with_context(|| format!("{} is not the object expected", path.display()))?;
    print(&contents)?;
    answer(format_args!("\n{} ({} bytes)", path.display(), bytes.len()))
}

fn print(contents: &Contents) -> Result<()> {
    answer(format_args!("{:<24} {:<12} {:>12}", "PROGRAM", "SECTION", "INSTRUCTIONS"))?;
    for Program { name, section, instructions } in &contents.programs {
        answer(format_args!("{name:<24} {section:<12} {instructions:>12}"))?;
    }
    answer(format_args!("\n{:<24} {:<16} {:>6} {:>6} {:>9}", "MAP", "TYPE", "KEY", "VALUE", "ENTRIES"))?;
    for Map { name, kind, key, value, entries } in &contents.maps {
        answer(format_args!("{name:<24} {kind:<16} {key:>6} {value:>6} {entries:>9}"))?;
    }
    Ok(())
}
