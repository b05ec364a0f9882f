//! Image, deployment, placement, scaling, removal: what a person does with `hypha`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::{Lab, System, eventually, image};

use crate::tour::{Tour, table};

const SLA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/hello.json");
pub(crate) const WEB: &str = "hello.demo.web.demo";
pub(crate) const CLIENT: &str = "hello.demo.client.demo";

pub(crate) fn make_image(lab: &Lab, tour: &mut Tour) -> Result<()> {
    tour.step("Make an image without a registry: Debian's busybox with its web server and its clients")?;
    let archive = lab.folder().join("busybox.tar");
    image::write_archive(&archive)?;
    for worker in &lab.workers {
        worker.containerd.import(&archive)?;
    }
    let size = std::fs::metadata(&archive).context("see the size of the image")?.len() / 1024;
    tour.say(format!("{} ({size} KiB) imported on each worker", image::REFERENCE));
    Ok(())
}

pub(crate) fn apply(lab: &Lab, tour: &mut Tour) -> Result<()> {
    tour.step("Deploy three web servers behind one address, and a client")?;
    ensure!(Path::new(SLA).exists(), "{SLA} is not there: run this from a clone of the repository");
    tour.say("$ hypha apply -f examples/hello.json");
    tour.say(lab.control.hypha_transcript(&["apply", "-f", SLA])?);
    Ok(())
}

/// Waits until the containers are there, and finds their addresses.
pub(crate) fn find(lab: &Lab) -> Result<System> {
    System::wait(lab, WEB, CLIENT, 3)
}

pub(crate) fn print_places(lab: &Lab, system: &System, tour: &mut Tour) {
    let mut rows =
        vec![["INSTANCE", "WORKER", "TUNNEL", "INSTANCE IP", "INSIDE", "PID"].map(str::to_owned).to_vec()];
    for instance in system.instances.iter().chain([&system.client]) {
        let worker = &lab.workers[instance.worker];
        rows.push(vec![
            instance.container.id.clone(),
            worker.name.clone(),
            format!("{}:{}", worker.address, protocol::port::TUNNEL),
            instance.instance_ip.to_string(),
            instance.ns_ip.to_string(),
            instance.container.pid.to_string(),
        ]);
    }
    tour.say(format!("ServiceIP of {WEB}: {}", system.service_ip));
    tour.say(table(&rows));
}

pub(crate) fn scale(lab: &Lab, tour: &mut Tour) -> Result<()> {
    for (count, direction) in [(5, "up"), (2, "down")] {
        tour.step(&format!("Scale {direction} to {count} web servers"))?;
        tour.say(format!("$ hypha scale web={count}"));
        tour.say(lab.control.hypha_transcript(&["scale", &format!("web={count}")])?);
        let system = System::wait(lab, WEB, CLIENT, count)?;
        system.wait_for_all_answers()?;
        tour.say(format!(
            "{count} requests to {} are answered by {}",
            system.service_ip,
            system.host_names().join(", ")
        ));
    }
    Ok(())
}

pub(crate) fn remove(lab: &Lab, tour: &mut Tour) -> Result<()> {
    tour.step("Remove the application")?;
    tour.say("$ hypha delete app/hello --yes");
    tour.say(lab.control.hypha_transcript(&["delete", "app/hello", "--yes"])?);
    eventually(Duration::from_secs(20), "no container on any worker", || {
        for worker in &lab.workers {
            match worker.containerd.containers() {
                Ok(containers) if containers.is_empty() => {}
                Ok(containers) => return Err(format!("{}: {}", worker.name, containers.join(", "))),
                Err(error) => return Err(format!("{error:#}")),
            }
        }
        Ok(())
    })?;
    tour.say("containerd of each worker: no container");
    Ok(())
}
