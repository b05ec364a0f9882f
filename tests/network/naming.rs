//! From a packet to an unknown ServiceIP to an entry in the kernel, and what becomes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use integration::eventually;
use serde_json::{Value, json};

use crate::bed::{Bed, Container, SERVICE};

const SERVICE_IP: &str = "10.30.109.1";
const SERVICE_IP6: &str = "fdff:2000::1";
const CLOSEST_IP6: &str = "fdff:1000::1";
const ELSEWHERE: &str = "els.bed.srv.bed";

/// A node with a container that may dial.
fn client() -> Result<(Bed, Container)> {
    let bed = Bed::registered()?;
    bed.cluster.schedule(SERVICE, 90);
    // Its own service has another address than the one that is dialled.
    for instance in bed.cluster.knows().services.values_mut().flatten() {
        instance["service_ip"] = json!([{"IpType": "RR", "Address": "10.30.50.50"}]);
    }
    let container = Container::new("client")?;
    bed.attached(&container, 90)?;
    Ok((bed, container))
}

fn dial(container: &Container) -> Result<()> {
    dial_at(container, SERVICE_IP)
}

fn dial_at(container: &Container, address: &str) -> Result<()> {
    let address: IpAddr = address.parse()?;
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    container.netns.run(|| {
        let socket = UdpSocket::bind((any, 0))?;
        // What comes back as an ICMP error is not of interest here.
        socket.send_to(b"knock", (address, 7)).ok();
        Ok(())
    })?
}

/// The number of backends of the service that is dialled; nothing while it is unknown.
fn backends(bed: &Bed) -> Result<Option<usize>> {
    backends_of(bed, SERVICE_IP)
}

fn service(bed: &Bed, address: &str) -> Result<Option<Value>> {
    let status = bed.status()?;
    let services = status["services"].as_array().cloned().unwrap_or_default();
    Ok(services.into_iter().find(|service| service["address"] == address))
}

fn backends_of(bed: &Bed, address: &str) -> Result<Option<usize>> {
    Ok(service(bed, address)?.and_then(|service| service["backends"].as_array().map(Vec::len)))
}

fn wait_for_backends(bed: &Bed, wanted: Option<usize>) -> Result<()> {
    wait_for_backends_of(bed, SERVICE_IP, wanted)
}

fn wait_for_backends_of(bed: &Bed, address: &str, wanted: Option<usize>) -> Result<()> {
    eventually(Duration::from_secs(10), &format!("{wanted:?} backends of {address}"), || {
        let seen = backends_of(bed, address)?;
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
fn a_packet_to_an_unknown_ipv6_service_is_asked_for_by_that_address() -> Result<()> {
    let (bed, container) = client()?;
    bed.cluster.deploy_elsewhere(ELSEWHERE, 1, "10.18.1.2")?;
    dial_at(&container, SERVICE_IP6)?;
    wait_for_backends_of(&bed, SERVICE_IP6, Some(1))?;
    let asked = |query: &Value| query["sip"] == SERVICE_IP6 && query["sname"] == "";
    assert_eq!(bed.cluster.heard("net/tablequery/request", asked), 1);
    // One answer is for all addresses of the service.
    for (address, policy) in [
        (SERVICE_IP, "round robin"),
        (SERVICE_IP6, "round robin"),
        (CLOSEST_IP6, "closest"),
        ("10.30.0.1", "instance"),
        ("fdff::1", "instance"),
    ] {
        let service = service(&bed, address)?.with_context(|| format!("{address} is not known"))?;
        assert_eq!((&service["policy"], &service["service"]), (&policy.into(), &ELSEWHERE.into()));
        assert_eq!(service["backends"].as_array().map(Vec::len), Some(1), "{address}");
    }
    assert_eq!(bed.cluster.heard("net/tablequery/request", by_address), 0);
    Ok(())
}

#[test]
fn of_a_closest_address_the_instance_here_comes_first() -> Result<()> {
    let bed = Bed::registered()?;
    bed.cluster.deploy_elsewhere(SERVICE, 1, "10.18.1.2")?;
    bed.cluster.deploy_elsewhere(SERVICE, 2, "10.18.1.3")?;
    let container = Container::new("here")?;
    bed.attached(&container, 3)?;
    for address in ["10.30.110.1", CLOSEST_IP6] {
        wait_for_backends_of(&bed, address, Some(3))?;
        let service = service(&bed, address)?.context("it has gone")?;
        let here: Vec<_> =
            service["backends"].as_array().into_iter().flatten().map(|it| it["here"].clone()).collect();
        assert_eq!(here, [true, false, false], "{address}");
    }
    let status = bed.status()?;
    assert_eq!(status["endpoints"][0]["instance_ip6"], "fdff::3");
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
