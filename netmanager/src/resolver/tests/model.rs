//! The data plane always holds what the resolver says, whatever happens in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Miss(u8),
    Answer {
        by_name: bool,
        numbers: Vec<u8>,
    },
    Nobody(u8),
    Changed,
    Told(Vec<u8>),
    Attach(u8),
    Detach(u8),
    Link(bool),
    Wait(u16),
    Sweep,
    /// From now on the data plane is full, or has room.
    Full(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u8..8).prop_map(Event::Miss),
        (any::<bool>(), proptest::collection::vec(0u8..6, 0..4))
            .prop_map(|(by_name, numbers)| Event::Answer { by_name, numbers }),
        (0u8..8).prop_map(Event::Nobody),
        Just(Event::Changed),
        proptest::collection::vec(0u8..6, 0..4).prop_map(Event::Told),
        (0u8..4).prop_map(Event::Attach),
        (0u8..4).prop_map(Event::Detach),
        any::<bool>().prop_map(Event::Link),
        (0u16..8000).prop_map(Event::Wait),
        Just(Event::Sweep),
        any::<bool>().prop_map(Event::Full),
    ]
}

proptest! {
    /// Replays the actions onto a model of the data plane and of the cluster's view.
    #[test]
    fn the_data_plane_always_holds_what_the_resolver_says(events in proptest::collection::vec(event(), 0..80)) {
        let mut now = Instant::now();
        let mut resolver = Resolver::default();
        let mut held = std::collections::BTreeMap::new();
        let mut refused = std::collections::BTreeSet::new();
        let (mut up, mut full) = (false, false);
        for event in events {
            let actions = match event {
                Event::Miss(last) => {
                    let address = v4(0, last);
                    if held.contains_key(&address) { continue }
                    resolver.missed(address, now)
                }
                Event::Answer { by_name, mut numbers } => {
                    numbers.dedup();
                    let key = if by_name { NAME.to_owned() } else { ROUND_ROBIN.to_string() };
                    resolver.answered(answer(&key, &numbers), now)
                }
                Event::Nobody(last) => resolver.answered(nobody(&format!("10.30.0.{last}")), now),
                Event::Changed => resolver.changed(NAME, now),
                Event::Told(mut numbers) => {
                    numbers.dedup();
                    resolver.told(NAME, answer(NAME, &numbers), now)
                }
                Event::Attach(number) => resolver.attached(&name(), number.into(), now),
                Event::Detach(number) => resolver.detached(&name(), number.into(), ns_ip(number), now),
                Event::Link(true) => { up = true; resolver.connected(now) }
                Event::Link(false) => { up = false; resolver.disconnected(); Vec::new() }
                Event::Wait(milliseconds) => {
                    now += Duration::from_millis(milliseconds.into());
                    resolver.tick(now)
                }
                Event::Sweep => { now += IDLE; resolver.sweep(|_| false, now) }
                Event::Full(it) => { full = it; Vec::new() }
            };
            let mut queries = std::collections::HashSet::new();
            for action in actions {
                match action {
                    Action::Publish(address, _) if full && !held.contains_key(&address) => {
                        refused.insert(address);
                        resolver.refused(address, now);
                    }
                    Action::Publish(address, entry) => {
                        refused.remove(&address);
                        resolver.accepted(address);
                        held.insert(address, entry);
                    }
                    Action::Withdraw(address) => prop_assert!(
                        held.remove(&address).is_some() || refused.remove(&address),
                        "{address} is not held"
                    ),
                    Action::Query(query) => {
                        prop_assert!(up, "a question while the session is down");
                        prop_assert!(queries.insert(query.clone()), "asked twice at once: {query:?}");
                    }
                    _ => {}
                }
            }
            let said: std::collections::BTreeMap<_, _> =
                resolver.published().map(|(address, _, entry)| (address, entry.clone())).collect();
            prop_assert_eq!(&said, &held);
            let retried = resolver.deadline().is_some_and(|deadline| deadline <= now + RETRY);
            prop_assert!(refused.is_empty() || retried, "a refused service is given up");
            // No black hole: whatever is empty expires.
            let empty = held.values().any(|entry| entry.backends.is_empty());
            prop_assert!(!empty || resolver.deadline().is_some_and(|deadline| deadline <= now + NEGATIVE));
        }
    }
}
