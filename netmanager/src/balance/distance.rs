//! The order of backends by how far away they are, as connections and probes have measured it. Pure.
//!
//! The kernel side takes the first one of the list. Measurements waver, and each change of the first one moves all new
//! connections: so the first one stays first until another is clearly closer.

use std::time::Duration;

use crate::datapath::Backend;

/// How much closer another one has to be, of the time that the first one takes: one in so many.
const SHARE: u32 = 5;
/// And at least.
const LEAST: Duration = Duration::from_millis(2);

/// `backends`, the closest first; those of unknown distance last, as they were listed. `first`: the one that was first
/// before.
#[must_use]
pub fn ordered(
    mut backends: Vec<Backend>,
    first: Option<Backend>,
    distance: impl Fn(&Backend) -> Option<Duration>,
) -> Vec<Backend> {
    let far = |backend: &Backend| distance(backend).unwrap_or(Duration::MAX);
    backends.sort_by_cached_key(far);
    let place = backends.iter().position(|backend| Some(*backend) == first);
    if let (Some(place), Some(closest)) = (place, backends.first())
        && !is_clearly_closer(distance(closest), distance(&backends[place]))
    {
        backends[..=place].rotate_right(1);
    }
    backends
}

/// Whether `other` is closer than `first` by so much that it is worth the change.
fn is_clearly_closer(other: Option<Duration>, first: Option<Duration>) -> bool {
    match (other, first) {
        (Some(other), Some(first)) => other + LEAST.max(first / SHARE) <= first,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::prelude::*;

    use super::*;

    fn backend(n: u8) -> Backend {
        Backend {
            ns_ip: Ipv4Addr::new(10, 18, n, 2),
            ns_ip6: None,
            instance_ip: Ipv4Addr::new(10, 30, 0, n),
            instance_ip6: None,
            node: SocketAddr::from(([192, 0, 2, n], 50103)),
        }
    }

    /// Backends 0, 1, … with these distances in milliseconds, ordered.
    fn order(distances: &[Option<u64>], first: Option<u8>) -> Vec<u8> {
        let backends = (0..u8::try_from(distances.len()).unwrap()).map(backend).collect();
        let distance = |backend: &Backend| {
            let [.., n] = backend.instance_ip.octets();
            distances[usize::from(n)].map(Duration::from_millis)
        };
        let ordered = ordered(backends, first.map(backend), distance);
        ordered.iter().map(|backend| backend.instance_ip.octets()[3]).collect()
    }

    #[test]
    fn the_closest_is_first_and_the_unknown_are_last_as_listed() {
        assert_eq!(order(&[None, Some(30), Some(10), None], None), [2, 1, 0, 3]);
        assert_eq!(order(&[None, None], None), [0, 1]);
    }

    #[test]
    fn the_first_one_stays_until_another_is_a_fifth_and_two_milliseconds_closer() {
        assert_eq!(order(&[Some(100), Some(81)], Some(0)), [0, 1]);
        assert_eq!(order(&[Some(100), Some(80)], Some(0)), [1, 0]);
        assert_eq!(order(&[Some(4), Some(3)], Some(0)), [0, 1], "a quarter, and only one millisecond");
        assert_eq!(order(&[Some(4), Some(2)], Some(0)), [1, 0]);
        assert_eq!(order(&[Some(95), Some(90), Some(100)], Some(2)), [2, 1, 0], "all others stay in order");
    }

    #[test]
    fn one_of_known_distance_comes_before_one_that_was_first_and_is_unknown() {
        assert_eq!(order(&[None, Some(500)], Some(0)), [1, 0]);
        assert_eq!(order(&[None, None], Some(1)), [1, 0], "nothing is known: it stays");
    }

    #[test]
    fn who_has_gone_is_not_first() {
        assert_eq!(order(&[Some(5), Some(4)], Some(7)), [1, 0]);
    }

    proptest! {
        #[test]
        fn measurements_that_waver_by_a_tenth_move_nothing(
            base in 1u64..500, wobble in proptest::collection::vec((0u64..=10, 0u64..=10), 1..50)
        ) {
            let mut first = None;
            for (a, b) in wobble {
                let near = |percent| Some(base * (100 + percent) / 100);
                let before = first;
                first = order(&[near(a), near(b)], first).first().copied();
                prop_assert!(before.is_none() || before == first);
            }
        }

        #[test]
        fn each_backend_is_in_the_order_once(
            distances in proptest::collection::vec(proptest::option::of(0u64..1000), 0..20), first: u8
        ) {
            let mut ordered = order(&distances, Some(first % 20));
            ordered.sort_unstable();
            prop_assert_eq!(ordered, (0..u8::try_from(distances.len()).unwrap()).collect::<Vec<_>>());
        }
    }
}
