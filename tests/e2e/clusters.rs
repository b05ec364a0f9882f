//! Services of two clusters, which know of each other by the root only. The last of all claims: the second cluster stays.

use anyhow::{Context, Result, ensure};
use integration::Lab;
use integration::application::Application;
use serde_json::{Value, json};

use crate::deploy::{come_to_their_end, fetch, finish_when_told_to_stop};
use crate::{Claim, import};

pub(crate) const CLAIMS: &[Claim] = &[
    ("services_of_two_clusters_reach_each_other", services_of_two_clusters_reach_each_other),
    (
        "a_download_from_an_instance_of_another_cluster_that_is_stopped_comes_to_its_end",
        a_download_from_an_instance_of_another_cluster_that_is_stopped_comes_to_its_end,
    ),
    (
        "what_no_worker_of_one_cluster_may_have_runs_in_another_and_why_is_said",
        what_no_worker_of_one_cluster_may_have_runs_in_another,
    ),
];

const FIRST: &str = "lab";
const SECOND: &str = "outpost";

fn with_a_second_cluster(lab: &mut Lab) -> Result<()> {
    if lab.control.daemons().all(|daemon| daemon.name() != "cluster2") {
        lab.add_cluster(SECOND)?;
        if let Some(worker) = lab.workers.last() {
            import(lab, worker)?;
        }
    }
    Ok(())
}

/// Servers in the second cluster, and their client in the first.
fn deploy(lab: &mut Lab, name: &str, servers: usize, change: fn(&mut Value)) -> Result<Application> {
    with_a_second_cluster(lab)?;
    Application::deploy_with(lab, name, servers, |[web, client]| {
        for (service, cluster) in [(&mut *web, SECOND), (client, FIRST)] {
            service["constraints"] = json!([{"type": "direct", "cluster": cluster}]);
        }
        change(web);
    })
}

fn services_of_two_clusters_reach_each_other(lab: &mut Lab) -> Result<()> {
    let application = deploy(lab, "far", 2, |_web| {})?;
    let system = application.system(lab, 2)?;
    let here = lab.workers.len() - 1;
    ensure!(system.instances.iter().all(|instance| instance.worker == here), "{:?}", system.instances);
    ensure!(system.client.worker != here, "{:?}", system.client);
    system.wait_for_all_answers()?;
    for instance in &system.instances {
        let answer = system.client.container.get(instance.instance_ip)?;
        let expected = format!("{} answers {}", instance.host_name, system.client.instance_ip);
        ensure!(answer.trim_end() == expected, "{answer:?} instead of {expected:?}");
        system.client.container.ping(instance.instance_ip)?;
        instance.container.ping(system.client.instance_ip)?;
    }
    // Also for what is in no container.
    for worker in &lab.workers {
        for instance in &system.instances {
            let answer = fetch(&worker.netns, instance.instance_ip)
                .with_context(|| format!("from {} to {}", worker.name, instance.host_name))?;
            let expected = format!("{} answers 10.", instance.host_name);
            ensure!(answer.contains(&expected), "{}: {answer:?} instead of {expected:?}", worker.name);
        }
    }
    let everybody = system.instances.iter().chain([&system.client]);
    for instance in everybody {
        let again = instance.container.retransmitted()?;
        ensure!(again == 0, "{} has sent {again} segments again", instance.host_name);
    }
    for servers in [3, 1] {
        application.scale(lab, servers)?;
        application.system(lab, servers)?.wait_for_all_answers()?;
    }
    application.remove(lab)
}

fn a_download_from_an_instance_of_another_cluster_that_is_stopped_comes_to_its_end(
    lab: &mut Lab,
) -> Result<()> {
    let application = deploy(lab, "farend", 2, finish_when_told_to_stop)?;
    let system = application.system(lab, 2)?;
    system.wait_for_all_answers()?;
    let by_own = system.instances.iter().map(|instance| instance.instance_ip);
    let addresses: Vec<_> = by_own.chain([system.service_ip, system.service_ip]).collect();
    come_to_their_end(&system, &addresses, || application.scale(lab, 1))?;
    application.system(lab, 1)?.wait_for_all_answers()?;
    application.remove(lab)
}

/// The first cluster has more room by far, and an operator keeps it for something else.
fn what_no_worker_of_one_cluster_may_have_runs_in_another(lab: &mut Lab) -> Result<()> {
    with_a_second_cluster(lab)?;
    let here = lab.workers.len() - 1;
    let others: Vec<_> = lab.workers[..here].iter().map(|worker| worker.name.clone()).collect();
    for name in &others {
        lab.control.hypha(&["cordon", name])?;
    }
    let application = Application::deploy(lab, "spill", 2)?;
    let system = application.system(lab, 2)?;
    let everybody = system.instances.iter().chain([&system.client]);
    for instance in everybody {
        ensure!(instance.worker == here, "{instance:?}");
    }
    system.wait_for_all_answers()?;
    let why = lab.control.hypha_json(&["why", "spill/web"])?;
    let chosen = &why[0]["decisions"][0]["chosen"];
    ensure!(*chosen == json!(lab.workers[here].name), "{why}");
    for name in &others {
        lab.control.hypha(&["uncordon", name])?;
    }
    application.remove(lab)
}
