//! What outlives the daemon, and what it makes of what it finds.

use std::time::Duration;

use anyhow::{Result, anyhow};
use integration::{eventually, process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, Container, NODE, SERVICE, ip_json};

/// The node as tools that are not ours see it, but for the slow path's device, which is the daemon's own.
fn seen(bed: &Bed) -> Result<(Vec<Value>, Vec<Value>, String)> {
    let rules = bed.node.output("nft", &["list", "table", "ip", "hypha"])?;
    let mut links = ip_json(&bed.node, &["link"])?;
    links.retain(|link| link["ifname"] != "tap-hypha");
    Ok((links, ip_json(&bed.node, &["-4", "route"])?, rules))
}

fn wait_until_up(bed: &Bed) -> Result<()> {
    eventually(Duration::from_secs(15), "the session to be up", || {
        let session = bed.status()?["daemon"]["session"]["state"].clone();
        if session == "up" { Ok(()) } else { Err(anyhow!("{session}")) }
    })
}

#[test]
fn a_killed_daemon_finds_everything_as_it_was_and_needs_no_registration() -> Result<()> {
    let mut bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    let address = bed.attached(&container, 0)?;
    let before = seen(&bed)?;
    let said = bed.cluster.heard("net/subnet", |_| true);

    bed.netmanager.kill()?;
    assert_eq!(seen(&bed)?, before, "what is in the kernel outlives the daemon");
    container.netns.output("ping", &["-c", "1", "-W", "2", "192.0.2.20"])?;

    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    wait_until_up(&bed)?;
    assert_eq!(seen(&bed)?, before);
    let status = bed.status()?;
    assert_eq!(status["node"], NODE);
    assert_eq!(status["endpoints"][0]["ns_ip"], json!(address));
    assert_eq!(status["endpoints"][0]["instance_ip"], "10.30.0.0");
    assert_eq!(bed.cluster.heard("net/subnet", |_| true), said, "the block is kept, not asked for again");
    // The cluster may have forgotten it meanwhile, so it is told once more, and asked.
    bed.cluster.wait_to_hear("net/service/deployed", 1, |payload| payload["instance_number"] == 0)?;
    bed.cluster.wait_to_hear("net/tablequery/request", 1, |payload| payload["sname"] == SERVICE)?;

    // New containers go on where the old ones ended.
    let next = Container::new("next")?;
    assert_eq!(bed.attached(&next, 1)?.to_string(), "10.18.0.67");
    Ok(())
}

#[test]
fn a_kill_at_any_moment_leaves_what_a_restart_puts_right() -> Result<()> {
    let mut bed = Bed::registered()?;
    let containers = (0..6).map(|_| Container::new("ctr")).collect::<Result<Vec<_>>>()?;
    for delay in [3, 11, 24, 42, 65, 93] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (number, container) in (0..).zip(&containers) {
                    // Most of these are broken off by the kill.
                    bed.attach(container, number, "").ok();
                    if number % 2 == 1 {
                        bed.detach(number - 1).ok();
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(delay));
            process::signal(bed.netmanager.pid(), Signal::SIGKILL)
        })?;
        bed.netmanager.kill()?;
        bed.netmanager.start_again()?;
        bed.wait_until_ready()?;
        let status = bed.status()?;
        let endpoints = status["endpoints"].as_array().cloned().unwrap_or_default();
        let mut of_daemon: Vec<_> = endpoints.iter().filter_map(|it| it["link"].as_str()).collect();
        let mut of_kernel = bed.links()?;
        of_daemon.sort_unstable();
        of_kernel.sort_unstable();
        assert_eq!(of_kernel, of_daemon, "killed after {delay} ms");
        for (number, container) in (0..).zip(&containers) {
            bed.attached(container, number)?;
        }
    }
    Ok(())
}

#[test]
fn a_clean_stop_leaves_containers_connected() -> Result<()> {
    let mut bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    let before = seen(&bed)?;
    assert!(bed.netmanager.terminate()?.success());
    assert_eq!(seen(&bed)?, before);
    assert!(!bed.places.socket().exists());
    container.netns.output("ping", &["-c", "1", "-W", "2", "192.0.2.20"])?;
    let status = bed.status()?;
    assert_eq!((&status["daemon"], status["endpoints"].as_array().map(Vec::len)), (&Value::Null, Some(1)));
    Ok(())
}

#[test]
fn a_container_that_ended_meanwhile_is_cleared_away_and_reported() -> Result<()> {
    let mut bed = Bed::registered()?;
    let (gone, stays) = (Container::new("gone")?, Container::new("stays")?);
    bed.attached(&gone, 0)?;
    bed.attached(&stays, 1)?;
    bed.netmanager.kill()?;
    drop(gone);
    // A link of ours that no container belongs to: a crash between two steps leaves such.
    bed.node.ip("link add hy0123456789ab type veth peer name lost0")?;
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    assert_eq!(bed.links()?.len(), 1);
    let status = bed.status()?;
    assert_eq!(status["endpoints"].as_array().map(Vec::len), Some(1));
    assert_eq!(status["endpoints"][0]["instance"]["number"], 1);
    bed.cluster.wait_to_hear("net/service/undeployed", 0, |payload| payload["instance_number"] == 0)?;
    Ok(())
}

#[test]
fn a_lost_broker_is_found_again_and_asked_for_everything() -> Result<()> {
    let mut bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    bed.cluster.broker.kill()?;
    eventually(Duration::from_secs(15), "the session to be down", || {
        let session = bed.status()?["daemon"]["session"].clone();
        if session["state"] == "down" { Ok(()) } else { Err(anyhow!("{session}")) }
    })?;
    // Containers come and go without the cluster.
    let other = Container::new("other")?;
    bed.attached(&other, 1)?;
    bed.detach(0)?;

    bed.cluster.broker.start_again()?;
    wait_until_up(&bed)?;
    bed.cluster.wait_to_hear("net/service/deployed", 0, |payload| payload["instance_number"] == 1)?;
    bed.cluster.wait_to_hear("net/service/undeployed", 0, |payload| payload["instance_number"] == 0)?;
    Ok(())
}

#[test]
fn a_damaged_state_is_said_and_not_overwritten() -> Result<()> {
    let mut bed = Bed::registered()?;
    bed.netmanager.terminate()?;
    let file = bed.places.state().join("node.json");
    std::fs::write(&file, "{")?;
    let (status, said) = bed.netmanager.start_second()?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("node.json") && said.contains("cleanup"), "{said}");
    assert_eq!(std::fs::read_to_string(&file)?, "{");
    Ok(())
}

#[test]
fn a_node_that_gets_another_address_says_so_and_is_reached_there() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;

    bed.node.ip("addr flush dev up0 scope global")?;
    bed.node.ip("addr add 192.0.2.33/24 dev up0")?;
    bed.node.ip(&format!("route replace default via {}", integration::cluster::ADDRESS))?;

    eventually(Duration::from_secs(30), "the cluster to hear the new address", || {
        let heard = bed.cluster.heard("net/service/deployed", |payload| payload["host_ip"] == "192.0.2.33");
        if heard > 0 { Ok(()) } else { Err(anyhow!("not heard")) }
    })?;
    assert_eq!(bed.status()?["uplink"]["address"], "192.0.2.33");
    Ok(())
}
