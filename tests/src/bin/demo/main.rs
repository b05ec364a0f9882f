//! `cargo xtask demo`: the main job before your eyes. Nodes come up, services are deployed on them and talk through
//! a ServiceIP, daemons are killed, and in the end nothing is left.
#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Parser;
use integration::footprint::{self, Footprint};
use integration::guide::print_guide;
use integration::interrupt::Interrupted;
use integration::{Lab, Machine, Topology, interrupt};

mod deploy;
mod download;
mod speed;
mod talk;
mod tour;

use tour::Tour;

/// Show the main job on nodes that are network namespaces of this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many worker nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=32))]
    nodes: u8,
    /// Keep everything running at the end, until Enter or Ctrl-C
    #[arg(long)]
    hold: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut tour = Tour::start();
    match run(&arguments, &mut tour) {
        Ok(()) => {
            tour.close();
            ExitCode::SUCCESS
        }
        Err(error) => {
            tour.failed(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, tour: &mut Tour) -> Result<()> {
    interrupt::catch()?;
    let machine = Machine::reserve(|what| tour.say(what))?;
    let before = Footprint::take()?;
    let shown = with_lab(&machine, arguments, tour);
    // Whatever happened, the lab is gone now.
    let left = Footprint::take()?;
    let left = left.since(&before);
    match &shown {
        Ok(()) => tour.step("Nothing is left")?,
        Err(_) => tour.say("all is stopped"),
    }
    if left.is_empty() {
        tour.say(format!("{}: as before", footprint::KINDS));
        return shown;
    }
    for trace in &left {
        tour.say(format!("left behind: {trace}"));
    }
    shown.and(Err(anyhow!("{} things are left", left.len())))
}

fn with_lab(machine: &Machine, arguments: &Arguments, tour: &mut Tour) -> Result<()> {
    tour.step(&format!("Start one control node and {} workers", arguments.nodes))?;
    let mut lab = Lab::start(machine, arguments.nodes, Topology::Standalone, |what| tour.say(what))?;
    let shown = show(&mut lab, arguments.hold, tour).map_err(|error| {
        // At a terminal, Ctrl-C also ends the program that a step waits for.
        if error.is::<Interrupted>() || interrupt::check().is_err() {
            return Interrupted.into();
        }
        println!("\n{}", lab.log_tails());
        error
    });
    if shown.is_err() {
        tour.say("cleaning up");
    }
    lab.stop().and(shown)
}

fn show(lab: &mut Lab, hold: bool, tour: &mut Tour) -> Result<()> {
    deploy::make_image(lab, tour)?;
    deploy::apply(lab, tour)?;
    let system = deploy::find(lab)?;
    deploy::print_places(lab, &system, tour);
    talk::ask_in_turn(&system, tour)?;
    talk::ask_one_instance(&system, tour)?;
    talk::ping(&system, tour)?;
    talk::look_at_the_wire(lab, &system, tour)?;
    speed::compare(lab, &system, tour)?;
    drop(system);
    deploy::scale(lab, tour)?;
    download::survive_a_kill(lab, tour)?;
    if hold {
        tour.step("Everything runs on until Enter or Ctrl-C")?;
        print_guide(lab)?;
        interrupt::wait_for_enter()?;
    }
    deploy::remove(lab, tour)?;
    tour.step("Stop the daemons")
}
