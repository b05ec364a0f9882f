//! The real daemons and a real containerd on nodes that are network namespaces: does it hold together?
//!
//! All tests share one lab, one after the other, because starting one takes longer than most tests. Each leaves it as
//! it was, with an application of its own removed. A test that fails takes the lab with it, and the next one gets a
//! new lab, so that a failure is never the cause of another.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use integration::{Lab, Machine, Topology, Worker, image};
use libtest_mimic::{Arguments, Failed, Trial};

mod bad_input;
mod chaos;
mod clusters;
mod deploy;
mod mosquitto;
mod nearness;
mod oak;
mod ranges;
mod restart;
mod storage;
mod vanish;

const WORKERS: u8 = 3;

/// A claim, and how it is shown.
type Claim = (&'static str, fn(&mut Lab) -> Result<()>);
/// One that needs a lab of another kind, which it starts itself.
type ClaimAlone = (&'static str, fn(&Machine) -> Result<()>);

fn main() {
    let claims: Vec<Claim> = [
        deploy::CLAIMS,
        bad_input::CLAIMS,
        restart::CLAIMS,
        oak::CLAIMS,
        // Before another cluster has a worker.
        nearness::CLAIMS,
        vanish::CLAIMS,
        clusters::CLAIMS,
        chaos::CLAIMS,
        storage::CLAIMS,
    ]
    .concat();
    let bed = Arc::new(Mutex::new(Bed::default()));
    let shared = claims.into_iter().map(|(name, claim)| {
        let bed = Arc::clone(&bed);
        Trial::test(name, move || bed.lock().unwrap_or_else(PoisonError::into_inner).check(claim))
    });
    let alone = ranges::CLAIMS.iter().chain(mosquitto::CLAIMS).map(|&(name, claim)| {
        let bed = Arc::clone(&bed);
        Trial::test(name, move || bed.lock().unwrap_or_else(PoisonError::into_inner).check_alone(claim))
    });
    let trials = shared.chain(alone).collect();
    // The lab is one, so the tests take turns.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Before the process ends, which drops nothing.
    drop(std::mem::take(&mut *bed.lock().unwrap_or_else(PoisonError::into_inner)));
    conclusion.exit();
}

/// What the tests stand on, made by the first that runs.
#[derive(Default)]
struct Bed {
    lab: Option<Lab>,
    machine: Option<Machine>,
}

impl Bed {
    fn check(&mut self, claim: fn(&mut Lab) -> Result<()>) -> Result<(), Failed> {
        let mut lab = self.take_lab().map_err(|error| format!("start a lab: {error:#}"))?;
        match claim(&mut lab).and_then(|()| lab.expect_running()) {
            Ok(()) => {
                self.lab = Some(lab);
                Ok(())
            }
            Err(error) => Err(format!("{error:#}\n{}", lab.log_tails()).into()),
        }
    }

    fn check_alone(&mut self, claim: fn(&Machine) -> Result<()>) -> Result<(), Failed> {
        self.lab = None;
        let machine = self.reserve().map_err(|error| format!("reserve the machine: {error:#}"))?;
        claim(machine).map_err(|error| format!("{error:#}").into())
    }

    /// The lab is out of its place while a test has it: a panic or an error drops it.
    fn take_lab(&mut self) -> Result<Lab> {
        if let Some(lab) = self.lab.take() {
            return Ok(lab);
        }
        start_lab(self.reserve()?)
    }

    fn reserve(&mut self) -> Result<&Machine> {
        let machine = match self.machine.take() {
            Some(machine) => machine,
            None => Machine::reserve(|_| {})?,
        };
        Ok(self.machine.insert(machine))
    }
}

fn start_lab(machine: &Machine) -> Result<Lab> {
    let lab = Lab::start(machine, WORKERS, Topology::Split, |_| {})?;
    give_image(&lab)?;
    Ok(lab)
}

/// Gives all workers the image of the servers.
fn give_image(lab: &Lab) -> Result<()> {
    image::write_archive(&archive(lab))?;
    lab.workers.iter().try_for_each(|worker| import(lab, worker))
}

fn archive(lab: &Lab) -> PathBuf {
    lab.folder().join("busybox.tar")
}

/// Gives a worker the image, without a registry.
fn import(lab: &Lab, worker: &Worker) -> Result<()> {
    worker.containerd.import(&archive(lab)).with_context(|| format!("import the image on {}", worker.name))
}
