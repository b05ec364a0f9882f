//! How many connections each backend has from this node: counted anew from time to time, since the data plane does not hear
//! of all that end. Pure.

use std::collections::BTreeMap;

use crate::datapath::{Backend, Flow};

/// Of each of these backends the flows that are not over, whatever address they were begun by.
pub fn count(
    flows: &[Flow],
    backends: impl IntoIterator<Item = Backend>,
) -> impl Iterator<Item = (Backend, u32)> {
    let mut counts: BTreeMap<Backend, u32> = backends.into_iter().map(|backend| (backend, 0)).collect();
    for flow in flows.iter().filter(|flow| !flow.state.is_ending()) {
        if let Some(count) = flow.backend.and_then(|backend| counts.get_mut(&backend)) {
            *count += 1;
        }
    }
    counts.into_iter()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::count;
    use crate::datapath::{Backend, Flow, FlowState, Transport};

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
            client: ([10, 18, 0, 99], 4000).into(),
            service: ([10, 30, 9, 9], 80).into(),
            backend,
            idle: Duration::ZERO,
            state,
        }
    }

    #[test]
    fn what_is_open_to_a_backend_is_counted_and_who_has_nothing_has_none() {
        let (one, two, other) = (backend(1), backend(2), backend(3));
        let flows = [
            flow(Some(one), FlowState::Assured),
            flow(Some(one), FlowState::New),
            flow(Some(one), FlowState::Closed),
            flow(Some(one), FlowState::Closing),
            flow(Some(other), FlowState::Assured),
            flow(None, FlowState::Assured),
        ];
        assert_eq!(count(&flows, [one, two]).collect::<Vec<_>>(), [(one, 2), (two, 0)]);
    }
}
