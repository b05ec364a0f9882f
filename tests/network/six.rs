//! IPv6 of containers: what `ip` and `ping` say of it, and of containers and nodes that have none.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bed::{Bed, Container, ip_json};

/// Attaches a container and gives its IPv6 address as the answer has it.
fn attached(bed: &Bed, container: &Container, number: u8) -> Result<String> {
    let (status, body) = bed.attach(container, number, "")?;
    ensure!(status == 200, "attach: {status} {body}");
    let body: Value = serde_json::from_str(&body).with_context(|| format!("read {body}"))?;
    Ok(body["nsAddressv6"].as_str().context("nsAddressv6")?.to_owned())
}

fn ping(from: &Container, to: &str) -> Result<()> {
    from.netns.output("ping", &["-6", "-c", "1", "-W", "2", to]).map(drop)
}

/// The addresses of a link, without those of other families.
fn addresses(shown: &[Value]) -> Vec<(String, u64)> {
    let infos = shown.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
    infos
        .map(|info| {
            (info["local"].as_str().unwrap_or("").to_owned(), info["prefixlen"].as_u64().unwrap_or(0))
        })
        .collect()
}

#[test]
fn an_attached_container_has_its_ipv6_address_route_and_neighbour() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    assert_eq!(attached(&bed, &container, 0)?, "fc00::102");

    let shown = ip_json(&container.netns, &["-6", "addr", "show", "eth0"])?;
    assert_eq!(addresses(&shown), [("fc00::102".to_owned(), 128)], "and none of the link's own");
    assert_eq!(shown[0]["addr_info"][0]["nodad"], true, "{shown:?}");
    assert!(shown[0]["addr_info"][0].get("tentative").is_none(), "{shown:?}");
    let routes = ip_json(&container.netns, &["-6", "route"])?;
    let default = routes.iter().find(|route| route["dst"] == "default").context("a default route")?;
    assert_eq!((&default["gateway"], &default["dev"]), (&"fc00::101".into(), &"eth0".into()));
    let neighbours = ip_json(&container.netns, &["-6", "neigh"])?;
    assert_eq!(neighbours[0]["dst"], "fc00::101");
    assert_eq!(neighbours[0]["state"][0], "PERMANENT");

    let link = bed.links()?.pop().context("a link")?;
    let shown = ip_json(&bed.node, &["-6", "addr", "show", &link])?;
    assert_eq!(addresses(&shown), [("fc00::101".to_owned(), 128)]);
    let routes = ip_json(&bed.node, &["-6", "route", "show", "fc00::102"])?;
    assert_eq!(routes[0]["dev"], link.as_str(), "{routes:?}");

    ping(&container, "fc00::101")?;
    bed.node.output("ping", &["-6", "-c", "1", "-W", "2", "fc00::102"])?;
    let status = bed.status()?;
    assert_eq!(status["endpoints"][0]["ns_ip6"], "fc00::102");
    assert_eq!(status["drops"], json!([]));

    // Once more is the same; and when it goes, so does all of it.
    assert_eq!(attached(&bed, &container, 0)?, "fc00::102");
    bed.detach(0)?;
    assert_eq!(ip_json(&bed.node, &["-6", "route", "show", "fc00::102"])?, Vec::<Value>::new());
    Ok(())
}

#[test]
fn containers_of_a_node_reach_each_other_by_ipv6_also_after_a_crash_of_netmanager() -> Result<()> {
    let mut bed = Bed::registered()?;
    let (first, second) = (Container::new("first")?, Container::new("second")?);
    let address = attached(&bed, &first, 0)?;
    attached(&bed, &second, 1)?;
    ping(&second, &address)?;
    bed.netmanager.kill()?;
    ping(&second, &address)?;
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    ping(&second, &address)?;
    assert_eq!(bed.status()?["endpoints"][0]["ns_ip6"], address);
    Ok(())
}

#[test]
fn a_container_without_ipv6_has_ipv4_only_and_that_is_said_once() -> Result<()> {
    let bed = Bed::registered()?;
    let containers = [Container::new("first")?, Container::new("second")?];
    for (number, container) in (0..).zip(&containers) {
        container.netns.output("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"])?;
        assert_eq!(attached(&bed, container, number)?, "");
        container.netns.output("ping", &["-c", "1", "-W", "2", "10.18.0.65"])?;
    }
    assert_eq!(bed.log()?.matches("has IPv4 only").count(), 1, "{}", bed.log()?);
    // Oakestra's workers want an address that can be parsed; this one is no container's.
    let mapped = |payload: &Value| payload["nsipv6"] == "::ffff:10.18.0.66";
    assert_eq!(bed.cluster.heard("net/service/deployed", mapped), 1, "{:?}", bed.cluster.knows().heard);
    Ok(())
}

#[test]
fn containers_reach_each_other_by_ipv6_on_a_node_that_has_it_disabled() -> Result<()> {
    let bed = Bed::registered()?;
    bed.node.output("sysctl", &["-qw", "net.ipv6.conf.default.disable_ipv6=1"])?;
    let (first, second) = (Container::new("first")?, Container::new("second")?);
    let address = attached(&bed, &first, 0)?;
    assert_eq!(address, "fc00::102");
    attached(&bed, &second, 1)?;
    ping(&second, &address)
}

#[test]
fn a_container_whose_link_is_too_small_for_ipv6_has_ipv4_only() -> Result<()> {
    let bed = Bed::start_with(&crate::bed::config(), 1300)?;
    bed.register(crate::bed::NODE)?;
    let container = Container::new("ctr")?;
    assert_eq!(attached(&bed, &container, 0)?, "");
    container.netns.output("ping", &["-c", "1", "-W", "2", "10.18.0.65"])?;
    Ok(())
}

#[test]
fn a_node_with_an_ipv6_public_address_is_reached_by_ipv6() -> Result<()> {
    let mut config = crate::bed::config();
    config["NodePublicAddress"] = json!(crate::bed::NODE_ADDRESS6);
    let bed = Bed::start_with(&config, 1500)?;
    bed.register(crate::bed::NODE)?;
    let container = Container::new("ctr")?;
    attached(&bed, &container, 0)?;
    let announced = |payload: &Value| payload["host_ip"] == "2001:db8::31";
    assert_eq!(bed.cluster.heard("net/service/deployed", announced), 1, "{:?}", bed.cluster.knows().heard);
    let status = bed.status()?;
    assert_eq!(status["uplink"]["address"], "2001:db8::31");
    assert_eq!(status["daemon"]["tunnel"], "[2001:db8::31]:50103");
    assert!(!bed.log()?.contains("needs a NAT"), "{}", bed.log()?);
    Ok(())
}

#[test]
fn a_node_without_ipv4_default_route_finds_its_uplink_by_ipv6() -> Result<()> {
    let mut bed = Bed::registered()?;
    bed.netmanager.terminate()?;
    bed.node.ip("-4 addr flush dev up0")?;
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    assert_eq!(bed.status()?["uplink"]["address"], "2001:db8::31");
    Ok(())
}
