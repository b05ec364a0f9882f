//! Instances that are being stopped.

use std::time::Instant;

use protocol::net::TableResult;

use super::{NAME, ROUND_ROBIN, answer};
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
