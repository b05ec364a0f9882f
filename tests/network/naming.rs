//! From a packet to an unknown ServiceIP to an entry in the kernel, and what becomes of it.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, anyhow};
use integration::eventually;
use serde_json::Value;

use crate::bed::{Bed, Container};

const SERVICE_IP: &str = "10.30.109.1";
const ELSEWHERE: &str = "els.bed.srv.bed";

/// A node with a container that may dial.
fn client() -> Result<(Bed, Container)> {
    let bed = Bed::registered()?;
    bed.cluster.schedule(crate::bed::SERVICE, 90);
    // Its own service has another address than the one that is dialled.
    for instance in bed.cluster.knows().services.values_mut().flatten() {
        instance["service_ip"][0]["Address"] = "10.30.50.50".into();
    }
    let container = Container::new("client")?;
    bed.attached(&container, 90)?;
    Ok((bed, container))
}

fn dial(container: &Container) -> Result<()> {
    container.netns.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // What comes back as an ICMP error is not of interest here.
        socket.send_to(b"knock", (SERVICE_IP, 7)).ok();
        Ok(())
    })?
}

/// The number of backends of the service that is dialled; nothing while it is unknown.
fn backends(bed: &Bed) -> Result<Option<usize>> {
    let status = bed.status()?;
    let services = status["services"].as_array().cloned().unwrap_or_default();
    let service = services.into_iter().find(|service| service["address"] == SERVICE_IP);
    Ok(service.and_then(|service| service["backends"].as_array().map(Vec::len)))
}

fn wait_for_backends(bed: &Bed, wanted: Option<usize>) -> Result<()> {
    eventually(Duration::from_secs(10), &format!("{wanted:?} backends"), || {
        let seen = backends(bed)?;
        if seen == wanted { Ok(()) } else { Err(anyhow!("{seen:?}")) }
    })
}

fn by_address(query: &Value) -> bool {
    query["sip"] == SERVICE_IP
}

#[test]
fn a_packet_to_an_unknown_service_is_asked_for_once_and_published() -> Result<()> {
    let (bed, container) = client()?;
    bed.cluster.deploy_elsewhere(ELSEWHERE, 1, "10.18.1.2")?;
    for _ in 0..20 {
        dial(&container)?;
    }
    wait_for_backends(&bed, Some(1))?;
    assert_eq!(bed.cluster.heard("net/tablequery/request", by_address), 1);
    Ok(())
}

#[test]
fn a_change_that_the_cluster_tells_of_is_in_the_table_at_once() -> Result<()> {
    let (bed, container) = client()?;
    bed.cluster.deploy_elsewhere(ELSEWHERE, 1, "10.18.1.2")?;
    dial(&container)?;
    wait_for_backends(&bed, Some(1))?;
    bed.cluster.wait_to_hear("net/tablequery/request", 0, |query| query["sname"] == ELSEWHERE)?;
    bed.cluster.deploy_elsewhere(ELSEWHERE, 2, "10.18.1.3")?;
    wait_for_backends(&bed, Some(2))
}

#[test]
fn who_dials_too_early_gets_through_once_an_instance_runs() -> Result<()> {
    let (bed, container) = client()?;
    dial(&container)?;
    wait_for_backends(&bed, Some(0))?;
    // Nobody tells of the first instance: the service was not known, so there was nothing to subscribe to.
    bed.cluster.knows().services.clear();
    bed.cluster.deploy_elsewhere(ELSEWHERE, 1, "10.18.1.2")?;
    eventually(Duration::from_secs(6), "the service to be found", || {
        dial(&container)?;
        let seen = backends(&bed)?;
        if seen == Some(1) { Ok(()) } else { Err(anyhow!("{seen:?}")) }
    })
}

#[test]
fn services_stay_published_over_a_crash_and_are_brought_up_to_date() -> Result<()> {
    let (mut bed, container) = client()?;
    bed.cluster.deploy_elsewhere(ELSEWHERE, 1, "10.18.1.2")?;
    dial(&container)?;
    wait_for_backends(&bed, Some(1))?;
    bed.netmanager.kill()?;
    assert_eq!(backends(&bed)?, Some(1), "the kernel goes on");
    bed.cluster.deploy_elsewhere(ELSEWHERE, 2, "10.18.1.3")?;
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    assert!(backends(&bed)? >= Some(1), "a gap over the restart");
    wait_for_backends(&bed, Some(2))
}
