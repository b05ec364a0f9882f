//! The cluster and its workers meet at a broker that is not ours.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use integration::application::Application;
use integration::{Broker, Lab, Machine, Topology, eventually};
use protocol::plan::Plan;

use crate::{ClaimAlone, give_image};

pub(crate) const CLAIMS: &[ClaimAlone] = &[(
    "a_lab_whose_broker_is_mosquitto_survives_its_death_and_that_of_the_cluster",
    a_lab_whose_broker_is_mosquitto_survives_its_death_and_that_of_the_cluster,
)];

fn a_lab_whose_broker_is_mosquitto_survives_its_death_and_that_of_the_cluster(
    machine: &Machine,
) -> Result<()> {
    let mut lab = Lab::start_with(machine, 2, Topology::Split, Plan::default(), Broker::Mosquitto, |_| {})?;
    use_it(&mut lab).map_err(|error| anyhow!("{error:#}\n{}", lab.log_tails()))
}

fn use_it(lab: &mut Lab) -> Result<()> {
    give_image(lab)?;
    let first = Application::deploy(lab, "first", 2)?;
    first.system(lab, 2)?.wait_for_all_answers()?;

    let broker = lab.control.broker.as_mut().context("a broker")?;
    broker.kill()?;
    broker.start_again()?;
    let second = Application::deploy(lab, "second", 2).context("after the broker has been killed")?;
    second.system(lab, 2)?.wait_for_all_answers()?;

    let cluster = lab.control.cluster.as_mut().context("a cluster")?;
    cluster.kill()?;
    cluster.start_again()?;
    lab.control.wait_for_ports()?;
    // Who asked for the table before is told of what is new: the cluster has forgotten that he did.
    first.scale(lab, 4).context("after the cluster has been killed")?;
    let system = first.system(lab, 4)?;
    system.wait_for_all_answers()?;
    eventually(Duration::from_secs(30), "an answer of each of four", || {
        let answers = system.answers(8).map_err(|error| format!("{error:#}"))?;
        let mut seen = answers.clone();
        seen.sort();
        seen.dedup();
        if seen == system.host_names() { Ok(()) } else { Err(format!("{answers:?}")) }
    })?;
    ensure!(second.system(lab, 2)?.answers(2)?.len() == 2, "the other application answers still");
    first.remove(lab)?;
    second.remove(lab)
}
