//! What others do to the node behind netmanager's back, and how it comes right again while netmanager runs.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use integration::eventually;
use serde_json::Value;

use crate::bed::{Bed, Container, ip_json};

const SOON: Duration = Duration::from_secs(30);

/// A registered node with one container.
fn connected() -> Result<(Bed, Container)> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    Ok((bed, container))
}

fn wait_until_the_world_is_reached(container: &Container) -> Result<()> {
    eventually(SOON, "the container to reach the world", || {
        container.netns.output("ping", &["-c", "1", "-W", "1", "192.0.2.20"]).map(drop)
    })
}

#[test]
fn a_container_that_ends_unannounced_is_cleared_away_and_reported() -> Result<()> {
    let (bed, container) = connected()?;
    drop(container);
    bed.cluster.wait_to_hear("net/service/undeployed", 0, |payload| payload["instance_number"] == 0)?;
    assert_eq!(bed.status()?["endpoints"].as_array().map(Vec::len), Some(0));
    assert_eq!(bed.links()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_link_that_was_removed_is_made_again_with_its_address() -> Result<()> {
    let (bed, container) = connected()?;
    let (links, before) = (bed.links()?, bed.status()?["endpoints"][0]["ns_ip"].clone());
    bed.node.ip(&format!("link delete {}", links[0]))?;
    wait_until_the_world_is_reached(&container)?;
    assert_eq!(bed.links()?, links);
    assert_eq!(bed.status()?["endpoints"][0]["ns_ip"], before);
    Ok(())
}

#[test]
fn a_link_that_was_renamed_gets_its_name_back() -> Result<()> {
    let (bed, container) = connected()?;
    let links = bed.links()?;
    bed.node.ip(&format!("link set {} down", links[0]))?;
    bed.node.ip(&format!("link set {} name other7", links[0]))?;
    bed.node.ip("link set other7 up")?;
    eventually(SOON, "the old name", || {
        let now = bed.links()?;
        if now == links { Ok(()) } else { Err(anyhow!("{now:?}")) }
    })?;
    wait_until_the_world_is_reached(&container)
}

#[test]
fn containers_follow_the_mtu_of_the_uplink() -> Result<()> {
    let (bed, container) = connected()?;
    bed.node.ip("link set up0 mtu 1400")?;
    eventually(SOON, "the container's MTU to be 1372", || {
        let links = ip_json(&container.netns, &["link", "show", "dev", "eth0"])?;
        let mtu: &Value = &links[0]["mtu"];
        if *mtu == 1372 { Ok(()) } else { Err(anyhow!("{mtu}")) }
    })
}

#[test]
fn pins_that_were_removed_are_there_again_and_programs_attached() -> Result<()> {
    let (bed, container) = connected()?;
    std::fs::remove_dir_all(&bed.places.pins)?;
    eventually(SOON, "the data plane to be repaired", || {
        let log = bed.log()?;
        ensure!(log.contains("the tables had lost their pins"), "not yet");
        Ok(())
    })?;
    // Status reads the pinned tables.
    assert_eq!(bed.status()?["endpoints"].as_array().map(Vec::len), Some(1));
    wait_until_the_world_is_reached(&container)
}
