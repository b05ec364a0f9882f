//! Everything is asked for while whatever can be killed is killed, at random: then all is as it was asked.
//!
//! `HYPHA_TEST_ROUNDS` is how long it goes on, `HYPHA_TEST_SEED` what happens when; a failure names the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::application::document;
use integration::daemon::Daemon;
use integration::{Lab, System, Worker, eventually, process};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] = &[(
    "what_was_asked_while_daemons_were_killed_at_random_is_what_there_is",
    what_was_asked_while_daemons_were_killed_is_what_there_is,
)];

const ROUNDS: u32 = 12;
const SEED: u64 = 1;
const APPLICATIONS: [&str; 2] = ["chaosa", "chaosb"];

/// How many servers of each application are wanted; one that is not in it is not wanted at all.
type Wanted = BTreeMap<&'static str, usize>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Root,
    Cluster,
    NodeEngine(usize),
    Netmanager(usize),
    Containerd(usize),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    /// The application with so many servers, whether it is there or not.
    Apply(&'static str, usize),
    Delete(&'static str),
}

fn what_was_asked_while_daemons_were_killed_is_what_there_is(lab: &mut Lab) -> Result<()> {
    let (rounds, seed) = (setting("HYPHA_TEST_ROUNDS", ROUNDS)?, setting("HYPHA_TEST_SEED", SEED)?);
    chaos(lab, rounds, seed).with_context(|| format!("HYPHA_TEST_ROUNDS={rounds} HYPHA_TEST_SEED={seed}"))
}

fn setting<T: std::str::FromStr>(name: &str, usual: T) -> Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}: expected a number, got {text:?}")),
        Err(_) => Ok(usual),
    }
}

fn chaos(lab: &mut Lab, rounds: u32, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut wanted = Wanted::new();
    let mut story = Vec::new();
    for _ in 0..rounds {
        let order = order(&mut random, &wanted);
        let victims = victims(&mut random, lab.workers.len());
        story.push(format!("{order:?} while {victims:?} die"));
        round(lab, order, &victims, &mut random).with_context(|| story.join("\n"))?;
        match order {
            Order::Apply(name, servers) => _ = wanted.insert(name, servers),
            Order::Delete(name) => _ = wanted.remove(name),
        }
    }
    is_as_wanted(lab, &wanted).with_context(|| format!("wanted {wanted:?} after\n{}", story.join("\n")))?;
    for name in wanted.keys() {
        lab.control.hypha(&["delete", &format!("app/{name}"), "--yes"])?;
    }
    holds_exactly(lab, &Wanted::new()).with_context(|| format!("all was deleted after\n{}", story.join("\n")))
}

fn order(random: &mut StdRng, wanted: &Wanted) -> Order {
    let name = APPLICATIONS[random.random_range(0..APPLICATIONS.len())];
    if wanted.contains_key(name) && random.random_bool(0.25) {
        Order::Delete(name)
    } else {
        Order::Apply(name, random.random_range(1..=4))
    }
}

fn victims(random: &mut StdRng, workers: usize) -> Vec<Victim> {
    let mut victims = Vec::new();
    for _ in 0..random.random_range(1..=2) {
        let worker = random.random_range(0..workers);
        let victim = match random.random_range(0..5) {
            0 => Victim::Root,
            1 => Victim::Cluster,
            2 => Victim::NodeEngine(worker),
            3 => Victim::Netmanager(worker),
            _ => Victim::Containerd(worker),
        };
        if !victims.contains(&victim) {
            victims.push(victim);
        }
    }
    victims
}

/// Gives an order, and again until it is taken, while daemons are killed and come back.
fn round(lab: &mut Lab, order: Order, victims: &[Victim], random: &mut StdRng) -> Result<()> {
    let mut command = command(lab, order)?;
    thread::scope(|scope| {
        let taken = scope.spawn(move || insist(&mut command, order));
        for victim in victims {
            pause(random);
            daemon(lab, *victim)?.kill()?;
        }
        for victim in victims {
            pause(random);
            daemon(lab, *victim)?.start_again()?;
        }
        taken.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// At some moment of what goes on.
fn pause(random: &mut StdRng) {
    thread::sleep(Duration::from_millis(random.random_range(0..800)));
}

fn daemon(lab: &mut Lab, victim: Victim) -> Result<&mut Daemon> {
    Ok(match victim {
        Victim::Root => &mut lab.control.root,
        Victim::Cluster => lab.control.cluster.as_mut().context("a cluster of its own")?,
        Victim::NodeEngine(worker) => &mut lab.workers[worker].node_engine,
        Victim::Netmanager(worker) => &mut lab.workers[worker].netmanager,
        Victim::Containerd(worker) => &mut lab.workers[worker].containerd.daemon,
    })
}

fn command(lab: &Lab, order: Order) -> Result<Command> {
    match order {
        Order::Apply(name, servers) => {
            let file = lab.folder().join(format!("{name}.json"));
            fs::write(&file, document(name, servers)?.to_string())
                .with_context(|| format!("write {}", file.display()))?;
            lab.control.hypha_command(&["apply", "--no-wait", "-f", &file.display().to_string()])
        }
        Order::Delete(name) => {
            lab.control.hypha_command(&["delete", "--no-wait", "--yes", &format!("app/{name}")])
        }
    }
}

/// An order whose answer was lost may have been taken: giving it again must be no other one.
fn insist(command: &mut Command, order: Order) -> Result<()> {
    eventually(Duration::from_secs(30), &format!("{order:?} to be taken"), || {
        let error = match process::output(command) {
            Ok(_) => return Ok(()),
            Err(error) => format!("{error:#}"),
        };
        let is_gone = matches!(order, Order::Delete(_)) && error.contains("E-NOT-FOUND");
        if is_gone { Ok(()) } else { Err(error) }
    })
}

fn is_as_wanted(lab: &mut Lab, wanted: &Wanted) -> Result<()> {
    lab.control.wait_for_ports()?;
    for worker in &mut lab.workers {
        worker.wait_for_netmanager()?;
        worker.containerd.wait_until_ready()?;
    }
    lab.wait_until_joined()?;
    holds_exactly(lab, wanted)?;
    for (name, servers) in wanted {
        let [web, client] = ["web", "client"].map(|service| format!("{name}.demo.{service}.demo"));
        System::wait(lab, &web, &client, *servers)?.wait_for_all_answers()?;
    }
    Ok(())
}

/// Each container that there is, is wanted, on one worker, and each one that is wanted is there; and the networks of the
/// workers hold these and no others.
fn holds_exactly(lab: &Lab, wanted: &Wanted) -> Result<()> {
    eventually(Duration::from_secs(90), &format!("the containers of {wanted:?} and no others"), || {
        look(lab, wanted).map_err(|error| format!("{error:#}"))
    })
}

fn look(lab: &Lab, wanted: &Wanted) -> Result<()> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for worker in &lab.workers {
        let tasks = worker.containerd.tasks()?;
        let containers: BTreeSet<String> = worker.containerd.containers()?.into_iter().collect();
        let running: BTreeSet<String> =
            tasks.into_iter().filter(|task| task.status == "RUNNING").map(|task| task.id).collect();
        ensure!(running == containers, "{}: {containers:?}, and {running:?} run", worker.name);
        let connected = connected(worker)?;
        ensure!(connected == running, "{}: {running:?} run, {connected:?} are connected", worker.name);
        for id in running {
            let (service, _number) = id.split_once(".instance.").context("a container of a service")?;
            *counts.entry(service.to_owned()).or_default() += 1;
        }
    }
    let expected: BTreeMap<String, usize> = wanted
        .iter()
        .flat_map(|(name, servers)| {
            [(format!("{name}.demo.web.demo"), *servers), (format!("{name}.demo.client.demo"), 1)]
        })
        .collect();
    if counts != expected {
        bail!("{counts:?} run");
    }
    Ok(())
}

/// The instances that a worker's network says it has, by the names of their containers.
fn connected(worker: &Worker) -> Result<BTreeSet<String>> {
    let status = worker.network_status()?;
    let endpoints = status["endpoints"].as_array().context("the containers of a network")?;
    endpoints
        .iter()
        .map(|endpoint| {
            let instance = &endpoint["instance"];
            let (service, number) = (instance["service"].as_str(), instance["number"].as_u64());
            let (service, number) =
                service.zip(number).with_context(|| format!("an instance: {instance}"))?;
            Ok(format!("{service}.instance.{number}"))
        })
        .collect()
}
