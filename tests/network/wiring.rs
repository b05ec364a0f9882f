//! Does Linux agree? What `ip` and `nft` show after containers were connected and disconnected.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use integration::eventually;
use serde_json::{Value, json};

use crate::bed::{Bed, Container, NODE, SERVICE, config, ip_json};

#[test]
fn an_attached_container_has_its_address_route_and_neighbour() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    let address = bed.attached(&container, 0)?;
    assert_eq!(address.to_string(), "10.18.0.66");

    let eth0 = &ip_json(&container.netns, &["addr", "show", "eth0"])?[0];
    assert_eq!(eth0["mtu"], 1450);
    assert_eq!(eth0["operstate"], "UP");
    assert_eq!(eth0["address"], "02:48:0a:12:00:42");
    assert_eq!(
        (&eth0["addr_info"][0]["local"], &eth0["addr_info"][0]["prefixlen"]),
        (&"10.18.0.66".into(), &32.into())
    );
    let routes = ip_json(&container.netns, &["route"])?;
    let default = routes.iter().find(|route| route["dst"] == "default").unwrap();
    assert_eq!(default["gateway"], "10.18.0.65");
    let neighbours = ip_json(&container.netns, &["neigh"])?;
    assert_eq!(neighbours[0]["dst"], "10.18.0.65");
    assert_eq!(neighbours[0]["state"][0], "PERMANENT");

    // Nothing was sent and dropped.
    assert_eq!(bed.status()?["drops"], json!([]));

    let links = bed.links()?;
    assert_eq!(links.len(), 1, "{links:?}");
    let host = &ip_json(&bed.node, &["addr", "show", links[0].as_str()])?[0];
    assert_eq!(host["ifalias"], "smp.bed.srv.bed.instance.0");
    assert_eq!(host["address"], neighbours[0]["lladdr"]);
    assert_eq!(host["mtu"], 1450);
    let routes = ip_json(&bed.node, &["route"])?;
    assert!(routes.iter().any(|route| route["dst"] == "10.18.0.66" && route["dev"] == links[0].as_str()));

    container.netns.output("ping", &["-c", "1", "-W", "2", "10.18.0.65"])?;
    bed.node.output("ping", &["-c", "1", "-W", "2", "10.18.0.66"])?;
    Ok(())
}

#[test]
fn a_container_sends_no_more_at_once_than_the_tunnel_carries_on_this_uplink() -> Result<()> {
    let bed = Bed::start_with(&config(), 1400)?;
    bed.register(NODE)?;
    let container = Container::new("ctr")?;
    let mtus = || -> Result<_> {
        bed.attached(&container, 0)?;
        let node = &ip_json(&bed.node, &["link", "show", bed.links()?[0].as_str()])?[0];
        let inside = &ip_json(&container.netns, &["link", "show", "eth0"])?[0];
        Ok((inside["mtu"].clone(), node["mtu"].clone()))
    };
    assert_eq!(mtus()?, (1372.into(), 1372.into()));
    // Connected by a netmanager that did not look at the uplink.
    container.netns.ip("link set eth0 mtu 1450")?;
    assert_eq!(mtus()?, (1372.into(), 1372.into()));
    Ok(())
}

#[test]
fn the_cluster_hears_of_an_instance_and_its_service_ip_is_learned() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 3)?;
    let deployed = |payload: &Value| {
        payload["appname"] == SERVICE
            && payload["status"] == "DEPLOYED"
            && payload["instance_number"] == 3
            && payload["nsip"] == "10.18.0.66"
            && payload["nsipv6"] == "fc00::102"
            && payload["host_port"] == "50103"
            && payload["host_ip"] == "192.0.2.31"
    };
    assert_eq!(bed.cluster.heard("net/service/deployed", deployed), 1, "{:?}", bed.cluster.knows().heard);
    // The answer came after the ServiceIP was known, so that the first packet finds it.
    let status = bed.status()?;
    assert_eq!(status["endpoints"][0]["instance_ip"], "10.30.0.3");
    Ok(())
}

#[test]
fn a_node_behind_a_nat_is_advertised_under_the_public_address_and_sends_from_its_own() -> Result<()> {
    let mut config = config();
    config["NodePublicAddress"] = json!("198.51.100.7");
    let bed = Bed::start_with(&config, 1500)?;
    bed.register(NODE)?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    let public = |payload: &Value| payload["host_ip"] == "198.51.100.7";
    assert_eq!(bed.cluster.heard("net/service/deployed", public), 1, "{:?}", bed.cluster.knows().heard);
    assert_eq!(bed.status()?["uplink"]["address"], "192.0.2.31");
    let log = bed.log()?;
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("NodePublicAddress")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("198.51.100.7") && warnings[0].contains("192.0.2.31"), "{warnings:?}");
    Ok(())
}

#[test]
fn containers_reach_the_world_under_the_nodes_address() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    // The cluster has no route to the overlay: only masqueraded packets are answered.
    container.netns.output("ping", &["-c", "1", "-W", "2", "192.0.2.20"])?;
    Ok(())
}

#[test]
fn attaching_twice_is_attaching_once() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    let first = bed.attached(&container, 0)?;
    let seen = || -> Result<_> {
        let inside = ["addr", "route", "neigh"].map(|what| container.netns.output("ip", &["-4", what]));
        Ok((bed.links()?, inside.into_iter().collect::<Result<Vec<_>>>()?))
    };
    let before = seen()?;
    assert_eq!(bed.attached(&container, 0)?, first);
    assert_eq!(seen()?, before);
    Ok(())
}

#[test]
fn an_instance_that_was_started_anew_keeps_its_address() -> Result<()> {
    let bed = Bed::registered()?;
    let first = Container::new("first")?;
    let address = bed.attached(&first, 0)?;
    drop(first);
    let second = Container::new("second")?;
    assert_eq!(bed.attached(&second, 0)?, address);
    assert_eq!(bed.links()?.len(), 1);
    second.netns.output("ping", &["-c", "1", "-W", "2", "10.18.0.65"])?;
    Ok(())
}

#[test]
fn a_detached_container_leaves_nothing_and_detaching_again_succeeds() -> Result<()> {
    let bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    assert_eq!(bed.detach(0)?.0, 200);
    assert_eq!(bed.links()?, Vec::<String>::new());
    let inside = ip_json(&container.netns, &["link"])?;
    assert!(inside.iter().all(|link| link["ifname"] != "eth0"), "{inside:?}");
    bed.cluster.wait_to_hear("net/service/undeployed", 0, |payload| payload["appname"] == SERVICE)?;
    assert_eq!(bed.detach(0)?.0, 200);
    assert_eq!(bed.post("/docker/undeploy", r#"{"serviceName":"a.b.c.d","instanceNumber":9}"#)?.0, 200);
    Ok(())
}

#[test]
fn a_freed_address_is_not_given_to_the_next_container() -> Result<()> {
    let bed = Bed::registered()?;
    let (first, second) = (Container::new("first")?, Container::new("second")?);
    let freed = bed.attached(&first, 0)?;
    bed.detach(0)?;
    assert_ne!(bed.attached(&second, 1)?, freed);
    Ok(())
}

#[test]
fn a_half_failed_set_up_is_undone() -> Result<()> {
    let bed = Bed::registered()?;
    // Another's eth0 in the container: the pair cannot be made.
    let taken = Container::new("taken")?;
    taken.netns.ip("link add eth0 type veth peer name other0")?;
    let (status, said) = bed.attach(&taken, 0, "")?;
    assert_eq!(status, 500, "{said}");
    assert!(said.contains("eth0") && said.contains("exists"), "{said}");
    assert_eq!(bed.links()?, Vec::<String>::new());

    // Another's table of our name: the last step fails, when all else is done.
    let mut owner = bed.node.command("nft")?.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut orders = owner.stdin.take().context("standard input of nft")?;
    writeln!(orders, "delete table ip hypha; add table ip hypha {{ flags owner; }}")?;
    eventually(Duration::from_secs(5), "nft to own the table", || {
        let table = bed.node.output("nft", &["list", "table", "ip", "hypha"])?;
        if table.contains("owner") { Ok(()) } else { Err(anyhow!(table)) }
    })?;
    let container = Container::new("ctr")?;
    let (status, said) = bed.attach(&container, 0, "8080:80")?;
    assert_eq!(status, 500, "{said}");
    assert!(said.contains("nft refused"), "{said}");
    assert_eq!(bed.links()?, Vec::<String>::new());
    assert_eq!(bed.status()?["endpoints"], json!([]));
    drop(orders);
    owner.wait()?;

    // What failed has neither kept its port nor lost its address.
    let (status, said) = bed.attach(&container, 1, "8080:80")?;
    assert_eq!(status, 200, "{said}");
    Ok(())
}

#[test]
fn a_firewall_that_drops_what_containers_send_is_named_with_the_remedy() -> Result<()> {
    const REMEDY: &str = "to let it through: ";
    let mut bed = Bed::registered()?;
    let container = Container::new("ctr")?;
    bed.attached(&container, 0)?;
    let firewall = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }";
    bed.node.output("nft", &[firewall])?;
    let ping = || container.netns.output("ping", &["-c", "1", "-W", "1", "192.0.2.20"]);
    assert!(ping().is_err(), "the firewall lets it through");
    assert!(!bed.log()?.contains(REMEDY));

    bed.netmanager.terminate()?;
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    let log = bed.log()?;
    let (_, remedy) = log.split_once(REMEDY).with_context(|| log.clone())?;
    bed.node.output("sh", &["-c", remedy.lines().next().context("a remedy")?])?;
    ping()?;

    // Whoever has done it is not told again.
    bed.netmanager.terminate()?;
    bed.netmanager.start_again()?;
    bed.wait_until_ready()?;
    let log = bed.log()?;
    assert_eq!(log.matches(REMEDY).count(), 1, "{log}");
    Ok(())
}

#[test]
fn rules_of_others_are_left_alone() -> Result<()> {
    let bed = Bed::start()?;
    bed.node.output("nft", &["add", "table", "ip", "mine"])?;
    bed.register(NODE)?;
    let tables = bed.node.output("nft", &["list", "tables"])?;
    assert!(tables.contains("table ip mine") && tables.contains("table ip hypha"), "{tables}");
    Ok(())
}
