//! Instances that are being stopped.

use std::time::Instant;

use protocol::net::{TableInstance, TableResult};

use super::{NAME, ROUND_ROBIN, answer, backends, connected, name, ns_ip, v4};
use crate::resolver::{NEGATIVE, Resolver};

/// As [`answer`], with the last of them being stopped.
fn answer_with_leaving(query_key: &str, numbers: &[u8]) -> TableResult {
    let mut result = answer(query_key, numbers);
    result.leaving = result.instance_list.split_off(numbers.len() - 1);
    result
}

#[test]
fn the_last_instance_keeps_what_it_has_until_it_has_stopped() {
    let (mut resolver, now) = (Resolver::default(), Instant::now());
    resolver.connected(now);
    resolver.missed(ROUND_ROBIN, now);
    resolver.answered(answer(&ROUND_ROBIN.to_string(), &[0]), now);
    let published = |resolver: &Resolver| {
        let found = resolver.published().find(|(address, ..)| *address == ROUND_ROBIN);
        found.map(|(_, _, entry)| (entry.backends.len(), entry.leaving.len()))
    };
    assert_eq!(published(&resolver), Some((1, 0)));
    resolver.answered(answer_with_leaving(NAME, &[0]), now);
    assert_eq!(published(&resolver), Some((0, 1)));
    resolver.tick(now + NEGATIVE * 10);
    assert_eq!(published(&resolver), Some((0, 1)), "the address stays known, or its connections would end");
    resolver.answered(answer(NAME, &[]), now);
    assert_eq!(published(&resolver), Some((0, 0)));
}

#[test]
fn an_instance_that_left_this_node_gets_nothing_new_although_the_cluster_has_not_said_so() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.attached(&name(), 1, now);
    resolver.answered(answer(NAME, &[0, 1]), now);
    let actions = resolver.detached(&name(), 1, ns_ip(1), now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(1));
    assert_eq!(backends(&actions, v4(0, 1)), Some(0));
    assert_eq!(backends(&actions, v4(0, 0)), None, "the other one is as it was");
}

#[test]
fn an_instance_that_has_moved_away_from_this_node_is_where_it_is() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.attached(&name(), 1, now);
    let mut moved = answer(NAME, &[0, 1]);
    let before = answer(NAME, &[9]).instance_list.remove(0);
    moved.leaving =
        vec![TableInstance { namespace_ip: before.namespace_ip, ..moved.instance_list[1].clone() }];
    resolver.answered(moved, now);
    let leaving = |resolver: &Resolver| {
        let found = resolver.published().find(|(address, ..)| *address == v4(0, 1));
        found.map(|(_, _, entry)| (entry.backends.len(), entry.leaving.len()))
    };
    assert_eq!(leaving(&resolver), Some((1, 1)));
    resolver.detached(&name(), 1, ns_ip(9), now);
    assert_eq!(leaving(&resolver), Some((1, 0)));
}
