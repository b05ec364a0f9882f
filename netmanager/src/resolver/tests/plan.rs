use std::time::Instant;

use protocol::plan::Plan;

use super::{answer, connected};
use crate::resolver::Action;

#[test]
fn by_another_plan_other_addresses_are_of_the_overlay() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.set_plan(Plan::new("172.20.0.0/14".parse().unwrap(), "172.24.0.0/16".parse().unwrap()).unwrap());
    for (address, is_ours) in [("172.24.0.9", true), ("172.20.0.62", true), ("10.30.109.1", false)] {
        let asked = resolver.missed(address.parse().unwrap(), now);
        assert_eq!(!asked.is_empty(), is_ours, "{address}: {asked:?}");
    }
    // Addresses of another plan are nobody's, also where a cluster says them.
    let told = resolver.answered(answer("172.24.0.9", &[0]), now);
    assert!(
        !told.iter().any(|action| matches!(action, Action::Publish(_, entry) if !entry.backends.is_empty())),
        "{told:?}"
    );
}

#[test]
fn what_is_of_another_plan_is_forgotten_and_questions_go_on() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.missed("10.30.109.1".parse().unwrap(), now);
    resolver.answered(answer("10.30.109.1", &[0]), now);
    assert_eq!(resolver.answers().count(), 1);
    resolver
        .begin_anew(Plan::new("172.20.0.0/14".parse().unwrap(), "172.24.0.0/16".parse().unwrap()).unwrap());
    assert_eq!(resolver.answers().count(), 0);
    let asked = resolver.missed("172.24.0.9".parse().unwrap(), now);
    assert!(matches!(asked.as_slice(), [Action::Query(_)]), "the session is still up: {asked:?}");
}
