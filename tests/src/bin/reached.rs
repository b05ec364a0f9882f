//! `cargo xtask coverage` runs tests by this: it gathers the marks that the programs leave which they load.
//!
//! Each load of the object has marks of its own, in a map that would be gone with it. So this looks at all maps of the kernel
//! again and again, and holds those of marks until the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, loaded_maps};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What a loader makes of the section of the marks, and how many there are: `xtask/src/coverage/probe.rs`.
const NAME: &str = ".data.reached";
const MARKS: usize = 16_384;
/// Between two looks. Loading programs takes several times as long.
const PAUSE: Duration = Duration::from_millis(20);

/// Run a command and write which marks the programs leave that it loads. Ends as it does.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to write them: a byte for each, 0 or 1
    marks: PathBuf,
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

type Marks = Array<MapData, [u8; MARKS]>;

fn main() -> Result<ExitCode> {
    let Arguments { marks: file, command } = Arguments::parse();
    // Each map that is held is an open file.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("ask how many files may be open")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("allow many open files")?;
    let (program, arguments) = command.split_first().context("a command")?;
    let mut child =
        Command::new(program).args(arguments).spawn().with_context(|| format!("start {program}"))?;
    let mut held = BTreeMap::new();
    let status = loop {
        hold(&mut held)?;
        if let Some(status) = child.try_wait().with_context(|| format!("wait for {program}"))? {
            break status;
        }
        std::thread::sleep(PAUSE);
    };
    let mut marks = vec![0; MARKS];
    for of_one in held.values() {
        let read = of_one.get(&0, 0).context("read marks")?;
        for (mark, one) in marks.iter_mut().zip(read) {
            *mark |= one;
        }
    }
    std::fs::write(&file, marks).with_context(|| format!("write {}", file.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Holds the maps that have come since, by their numbers.
fn hold(held: &mut BTreeMap<u32, Marks>) -> Result<()> {
    // One that is gone before it is held marked nothing: its programs were not loaded yet.
    for info in loaded_maps().filter_map(Result::ok) {
        if info.name_as_str() != Some(NAME) || held.contains_key(&info.id()) {
            continue;
        }
        let Ok(map) = MapData::from_id(info.id()) else { continue };
        let map = Marks::try_from(Map::Array(map)).context("read a map of marks: is it of another build?")?;
        held.insert(info.id(), map);
    }
    Ok(())
}
