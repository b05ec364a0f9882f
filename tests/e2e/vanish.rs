//! Workers that leave: one loses its power, one is to become empty.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::application::Application;
use integration::{Lab, System, eventually};
use serde_json::json;

use crate::Claim;
use crate::deploy::{come_to_their_end, finish_when_told_to_stop};

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

/// Of a service with one instance, too: it is running at another worker before it ends here, and what is under way when others
/// are led there comes to its end.
fn a_drained_worker_becomes_empty(lab: &mut Lab) -> Result<()> {
    let names: Vec<_> = lab.workers.iter().map(|worker| worker.name.clone()).collect();
    let [first, clients, others @ ..] = names.as_slice() else { bail!("too few workers: {names:?}") };
    let application = Application::deploy_with(lab, "drain", 1, |[web, client]| {
        finish_when_told_to_stop(web);
        let servers = [std::slice::from_ref(first), others].concat().join(";");
        for (service, nodes) in [(web, servers.as_str()), (client, clients)] {
            service["constraints"] = json!([{"type": "direct", "node": nodes}]);
        }
    })?;
    let system = application.system(lab, 1)?;
    let server = system.instances.first().context("a server")?;
    system.wait_for_all_answers()?;
    let name = &lab.workers[server.worker].name;
    let addresses = [server.instance_ip, system.service_ip];
    come_to_their_end(&system, &addresses, || drain_while_it_is_asked(lab, &system, name))?;
    let moved = application.system(lab, 1)?;
    ensure!(moved.instances[0].worker != server.worker, "{:?}", moved.instances);
    ensure!(moved.instances[0].instance_ip == server.instance_ip, "{:?}", moved.instances);
    moved.wait_for_all_answers()?;
    lab.control.hypha(&["uncordon", name])?;
    application.remove(lab)
}

fn drain_while_it_is_asked(lab: &Lab, system: &System, name: &str) -> Result<()> {
    let (answers, drained) = std::thread::scope(|scope| {
        let draining = scope.spawn(|| lab.control.hypha(&["drain", name]));
        let mut answers = Vec::new();
        while !draining.is_finished() {
            answers.push(system.client.container.get(system.service_ip));
        }
        (answers, draining.join())
    });
    drained.map_err(|_panic| anyhow::anyhow!("hypha drain panicked"))??;
    for (before, answer) in answers.into_iter().enumerate() {
        answer.with_context(|| format!("after {before} answers"))?;
    }
    Ok(())
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
