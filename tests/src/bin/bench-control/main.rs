//! `cargo xtask bench control`: what the control plane takes, on the lab's nodes with their real containerd: from the call to
//! the first answer, for a burst, and while nothing happens.
//!
//! [`figure`] says what is measured and the mark of each; [`placing`], [`deploying`], [`dying`], [`talk`] and [`idle`] take the
//! numbers, and [`scale`] those with simulated workers.
#![expect(clippy::print_stdout, reason = "it talks to a person")]

mod crowd;
mod deploying;
mod dying;
mod figure;
mod idle;
mod placing;
mod scale;
mod talk;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
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
    /// How many simulated workers there are, each with six instances at last: a list, or 0 for none
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1000", value_parser = clap::value_parser!(u32).range(..=10_000))]
    simulated: Vec<u32>,
    /// Measure with simulated workers only
    #[arg(long)]
    simulated_only: bool,
    /// Where the results go
    #[arg(long, value_name = "FILE", default_value = "target/bench/control.json")]
    out: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The process of simulated workers; it is started by this program
    #[command(hide = true)]
    Crowd(crowd::Crowd),
}

/// As in the measurements of Oakestra that ours are held against.
const WORKERS: u8 = 2;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Part::Crowd(crowd)) = arguments.part {
        return crowd.run();
    }
    interrupt::catch()?;
    let start = Instant::now();
    let tell = |what: &str| println!("{:6.1} s  {what}", start.elapsed().as_secs_f32());
    let mut figures = Figures::default();
    let machine = Machine::reserve(tell)?;
    if !arguments.simulated_only {
        real(&machine, &arguments, tell, &mut figures)?;
    }
    for workers in arguments.simulated.iter().copied().filter(|workers| *workers > 0) {
        tell(&format!("{workers} simulated workers"));
        scale::measure(&machine, workers, tell, &mut figures)?;
    }
    if let Some(parent) = arguments.out.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    fs::write(&arguments.out, figures.json()?)
        .with_context(|| format!("write {}", arguments.out.display()))?;
    print!("\n{}", figures.table());
    println!("{}", arguments.out.display());
    Ok(())
}

/// With real workers, which run containers.
fn real(machine: &Machine, arguments: &Arguments, tell: impl Fn(&str), figures: &mut Figures) -> Result<()> {
    tell("decisions among 10,000 workers");
    placing::decide(arguments.rounds, figures)?;
    let mut lab = Lab::start(machine, WORKERS, Topology::Split, &tell)?;
    let archive = lab.folder().join("busybox.tar");
    image::write_archive(&archive)?;
    for worker in &lab.workers {
        worker.containerd.import(&archive)?;
    }
    let application = Application::deploy(&lab, "bench", 1)?;
    tell(&format!("{} rounds of deploying and taking back", arguments.rounds));
    deploying::rounds(&lab, &application, arguments.rounds, figures)?;
    tell(&format!("{} rounds of killing one of two instances", arguments.rounds));
    dying::rounds(&lab, &application, arguments.rounds, figures)?;
    tell(&format!("{} instances at once", arguments.burst));
    deploying::burst(&lab, &application, arguments.burst, figures)?;
    tell(&format!("{} rounds of counting messages", arguments.rounds));
    talk::deployments(&lab, &application, arguments.rounds, &tell, figures)?;
    tell(&format!("{} s of doing nothing, with one instance on a worker", arguments.idle));
    idle::watch(&lab, Duration::from_secs(arguments.idle), figures)?;
    tell(&format!("{} s of listening to that", arguments.idle));
    talk::idle(&lab, Duration::from_secs(arguments.idle), figures)?;
    application.remove(&lab)?;
    lab.stop()
}
