//! How many connections each backend has from this node: counted anew from time to time, since the data plane does not hear
//! of all that end. Pure.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::datapath::{Backend, Endpoint, Flow, FlowState};

/// A connection that was silent for so long is no load. Its end may just not have been seen.
const QUIET: Duration = Duration::from_secs(3600);
/// As often as connections are counted at most.
const COUNT: Duration = Duration::from_secs(5);
/// Connections that may be read in that time without anybody noticing.
const FLOWS: usize = 4096;

/// Of each of these backends the flows that it was chosen for and that are not over, of containers that are still there.
pub fn count(
    flows: &[Flow],
    containers: &[Endpoint],
    backends: impl IntoIterator<Item = Backend>,
) -> BTreeMap<Backend, u32> {
    let of = |container: &Endpoint| [Some(container.ns_ip.into()), container.ns_ip6.map(IpAddr::V6)];
    let clients: HashSet<IpAddr> = containers.iter().flat_map(of).flatten().collect();
    let mut counts: BTreeMap<Backend, u32> = backends.into_iter().map(|backend| (backend, 0)).collect();
    let counted = flows.iter().filter(|flow| {
        flow.state != FlowState::Closed && flow.idle < QUIET && clients.contains(&flow.client.ip())
    });
    for flow in counted {
        let chosen = flow.backend.filter(|backend| !is_its_own(backend, flow.service.ip()));
        if let Some(count) = chosen.and_then(|backend| counts.get_mut(&backend)) {
            *count += 1;
        }
    }
    counts
}

/// Whether nothing was chosen: this is the instance's own address, at which mostly its clients' answers arrive.
fn is_its_own(backend: &Backend, dialled: IpAddr) -> bool {
    dialled == IpAddr::V4(backend.instance_ip) || backend.instance_ip6.map(IpAddr::V6) == Some(dialled)
}

/// When they are to be counted again, if there were so many: reading a full table takes a moment.
#[must_use]
pub fn pause(flows: usize) -> Duration {
    let times = u32::try_from(flows / FLOWS).unwrap_or(u32::MAX);
    COUNT.saturating_mul(times.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::{QUIET, count, pause};
    use crate::datapath::{Backend, Endpoint, Flow, FlowState, Transport};

    const CLIENT: Endpoint = Endpoint {
        ns_ip: Ipv4Addr::new(10, 18, 0, 99),
        ns_ip6: None,
        instance_ip: None,
        instance_ip6: None,
        ifindex: 7,
        mac: [2; 6],
        gateway_mac: [4; 6],
    };

    fn backend(number: u8) -> Backend {
        Backend {
            ns_ip: Ipv4Addr::new(10, 18, 0, number),
            ns_ip6: None,
            instance_ip: Ipv4Addr::new(10, 30, 0, number),
            instance_ip6: None,
            node: ([192, 0, 2, number], 50103).into(),
        }
    }

    fn flow(backend: Option<Backend>, state: FlowState) -> Flow {
        Flow {
            transport: Transport::Tcp,
            client: (CLIENT.ns_ip, 4000).into(),
            service: ([10, 30, 9, 9], 80).into(),
            backend,
            idle: Duration::ZERO,
            state,
        }
    }

    #[test]
    fn what_is_open_to_a_backend_is_counted_and_who_has_nothing_has_none() {
        let (one, two, other) = (backend(1), backend(2), backend(3));
        let open = flow(Some(one), FlowState::Assured);
        let flows = [
            open,
            flow(Some(one), FlowState::New),
            // One half goes on.
            flow(Some(one), FlowState::Closing),
            flow(Some(one), FlowState::Closed),
            flow(Some(other), FlowState::Assured),
            flow(None, FlowState::Assured),
            Flow { idle: QUIET, ..open },
            // Of a container that has gone.
            Flow { client: ([10, 18, 0, 98], 4000).into(), ..open },
            // Dialled by itself, or its client's answer.
            Flow { service: (IpAddr::V4(one.instance_ip), 5432).into(), ..open },
        ];
        assert_eq!(count(&flows, &[CLIENT], [one, two]), BTreeMap::from([(one, 3), (two, 0)]));
    }

    #[test]
    fn the_more_there_are_the_less_often_they_are_counted() {
        assert_eq!(pause(0), Duration::from_secs(5));
        assert_eq!(pause(65_536), Duration::from_secs(85));
    }
}
