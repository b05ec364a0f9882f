//! Daemons are killed and come back: nothing that runs notices, nothing that was asked is lost.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::application::Application;
use integration::daemon::Daemon;
use integration::download::Download;
use integration::{Lab, eventually, image};

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] = &[
    (
        "a_connection_survives_kill_9_of_the_clients_netmanager",
        a_connection_survives_kill_9_of_the_clients_netmanager,
    ),
    (
        "a_connection_survives_kill_9_of_the_servers_netmanager",
        a_connection_survives_kill_9_of_the_servers_netmanager,
    ),
    (
        "a_clean_stop_of_netmanager_leaves_containers_connected",
        a_clean_stop_of_netmanager_leaves_containers_connected,
    ),
    ("a_restart_of_node_engine_loses_nothing", |lab| nothing_is_lost(lab, "engine", restart_node_engines)),
    ("a_restart_of_the_cluster_loses_nothing", |lab| nothing_is_lost(lab, "cluster", restart_cluster)),
    ("a_restart_of_the_root_loses_nothing", |lab| nothing_is_lost(lab, "root", restart_root)),
];

fn a_connection_survives_kill_9_of_the_clients_netmanager(lab: &mut Lab) -> Result<()> {
    a_connection_survives(lab, "killc", |client, _| client, Daemon::kill)
}

fn a_connection_survives_kill_9_of_the_servers_netmanager(lab: &mut Lab) -> Result<()> {
    a_connection_survives(lab, "kills", |_, server| server, Daemon::kill)
}

fn a_clean_stop_of_netmanager_leaves_containers_connected(lab: &mut Lab) -> Result<()> {
    a_connection_survives(
        lab,
        "stop",
        |client, _| client,
        |netmanager| {
            let status = netmanager.terminate()?;
            ensure!(status.success(), "netmanager ended with {status}");
            Ok(())
        },
    )
}

fn a_connection_survives(
    lab: &mut Lab,
    name: &str,
    which: fn(usize, usize) -> usize,
    end: fn(&mut Daemon) -> Result<()>,
) -> Result<()> {
    let application = Application::deploy(lab, name, 3)?;
    let system = application.system(lab, 3)?;
    let server = system.remote_server()?;
    let url = format!("http://{}{}", server.instance_ip, image::STREAM_PATH);
    let download = Download::start(&system.client.container, &url)?;
    let grows = |download: &Download| {
        let from = download.bytes();
        eventually(Duration::from_secs(5), "the download to go on", || {
            let bytes = download.bytes();
            if bytes > from + 100_000 { Ok(()) } else { Err(bytes) }
        })
    };
    grows(&download)?;
    let worker = &mut lab.workers[which(system.client.worker, server.worker)];
    end(&mut worker.netmanager)?;
    grows(&download).context("while netmanager is dead")?;
    worker.netmanager.start_again()?;
    worker.wait_for_netmanager()?;
    grows(&download).context("after netmanager is back")?;
    let content = download.finish()?;
    ensure!(content == image::stream(), "{} bytes came, and not the right ones", content.len());
    // The one that came back works: it learns of new instances, and connects them.
    application.scale(lab, 5)?;
    application.system(lab, 5)?.wait_for_all_answers()?;
    application.remove(lab)
}

/// Deploys, restarts something, and sees the same containers with the same addresses, and a system that takes orders.
fn nothing_is_lost(lab: &mut Lab, name: &str, restart: fn(&mut Lab) -> Result<()>) -> Result<()> {
    let application = Application::deploy(lab, name, 3)?;
    let system = application.system(lab, 3)?;
    system.wait_for_all_answers()?;
    let before = (started(lab, &application)?, system.addresses());
    restart(lab)?;
    system.wait_for_all_answers().context("right after the restart")?;
    application.scale(lab, 4)?;
    application.system(lab, 4)?.wait_for_all_answers().context("with a fourth instance")?;
    application.scale(lab, 3)?;
    let system = application.system(lab, 3)?;
    let after = (started(lab, &application)?, system.addresses());
    ensure!(before == after, "before {before:?}\nafter  {after:?}");
    application.remove(lab)
}

/// Each container with its process and that process's start time.
fn started(lab: &Lab, application: &Application) -> Result<BTreeMap<String, (u32, String)>> {
    let mut started = BTreeMap::new();
    for service in ["web", "client"] {
        for (_, container) in lab.containers_of(&application.service(service))? {
            let stat =
                fs::read_to_string(format!("/proc/{}/stat", container.pid)).context("read a start time")?;
            let (_, fields) = stat.rsplit_once(')').context("the end of a process's name")?;
            let start = fields.split_whitespace().nth(19).context("a start time")?.to_owned();
            started.insert(container.id, (container.pid, start));
        }
    }
    Ok(started)
}

fn restart_node_engines(lab: &mut Lab) -> Result<()> {
    for worker in &mut lab.workers {
        worker.node_engine.kill()?;
    }
    for worker in &mut lab.workers {
        worker.node_engine.start_again()?;
    }
    lab.wait_until_joined()
}

fn restart_cluster(lab: &mut Lab) -> Result<()> {
    let cluster = lab.control.cluster.as_mut().context("a cluster of its own")?;
    cluster.kill()?;
    cluster.start_again()?;
    lab.control.wait_for_ports()?;
    lab.wait_until_joined()
}

fn restart_root(lab: &mut Lab) -> Result<()> {
    lab.control.root.kill()?;
    lab.control.root.start_again()?;
    lab.control.wait_for_ports()?;
    lab.wait_until_joined()
}
