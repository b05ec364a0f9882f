//! Whether somebody else uses the overlay's addresses: a LAN, a VPN, a resolver.

use std::fs;
use std::net::Ipv4Addr;

use super::{Check, Verdict};
use crate::error::chain;
use crate::net::{Links, NetError, Prefix, Route};

/// The overlay's: containers' blocks and service addresses.
const RANGES: [(Ipv4Addr, u8, &str); 5] = [
    (Ipv4Addr::new(10, 18, 0, 0), 15, "containers"),
    (Ipv4Addr::new(10, 20, 0, 0), 14, "containers"),
    (Ipv4Addr::new(10, 24, 0, 0), 14, "containers"),
    (Ipv4Addr::new(10, 28, 0, 0), 15, "containers"),
    (Ipv4Addr::new(10, 30, 0, 0), 16, "services"),
];

const RESOLVERS: &str = "/etc/resolv.conf";

pub(super) async fn examine() -> Vec<Check> {
    let resolvers = resolvers(&fs::read_to_string(RESOLVERS).unwrap_or_default());
    let mut checks = match routes().await {
        Ok(routes) => clashes(&routes),
        Err(error) => {
            let (id, effect) = ("ranges.routes", "clashes of addresses are not seen");
            vec![Check::gap(id, Verdict::Degraded, chain(&error), effect, "run it as root")]
        }
    };
    checks.extend(unreachable(&resolvers));
    checks
}

async fn routes() -> Result<Vec<Route>, NetError> {
    Links::open()?.routes().await
}

fn clashes(routes: &[Route]) -> Vec<Check> {
    let id = "ranges.routes";
    let mut checks = Vec::new();
    for route in routes {
        // A default route, or one like it, is for everything else.
        if route.prefix.length < 8 {
            continue;
        }
        let ours = RANGES
            .iter()
            .find(|(first, length, _)| route.prefix.overlaps(Prefix { first: *first, length: *length }));
        let Some((first, length, whose)) = ours else { continue };
        checks.push(Check::gap(
            id,
            Verdict::Degraded,
            format!("{} by {} overlaps {first}/{length}, the overlay's {whose}", route.prefix, route.interface),
            "containers do not reach the machines there; this host does, but for addresses of its own containers",
            format!("number the network behind {} differently, or let containers reach it through a proxy", route.interface),
        ));
    }
    if checks.is_empty() {
        checks.push(Check::fine(id, "no route overlaps 10.18.0.0 to 10.30.255.255"));
    }
    checks
}

fn unreachable(resolvers: &[Ipv4Addr]) -> Vec<Check> {
    let id = "ranges.resolvers";
    let mut checks = Vec::new();
    for resolver in resolvers {
        let alone = Prefix { first: *resolver, length: 32 };
        let ours = RANGES
            .iter()
            .find(|(first, length, _)| alone.overlaps(Prefix { first: *first, length: *length }));
        let Some((first, length, whose)) = ours else { continue };
        checks.push(Check::gap(
            id,
            Verdict::Degraded,
            format!("{resolver} in {RESOLVERS} is in {first}/{length}, the overlay's {whose}"),
            "containers that use it resolve no names",
            "name a resolver outside of 10.18.0.0 to 10.30.255.255",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::fine(id, "no resolver is in the overlay's ranges"));
    }
    checks
}

fn resolvers(text: &str) -> Vec<Ipv4Addr> {
    text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Verdict, clashes, resolvers, unreachable};
    use crate::net::{Prefix, Route};

    fn route(first: &str, length: u8) -> Route {
        Route { prefix: Prefix { first: first.parse().unwrap(), length }, interface: "lan0".into() }
    }

    #[test]
    fn a_clash_names_both_prefixes() {
        for (first, length, ours) in [
            ("10.18.0.0", 16, "10.18.0.0/15"),
            ("10.29.3.0", 24, "10.28.0.0/15"),
            ("10.30.0.0", 16, "10.30.0.0/16"),
            ("10.0.0.0", 8, "10.18.0.0/15"),
            ("10.25.1.1", 32, "10.24.0.0/14"),
        ] {
            let checks = clashes(&[route(first, length)]);
            let evidence = &checks[0].evidence;
            assert_eq!(checks[0].verdict, Verdict::Degraded);
            assert!(evidence.contains(&format!("{first}/{length}")) && evidence.contains(ours), "{evidence}");
        }
    }

    #[test]
    fn others_ranges_and_default_routes_are_no_clash() {
        let routes = [
            route("192.0.2.0", 24),
            route("10.17.0.0", 16),
            route("10.31.0.0", 16),
            route("0.0.0.0", 0),
            route("0.0.0.0", 1),
        ];
        let checks = clashes(&routes);
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Fine), "{checks:?}");
    }

    #[test]
    fn a_resolver_in_the_overlay_is_named() {
        let found = resolvers(
            "# by hand\nnameserver 10.20.0.53\nnameserver ::1\n nameserver 192.0.2.53\nsearch lan\n",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        let checks = unreachable(&found);
        assert_eq!((checks.len(), checks[0].verdict), (1, Verdict::Degraded));
        assert!(checks[0].evidence.contains("10.20.0.53"));
    }
}
