//! The others come late, go away and come back.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::eventually;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::bed::{Bed, PATIENCE, SERVICE};

#[test]
fn a_containerd_that_is_away_takes_nothing_with_it() -> Result<()> {
    let mut bed = Bed::start(10)?;
    for number in [0, 1] {
        bed.deploy(number, json!({}))?;
        bed.wait_for(number, "CREATED")?;
    }
    let (first, second) = (bed.task(0)?.pid, bed.task(1)?.pid);
    bed.containerd.daemon.kill()?;
    bed.cluster.clear();

    bed.deploy(2, json!({}))?;
    let reason = bed.wait_for(2, "FAILED")?;
    let socket = bed.containerd.socket().display().to_string();
    assert!(reason.contains("containerd does not answer") && reason.contains(&socket), "{reason}");
    eventually(PATIENCE, "the running instances in the report", || {
        let named = [0, 1].map(|number| bed.cluster.resources(number).is_some());
        if named == [true, true] { Ok(()) } else { Err(named) }
    })?;
    assert!(bed.cluster.last_report(SERVICE, 0).is_none());

    // One ends meanwhile: nobody is told, and it is found out all the same. It has lived long enough by then not to be
    // taken for one that never came up.
    std::thread::sleep(Duration::from_secs(2));
    integration::process::signal(second, Signal::SIGKILL)?;
    bed.containerd.daemon.start_again()?;
    bed.containerd.wait_until_ready()?;
    bed.wait_for(1, "DEAD")?;
    assert!(bed.cluster.last_report(SERVICE, 0).is_none());
    assert_eq!(bed.task(0)?.pid, first);
    bed.delete(0)?;
    bed.wait_for(0, "UNDEPLOYED")?;
    bed.wait_until_empty()
}

#[test]
fn a_delete_is_kept_until_containerd_can_do_it() -> Result<()> {
    let mut bed = Bed::start(10)?;
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    bed.containerd.daemon.kill()?;
    bed.delete(0)?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(bed.cluster.last_report(SERVICE, 0).is_some_and(|report| report["status"] == "CREATED"));
    bed.containerd.daemon.start_again()?;
    bed.containerd.wait_until_ready()?;
    bed.wait_for(0, "UNDEPLOYED")?;
    bed.wait_until_empty()
}

#[test]
fn a_netmanager_that_is_away_fails_starts_but_not_stops() -> Result<()> {
    let mut bed = Bed::start(10)?;
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    bed.netmanager.close();
    bed.deploy(1, json!({}))?;
    let reason = bed.wait_for(1, "FAILED")?;
    assert!(
        reason.contains("netmanager cannot be reached") && reason.contains("netmanager.sock"),
        "{reason}"
    );
    bed.delete(0)?;
    bed.wait_for(0, "UNDEPLOYED")?;
    bed.netmanager.open()?;
    eventually(PATIENCE, "the instance to be taken off the overlay", || {
        let requests = bed.netmanager.requests("/container/undeploy");
        if requests.is_empty() { Err(requests.len()) } else { Ok(()) }
    })?;
    bed.wait_until_empty()
}

#[test]
fn the_worker_says_who_it_is_and_says_it_again_when_it_was_forgotten() -> Result<()> {
    let mut bed = Bed::start(10)?;
    let handshake = bed.cluster.handshakes().remove(0);
    ensure!(handshake["host"] == bed.hostname.as_str(), "{handshake}");
    ensure!(handshake["virtualization"] == json!(["docker"]), "{handshake}");
    eventually(PATIENCE, "netmanager to be told", || {
        let requests = bed.netmanager.requests("/register");
        let told = requests.iter().any(|request| request.body["client_id"] == "6b033dc62c1f07cbdcd88440");
        if told { Ok(()) } else { Err(requests.len()) }
    })?;
    eventually(PATIENCE, "a report of the worker", || match bed.cluster.latest("information") {
        Some(report) if report["memory"].as_u64() > Some(0) => Ok(()),
        other => Err(other),
    })?;

    let again = |bed: &Bed, count: usize| {
        eventually(PATIENCE, &format!("handshake number {count}"), || match bed.cluster.handshakes().len() {
            many if many >= count => Ok(()),
            few => Err(few),
        })
    };
    bed.cluster.say("control/error", r#"{"message":"unknown node"}"#)?;
    again(&bed, 2)?;
    bed.cluster.broker.kill()?;
    bed.cluster.broker.start_again()?;
    again(&bed, 3)?;
    bed.wait_until_joined()?;
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    Ok(())
}

#[test]
fn what_happens_while_the_cluster_is_away_is_reported_when_it_is_back() -> Result<()> {
    let mut bed = Bed::start(10)?;
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    let pid = bed.task(0)?.pid;
    bed.cluster.close_api();
    bed.cluster.broker.kill()?;
    integration::process::signal(pid, Signal::SIGKILL)?;
    eventually(PATIENCE, "the container to be removed", || match bed.containerd.containers() {
        Ok(containers) if containers.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    // The broker alone is enough: the worker knows who it is.
    bed.cluster.broker.start_again()?;
    let status = bed.wait_for(0, "DEAD").or_else(|_| bed.wait_for(0, "FAILED"))?;
    ensure!(status.contains("SIGKILL"), "{status}");
    bed.cluster.open_api()
}
