//! Whether somebody else uses the overlay's addresses: a LAN, a VPN, a resolver.

use std::fs;
use std::net::Ipv4Addr;

use protocol::plan::Plan;

use super::{Check, Verdict};
use crate::clash::{self, Clash, FLAGS};
use crate::error::chain;
use crate::net::{Links, NetError, Route};

const RESOLVERS: &str = "/etc/resolv.conf";

pub(super) async fn examine(plan: &Plan) -> Vec<Check> {
    let resolvers = resolvers(&fs::read_to_string(RESOLVERS).unwrap_or_default());
    let mut checks = match routes().await {
        Ok(routes) => clashes(&routes, plan),
        Err(error) => {
            let (id, effect) = ("ranges.routes", "clashes of addresses are not seen");
            vec![Check::gap(id, Verdict::Degraded, chain(&error), effect, "run it as root")]
        }
    };
    checks.extend(unreachable(&resolvers, plan));
    checks
}

async fn routes() -> Result<Vec<Route>, NetError> {
    Links::open()?.routes().await
}

fn clashes(routes: &[Route], plan: &Plan) -> Vec<Check> {
    let id = "ranges.routes";
    let gap = |clash: &Clash| {
        let network = format!("the network behind {}", clash.route.interface);
        Check::gap(
            id,
            Verdict::Degraded,
            clash.to_string(),
            "containers do not reach the machines there; this host does, but for addresses of its own containers",
            format!("give the overlay other addresses ({FLAGS}), or number {network} differently"),
        )
    };
    match clash::of_routes(routes, plan).as_slice() {
        [] => vec![Check::fine(id, format!("no route overlaps the overlay's ranges: {plan}"))],
        some => some.iter().map(gap).collect(),
    }
}

fn unreachable(resolvers: &[Ipv4Addr], plan: &Plan) -> Vec<Check> {
    let id = "ranges.resolvers";
    let gap = |resolver: &Ipv4Addr| {
        let ours = clash::of_address(*resolver, plan)?;
        Some(Check::gap(
            id,
            Verdict::Degraded,
            format!("{resolver} in {RESOLVERS} is in {ours}"),
            "containers that use it resolve no names",
            format!("name a resolver outside of it, or give the overlay other addresses ({FLAGS})"),
        ))
    };
    let checks: Vec<_> = resolvers.iter().filter_map(gap).collect();
    if checks.is_empty() { vec![Check::fine(id, "no resolver is in the overlay's ranges")] } else { checks }
}

fn resolvers(text: &str) -> Vec<Ipv4Addr> {
    text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use protocol::plan::Plan;

    use super::{Verdict, clashes, resolvers, unreachable};
    use crate::net::Route;

    #[test]
    fn a_clash_is_a_gap_with_a_way_out() {
        let lan = Route { to: "10.18.0.0/16".parse().unwrap(), interface: "lan0".into() };
        let checks = clashes(std::slice::from_ref(&lan), &Plan::default());
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Degraded));
        assert!(checks[0].remedy.as_ref().unwrap().contains("--container-range"), "{checks:?}");
        let elsewhere =
            Plan::new("172.20.0.0/14".parse().unwrap(), "172.24.0.0/16".parse().unwrap()).unwrap();
        let checks = clashes(&[lan], &elsewhere);
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Fine), "{checks:?}");
    }

    #[test]
    fn a_resolver_in_the_overlay_is_named() {
        let found = resolvers(
            "# by hand\nnameserver 10.20.0.53\nnameserver ::1\n nameserver 192.0.2.53\nsearch lan\n",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        let checks = unreachable(&found, &Plan::default());
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Degraded));
        assert!(checks[0].evidence.contains("10.20.0.53"));
    }
}
