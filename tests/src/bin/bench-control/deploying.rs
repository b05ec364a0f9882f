//! Deploying one instance and taking it back, and many at once.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::api::Api;
use integration::application::Application;
use integration::{Lab, Netns, interrupt, process};
use serde_json::{Value, json};

use crate::figure::{Figures, What};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks, and between two tries of the client.
const PAUSE: Duration = Duration::from_millis(3);

/// Leaves the service with one instance.
pub(crate) fn rounds(lab: &Lab, application: &Application, rounds: u32, figures: &mut Figures) -> Result<()> {
    let api = lab.control.admin()?;
    let service = service_id(&api, &application.service("web"))?;
    let system = application.system(lab, 1)?;
    for _ in 0..rounds {
        interrupt::check()?;
        application.scale(lab, 0)?;
        let (client, address) = (&system.client.container.netns, system.service_ip);
        thread::scope(|scope| -> Result<()> {
            let begun = Instant::now();
            let answered = scope.spawn(move || first_answer(client, address));
            // It tries, and is refused, before there is anything.
            thread::sleep(Duration::from_millis(200));
            let asked = Instant::now();
            ensure!(!answered.is_finished(), "somebody answers for a service without instances");
            deploy(&api, &service)?;
            until_running(&api, &service, 1)?;
            figures.add(What::Running, milliseconds(asked.elapsed()));
            let first = answered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            figures.add(What::FirstAnswer, milliseconds(first.saturating_sub(asked - begun)));
            Ok(())
        })?;
        let system = application.system(lab, 1)?;
        let pid = system.instances[0].container.pid;
        let number =
            instances(&api.get(&format!("/api/service/{service}"))?.ok()?)[0]["instance_number"].clone();
        let asked = Instant::now();
        api.delete(&format!("/api/service/{service}/instance/{number}"))?.ok()?;
        poll("the end of the container", || Ok(!process::is_alive(pid)))?;
        figures.add(What::Gone, milliseconds(asked.elapsed()));
    }
    application.scale(lab, 1)
}

/// Leaves the service with one instance.
pub(crate) fn burst(lab: &Lab, application: &Application, count: u32, figures: &mut Figures) -> Result<()> {
    let api = lab.control.admin()?;
    let service = service_id(&api, &application.service("web"))?;
    application.scale(lab, 0)?;
    let asked = Instant::now();
    for _ in 0..count {
        deploy(&api, &service)?;
    }
    until_running(&api, &service, count as usize)?;
    figures.add(What::Burst, asked.elapsed().as_secs_f64());
    application.scale(lab, 1)
}

/// Waits until the service has so many running instances.
pub(crate) fn until_there_are(lab: &Lab, application: &Application, count: usize) -> Result<()> {
    let api = lab.control.admin()?;
    let service = service_id(&api, &application.service("web"))?;
    until_running(&api, &service, count)
}

fn service_id(api: &Api, name: &str) -> Result<String> {
    let services = api.get("/api/services/")?.ok()?;
    let service = services.as_array().into_iter().flatten().find(|service| service["job_name"] == name);
    let id = service.and_then(|service| service["microserviceID"].as_str());
    Ok(id.with_context(|| format!("the id of {name} in {services}"))?.to_owned())
}

fn deploy(api: &Api, service: &str) -> Result<()> {
    api.post(&format!("/api/service/{service}/instance"), &json!({}))?.ok().map(drop)
}

fn instances(service: &Value) -> Vec<Value> {
    service["instance_list"].as_array().cloned().unwrap_or_default()
}

fn until_running(api: &Api, service: &str, count: usize) -> Result<()> {
    poll(&format!("{count} instances RUNNING"), || {
        let service = api.get(&format!("/api/service/{service}"))?.ok()?;
        let running = |instance: &&Value| instance["status"] == "RUNNING";
        Ok(instances(&service).iter().filter(running).count() == count)
    })
}

/// Looks more often than `integration::eventually`.
fn poll(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        interrupt::check()?;
        ensure!(start.elapsed() < PATIENCE, "waited {} s for {what}", PATIENCE.as_secs());
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// How long it takes from now until a page is served.
fn first_answer(client: &Netns, address: Ipv4Addr) -> Result<Duration> {
    let target = SocketAddr::from((address, 80));
    let start = Instant::now();
    client.run(|| {
        let fetch = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        loop {
            match fetch() {
                Ok(answer) if answer.contains(" answers ") => return Ok(start.elapsed()),
                other => ensure!(start.elapsed() < PATIENCE, "no answer of {target}, at last {other:?}"),
            }
            thread::sleep(PAUSE);
        }
    })?
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
