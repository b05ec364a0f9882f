//! Workers that leave: one loses its power, one is to become empty.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::application::Application;
use integration::{Lab, eventually};

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] = &[
    (
        "a_drained_worker_becomes_empty_and_its_services_are_answered_for_all_the_time",
        a_drained_worker_becomes_empty,
    ),
    (
        "the_instances_of_a_worker_that_vanishes_are_placed_elsewhere",
        the_instances_of_a_worker_that_vanishes_are_placed_elsewhere,
    ),
];

/// Of a service with one instance, too: it is running at another worker before it ends here. Only what is under way when
/// others are led there does not go on.
fn a_drained_worker_becomes_empty(lab: &mut Lab) -> Result<()> {
    let application = Application::deploy(lab, "drain", 1)?;
    let system = application.system(lab, 1)?;
    let server = system.instances.first().context("a server")?;
    system.wait_for_all_answers()?;
    let name = lab.workers[server.worker].name.clone();
    let (failures, drained) = std::thread::scope(|scope| {
        let (lab, client) = (&*lab, &system.client.container);
        let draining = scope.spawn(|| lab.control.hypha(&["drain", &name]));
        let (mut answers, mut failures) = (0, Vec::new());
        // The client itself may have to leave.
        while !draining.is_finished() && system.client.worker != server.worker {
            match client.get(system.service_ip) {
                Ok(_) => answers += 1,
                Err(error) => failures.push(format!("after {answers} answers: {error:#}")),
            }
        }
        (failures, draining.join())
    });
    drained.map_err(|_panic| anyhow::anyhow!("hypha drain panicked"))??;
    ensure!(failures.len() <= 1, "{failures:?}");
    let moved = application.system(lab, 1)?;
    ensure!(moved.instances[0].worker != server.worker, "{:?}", moved.instances);
    ensure!(moved.instances[0].instance_ip == server.instance_ip, "{:?}", moved.instances);
    moved.wait_for_all_answers()?;
    lab.control.hypha(&["uncordon", &name])?;
    application.remove(lab)
}

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
