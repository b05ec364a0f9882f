//! A worker loses its power.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::application::Application;
use integration::{Lab, eventually};

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] = &[(
    "the_instances_of_a_worker_that_vanishes_are_placed_elsewhere",
    the_instances_of_a_worker_that_vanishes_are_placed_elsewhere,
)];

fn the_instances_of_a_worker_that_vanishes_are_placed_elsewhere(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "vanish", 3)?;
    let system = application.system(lab, 3)?;
    system.wait_for_all_answers()?;
    let lost = system.remote_server()?;
    let (number, address) = (lost.worker, lost.instance_ip);
    lab.underlay.unplug(&lab.workers[number].name)?;
    lab.workers[number].lose_power()?;
    let service = application.service("web");
    eventually(Duration::from_secs(90), "three servers on the two workers that are left", || {
        let containers = lab.containers_of(&service).map_err(|error| format!("{error:#}"))?;
        if containers.len() == 3 { Ok(()) } else { Err(format!("{containers:?}")) }
    })?;
    let system = application.system(lab, 3)?;
    ensure!(system.instances.iter().all(|instance| instance.worker != number), "{:?}", system.instances);
    let moved = system.instances.iter().find(|instance| instance.instance_ip == address);
    let moved = moved.with_context(|| format!("an instance with the address {address} still"))?;
    system.wait_for_all_answers()?;
    let answer = system.client.container.get(address)?;
    ensure!(answer.starts_with(&moved.host_name), "{answer:?} from {address}");
    application.remove(lab)?;
    lab.repair(number)
}
