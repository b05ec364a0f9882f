//! `cargo xtask lab`: a whole system in network namespaces on this machine, held open to try things by hand.
#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use integration::guide::print_guide;
use integration::{Lab, Machine, Topology, image, interrupt};

/// Start control and worker nodes on this machine and keep them until Enter or Ctrl-C.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many worker nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=64))]
    nodes: u8,
    /// Root and cluster as a process and a node each
    #[arg(long)]
    split: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::catch()?;
    let start = Instant::now();
    let topology = if arguments.split { Topology::Split } else { Topology::Standalone };
    let tell = |what: &str| println!("{:6.1} s  {what}", start.elapsed().as_secs_f32());
    let machine = Machine::reserve(tell)?;
    let lab = Lab::start(&machine, arguments.nodes, topology, tell)?;
    let archive = lab.folder().join("busybox.tar");
    image::write_archive(&archive)?;
    for worker in &lab.workers {
        worker.containerd.import(&archive)?;
    }
    tell(&format!("image {} on each worker", image::REFERENCE));
    print_guide(&lab)?;
    interrupt::wait_for_enter()?;
    println!("stopping");
    drop(lab);
    Ok(())
}
