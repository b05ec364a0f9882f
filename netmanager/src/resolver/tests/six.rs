//! Addresses of both IP versions.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use protocol::net::TableResult;
use serde_json::json;

use super::{NAME, ROUND_ROBIN, answer, backends, by_address, connected, name};
use crate::datapath::Policy;
use crate::resolver::Action;
use crate::table::OwnAddress;

/// As [`answer`], of instances with IPv6.
fn answer6(query_key: &str, numbers: &[u8]) -> TableResult {
    let mut answer = answer(query_key, numbers);
    for (instance, number) in answer.instance_list.iter_mut().zip(numbers) {
        instance.instance_ip_v6 = Some(format!("fdff::{number}"));
        instance.namespace_ip_v6 = Some(format!("fc00::{number}"));
        instance.service_ip[0].address_v6 = "fdff:2000::1".to_owned();
        instance.service_ip.push(
            serde_json::from_value(json!({"IpType": "Closest", "Address": "", "Address_v6": "fdff:1000::1"}))
                .unwrap(),
        );
    }
    answer
}

#[test]
fn a_miss_by_ipv6_address_is_asked_for_by_it_and_both_families_are_published() {
    let now = Instant::now();
    let mut resolver = connected(now);
    let closest: IpAddr = "fdff:1000::1".parse().unwrap();
    assert_eq!(resolver.missed(closest, now), [Action::Query(by_address(closest))]);
    let actions = resolver.answered(answer6(&closest.to_string(), &[1, 2]), now);
    for address in [ROUND_ROBIN, "fdff:2000::1".parse().unwrap(), closest] {
        assert_eq!(backends(&actions, address), Some(2), "{address}");
    }
    assert_eq!(backends(&actions, "fdff::2".parse().unwrap()), Some(1));
    assert_eq!(resolver.missed(closest, now), []);

    // The last instance goes, and comes back: the address is still one that leads to the closest.
    let policies = |actions: &[Action]| -> Vec<_> {
        let published = actions.iter().filter_map(|action| match action {
            Action::Publish(address, entry) if *address == closest => Some(entry.policy),
            _ => None,
        });
        published.collect()
    };
    assert_eq!(policies(&resolver.answered(answer6(NAME, &[]), now)), [Policy::Closest]);
    assert_eq!(policies(&resolver.answered(answer6(NAME, &[1]), now)), [Policy::Closest]);
}

#[test]
fn an_instance_here_is_identified_by_both_of_its_addresses() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.attached(&name(), 4, now);
    let actions = resolver.answered(answer6(NAME, &[4]), now);
    let own = OwnAddress { v4: Ipv4Addr::new(10, 30, 0, 4), v6: Some("fdff::4".parse().unwrap()) };
    assert!(actions.contains(&Action::Identify { service: name(), number: 4, own }), "{actions:?}");
}
