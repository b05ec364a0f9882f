//! `cargo xtask bench control`: what the control plane takes, on the lab's nodes with their real containerd: from the call to
//! the first answer, for a burst, and while nothing happens.
//!
//! [`figure`] says what is measured and the mark of each; [`placing`], [`deploying`], [`dying`] and [`idle`] take the numbers.
#![expect(clippy::print_stdout, reason = "it talks to a person")]

mod deploying;
mod dying;
mod figure;
mod idle;
mod placing;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use integration::application::Application;
use integration::{Lab, Machine, Topology, image, interrupt};

use figure::Figures;

/// Measure deploying, undeploying, bursts and idling of the whole system, on nodes that are network namespaces of this machine.
///
/// Times include whatever else the machine does. Trust those only of a machine that is idle otherwise.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench control", bin_name = "cargo xtask bench control")]
struct Arguments {
    /// How often an instance is deployed and taken back
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How many instances are asked for at once, for the burst
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    burst: u32,
    /// How long idling is watched, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    idle: u64,
    /// Where the results go
    #[arg(long, value_name = "FILE", default_value = "target/bench/control.json")]
    out: PathBuf,
}

/// As in the measurements of Oakestra that ours are held against.
const WORKERS: u8 = 2;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::catch()?;
    let start = Instant::now();
    let tell = |what: &str| println!("{:6.1} s  {what}", start.elapsed().as_secs_f32());
    let mut figures = Figures::default();
    tell("decisions among 10,000 workers");
    placing::decide(arguments.rounds, &mut figures)?;
    let machine = Machine::reserve(tell)?;
    let mut lab = Lab::start(&machine, WORKERS, Topology::Split, tell)?;
    let archive = lab.folder().join("busybox.tar");
    image::write_archive(&archive)?;
    for worker in &lab.workers {
        worker.containerd.import(&archive)?;
    }
    let application = Application::deploy(&lab, "bench", 1)?;
    tell(&format!("{} rounds of deploying and taking back", arguments.rounds));
    deploying::rounds(&lab, &application, arguments.rounds, &mut figures)?;
    tell(&format!("{} rounds of killing one of two instances", arguments.rounds));
    dying::rounds(&lab, &application, arguments.rounds, &mut figures)?;
    tell(&format!("{} instances at once", arguments.burst));
    deploying::burst(&lab, &application, arguments.burst, &mut figures)?;
    tell(&format!("{} s of doing nothing, with one instance on a worker", arguments.idle));
    idle::watch(&lab, Duration::from_secs(arguments.idle), &mut figures)?;
    application.remove(&lab)?;
    lab.stop()?;
    if let Some(parent) = arguments.out.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    fs::write(&arguments.out, figures.json()?)
        .with_context(|| format!("write {}", arguments.out.display()))?;
    print!("\n{}", figures.table());
    println!("{}", arguments.out.display());
    Ok(())
}
