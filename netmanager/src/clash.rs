//! Whether somebody else has the overlay's addresses: a LAN, a VPN, a resolver. Pure.

use std::fmt;
use std::net::Ipv4Addr;

use protocol::plan::{Plan, Range};

use crate::net::Route;

/// A route that is for everything else, or for half of it as VPNs have them, is no clash.
const SHORTEST: u8 = 8;

/// Where the overlay's ranges are set.
pub const FLAGS: &str = "--container-range and --service-range of the root";

/// Addresses of somebody else that are the overlay's too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// Where packets to them leave.
    pub route: Route,
    pub ours: Ours,
}

/// A range of the overlay's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ours {
    pub range: Range,
    pub whose: &'static str,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {} overlaps {}", self.route.to, self.route.interface, self.ours)
    }
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, the overlay's {}", self.range, self.whose)
    }
}

/// The routes that lead elsewhere with addresses of the overlay's.
#[must_use]
pub fn of_routes(routes: &[Route], plan: &Plan) -> Vec<Clash> {
    let clash = |route: &Route| {
        if route.to.prefix().is_some_and(|length| length < SHORTEST) {
            return None;
        }
        Some(Clash { route: route.clone(), ours: ours(&route.to, plan)? })
    };
    routes.iter().filter_map(clash).collect()
}

/// Whose an address is, if it is the overlay's.
#[must_use]
pub fn of_address(address: Ipv4Addr, plan: &Plan) -> Option<Ours> {
    ours(&Range::network(address, 32)?, plan)
}

fn ours(range: &Range, plan: &Plan) -> Option<Ours> {
    let both = [(plan.containers(), "containers"), (plan.services(), "services")];
    let found = both.into_iter().find(|(ours, _)| ours.overlaps(range));
    found.map(|(range, whose)| Ours { range, whose })
}

#[cfg(test)]
mod tests {
    use protocol::plan::Plan;

    use super::{of_address, of_routes};
    use crate::net::Route;

    fn route(to: &str) -> Route {
        Route { to: to.parse().unwrap(), interface: "lan0".into() }
    }

    #[test]
    fn a_clash_names_both_ranges() {
        for (to, ours) in [
            ("10.18.0.0/16", "10.18.0.0-10.29.255.255, the overlay's containers"),
            ("10.29.3.0/24", "10.18.0.0-10.29.255.255, the overlay's containers"),
            ("10.30.0.0/16", "10.30.0.0/16, the overlay's services"),
            ("10.0.0.0/8", "10.18.0.0-10.29.255.255, the overlay's containers"),
            ("10.25.1.1/32", "10.18.0.0-10.29.255.255, the overlay's containers"),
        ] {
            let clashes = of_routes(&[route(to)], &Plan::default());
            assert_eq!(clashes[0].to_string(), format!("{to} by lan0 overlaps {ours}"));
        }
    }

    #[test]
    fn others_ranges_and_default_routes_are_no_clash() {
        let routes = ["192.0.2.0/24", "10.17.0.0/16", "10.31.0.0/16", "0.0.0.0/0", "0.0.0.0/1"].map(route);
        assert_eq!(of_routes(&routes, &Plan::default()), []);
    }

    #[test]
    fn a_plan_beside_the_lan_has_no_clash_with_it() {
        let lan = [route("10.18.0.0/16")];
        let elsewhere =
            Plan::new("172.20.0.0/14".parse().unwrap(), "172.24.0.0/16".parse().unwrap()).unwrap();
        assert_eq!((of_routes(&lan, &Plan::default()).len(), of_routes(&lan, &elsewhere).len()), (1, 0));
        assert!(of_address([172, 24, 0, 53].into(), &elsewhere).is_some());
        assert_eq!(of_address([10, 30, 0, 53].into(), &elsewhere), None);
    }
}
