//! What ICMP says about the overlay, in both IP versions: with the real slow path on each node, and asked of service
//! addresses.

use std::io::ErrorKind;
use std::net::IpAddr;

use integration::Netns;
use netmanager::datapath::{Backend, Policy};

use crate::nodes::{Container, Family, Underlay, kernel_has_ipv6, service};
use crate::running::run;
use crate::talk::ask_by_datagram;

fn families() -> &'static [Family] {
    if kernel_has_ipv6() {
        return &[Family::V4, Family::V6];
    }
    println!("this kernel has no IPv6: only IPv4");
    &[Family::V4]
}

/// What the cluster knows: a service with this instance, and each container's own addresses.
fn knowing(
    server: &Container,
    all: &[&Container],
) -> impl Fn(IpAddr) -> Option<(Policy, Vec<Backend>)> + use<> {
    let server = server.backend;
    let all: Vec<_> = all.iter().map(|container| container.backend).collect();
    move |address| {
        if [service(Family::V4), service(Family::V6)].contains(&address) {
            return Some((Policy::RoundRobin, vec![server]));
        }
        let is_its = |backend: &&Backend| {
            address == IpAddr::V4(backend.instance_ip)
                || backend.instance_ip6.is_some_and(|own| address == IpAddr::V6(own))
        };
        Some((Policy::Instance, all.iter().find(is_its).copied().into_iter().collect()))
    }
}

/// What `ping` shows of one echo request that may be forwarded so often.
fn hop(from: &Netns, to: IpAddr, limit: &str) -> String {
    let arguments = ["-n", "-c", "1", "-W", "5", "-t", limit, &to.to_string()];
    let output = from.command("ping").unwrap().args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn traceroute_sees_the_gateway_and_then_the_service_and_a_closed_port_is_said() {
    let mut underlay = Underlay::new(2);
    let client = underlay.nodes[0].container(2);
    let server = underlay.nodes[1].container(2);
    let neighbour = underlay.nodes[0].container(3);
    run(&mut underlay.nodes, knowing(&server, &[&client, &server, &neighbour]), |_| {
        for family in families() {
            let service = service(*family);
            let gateway = match family {
                Family::V4 => "10.18.1.1",
                Family::V6 => "fc00::101",
            };
            let first = hop(&client.netns, service, "1");
            assert!(
                first.contains(&format!("From {gateway}"))
                    && (first.contains("Time to live exceeded") || first.contains("Hop limit")),
                "{family:?}: {first}"
            );
            let second = hop(&client.netns, service, "2");
            assert!(second.contains(&format!("from {service}")), "{family:?}: {second}");
            // By the service's address, by the instance's, on the same node, and by the container's own.
            for address in [
                service,
                server.instance_ip(*family),
                neighbour.instance_ip(*family),
                server.ns_ip(*family),
                neighbour.ns_ip(*family),
            ] {
                let error = ask_by_datagram(&client, address).expect_err("nobody listens");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}: {error}");
            }
        }
    });
}
