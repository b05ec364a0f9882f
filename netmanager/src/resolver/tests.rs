use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use protocol::name::ServiceName;
use protocol::net::{TableQuery, TableResult};
use serde_json::json;

use super::pending::NEWS;
use super::{Action, GIVE_UP, IDLE, NEGATIVE, RETRY, Resolver, SILENCE, TIMEOUT, is_use};
use crate::datapath::{Backend, Flow, FlowState, Transport};
use crate::table::OwnAddress;

mod leaving;
mod model;
mod plan;
mod rivals;
mod six;

const NAME: &str = "smp.bed.srv.bed";
const ROUND_ROBIN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 30, 109, 1));

fn v4(third: u8, last: u8) -> IpAddr {
    Ipv4Addr::new(10, 30, third, last).into()
}

fn name() -> ServiceName {
    NAME.parse().unwrap()
}

fn by_name() -> TableQuery {
    TableQuery { sname: NAME.to_owned(), sip: String::new() }
}

fn by_address(address: IpAddr) -> TableQuery {
    TableQuery { sname: String::new(), sip: address.to_string() }
}

/// An answer for the service with instances of these numbers, all running.
fn answer(query_key: &str, numbers: &[u8]) -> TableResult {
    let instances: Vec<_> = numbers
        .iter()
        .map(|number| {
            json!({"instance_number": number, "instance_ip": format!("10.30.0.{number}"),
                "namespace_ip": format!("10.18.0.{}", number + 2), "host_ip": "192.0.2.31", "host_port": 50103,
                "service_ip": [{"IpType": "RR", "Address": ROUND_ROBIN.to_string()}]})
        })
        .collect();
    serde_json::from_value(json!({"app_name": NAME, "instance_list": instances, "query_key": query_key}))
        .unwrap()
}

/// Of an instance in an [`answer`].
fn ns_ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 18, 0, number.saturating_add(2))
}

fn nobody(query_key: &str) -> TableResult {
    serde_json::from_value(json!({"app_name": "", "instance_list": [], "query_key": query_key})).unwrap()
}

/// A flow to an instance that is there.
fn flow(transport: Transport, idle: Duration) -> Flow {
    let port = |address: IpAddr| SocketAddr::new(address, 80);
    let node = port(Ipv4Addr::new(192, 0, 2, 31).into());
    let backend = Backend {
        ns_ip: Ipv4Addr::new(10, 18, 0, 66),
        ns_ip6: None,
        instance_ip: Ipv4Addr::new(10, 30, 0, 0),
        instance_ip6: None,
        node,
    };
    let client = port(Ipv4Addr::new(10, 18, 0, 2).into());
    Flow {
        transport,
        client,
        service: port(ROUND_ROBIN),
        backend: Some(backend),
        idle,
        state: FlowState::Assured,
    }
}

#[test]
fn a_silent_connection_is_a_use_as_long_as_it_can_go_on() {
    let hours = Duration::from_secs(5 * 3600);
    let open = flow(Transport::Tcp, hours);
    assert!(is_use(&open));
    assert!(!is_use(&Flow { state: FlowState::Closing, ..open }), "it has ended");
    assert!(!is_use(&Flow { backend: None, ..open }), "its instance is gone");
    assert!(!is_use(&flow(Transport::Tcp, SILENCE)), "its end was not seen");
    assert!(!is_use(&flow(Transport::Udp, hours)));
    assert!(is_use(&flow(Transport::Udp, IDLE / 2)));
}

fn connected(now: Instant) -> Resolver {
    let mut resolver = Resolver::default();
    resolver.connected(now);
    resolver
}

fn backends(actions: &[Action], address: IpAddr) -> Option<usize> {
    actions.iter().rev().find_map(|action| match action {
        Action::Publish(published, entry) if *published == address => Some(entry.backends.len()),
        _ => None,
    })
}

#[test]
fn a_miss_is_asked_once_and_its_answer_is_published_and_subscribed() {
    let now = Instant::now();
    let mut resolver = connected(now);
    assert_eq!(resolver.missed(ROUND_ROBIN, now), [Action::Query(by_address(ROUND_ROBIN))]);
    assert_eq!(resolver.missed(ROUND_ROBIN, now), [], "asked again while the answer is under way");

    let actions = resolver.answered(answer(&ROUND_ROBIN.to_string(), &[0, 1]), now);
    assert_eq!(actions[0], Action::Subscribe(name()));
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(2));
    assert_eq!(backends(&actions, v4(0, 1)), Some(1));
    assert_eq!(
        actions.last(),
        Some(&Action::Query(by_name())),
        "what changed before the subscription is missed"
    );
    assert_eq!(resolver.missed(ROUND_ROBIN, now), []);
}

#[test]
fn an_address_outside_the_overlay_s_ranges_is_never_asked_for_nor_published() {
    let now = Instant::now();
    let mut resolver = connected(now);
    assert_eq!(resolver.missed(Ipv4Addr::new(10, 17, 0, 2).into(), now), []);
    for text in ["10.17.0.2", "0.0.0.0", "203.0.113.1", "fd00::102", "2001:db8::1"] {
        assert_eq!(resolver.changed(text, now), [], "{text}");
        assert_eq!(resolver.answered(nobody(text), now), [], "{text}");
    }
}

#[test]
fn another_node_itself_is_asked_for_by_its_ns_ip_and_published_under_both() {
    let now = Instant::now();
    let mut resolver = connected(now);
    let (own, own6): (IpAddr, IpAddr) = ("10.18.0.62".parse().unwrap(), "fc00::3e".parse().unwrap());
    assert_eq!(resolver.missed(own, now).len(), 1, "asked");
    let answer = serde_json::json!({"app_name": "", "query_key": own, "instance_list": [{"instance_number": 0,
        "namespace_ip": own, "namespace_ip_v6": own6, "host_ip": "192.0.2.31", "host_port": 50103}]});
    let actions = resolver.answered(serde_json::from_value(answer).unwrap(), now);
    assert_eq!((backends(&actions, own), backends(&actions, own6)), (Some(1), Some(1)));
    // It stays, and is asked for anew when the cluster may have forgotten that it is to tell.
    assert_eq!(resolver.tick(now + NEGATIVE), []);
    let asked = resolver.connected(now);
    assert!(
        asked.iter().any(|action| matches!(action, Action::Query(query) if query.sip == own.to_string())),
        "{asked:?}"
    );
    let actions = resolver.answered(nobody(&own.to_string()), now);
    assert_eq!(backends(&actions, own), Some(0));
}

#[test]
fn who_dials_before_the_first_instance_gets_through_once_it_runs() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.missed(ROUND_ROBIN, now);
    let actions = resolver.answered(nobody(&ROUND_ROBIN.to_string()), now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(0), "the sender learns that there is nobody");

    let later = now + NEGATIVE;
    assert!(resolver.deadline().unwrap() <= later);
    assert_eq!(resolver.tick(later), [Action::Withdraw(ROUND_ROBIN)]);
    assert_eq!(resolver.missed(ROUND_ROBIN, later), [Action::Query(by_address(ROUND_ROBIN))]);
    let actions = resolver.answered(answer(&ROUND_ROBIN.to_string(), &[0]), later);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(1));
    assert_eq!(resolver.tick(later + NEGATIVE), [], "what has backends does not expire");
}

#[test]
fn a_service_that_lost_its_last_instance_is_asked_for_by_the_next_packet() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.answered(answer(NAME, &[0]), now);
    resolver.answered(answer(NAME, &[0]), now);
    assert_eq!(resolver.changed(NAME, now), [Action::Query(by_name())]);
    let actions = resolver.answered(answer(NAME, &[]), now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(0));
    assert_eq!(backends(&actions, v4(0, 0)), Some(0));

    let later = now + NEGATIVE;
    resolver.tick(later);
    assert_eq!(resolver.missed(ROUND_ROBIN, later), [Action::Query(by_address(ROUND_ROBIN))]);
    let actions = resolver.answered(answer(&ROUND_ROBIN.to_string(), &[]), later);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(0));
}

#[test]
fn a_change_during_a_query_is_asked_for_after_its_answer() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.attached(&name(), 0, now);
    assert_eq!(resolver.changed(NAME, now), [Action::Query(by_name())]);
    assert_eq!(resolver.changed(NAME, now), []);
    let actions = resolver.answered(answer(NAME, &[0]), now);
    assert_eq!(actions.last(), Some(&Action::Query(by_name())));
    let actions = resolver.answered(answer(NAME, &[0]), now);
    assert_eq!(actions, [], "nothing changed, and nothing is asked without end");
}

#[test]
fn a_table_that_is_told_with_a_change_needs_no_question_and_ends_the_one_that_waits() {
    let now = Instant::now();
    let mut resolver = connected(now);
    assert_eq!(resolver.told(NAME, answer(NAME, &[0]), now), [], "nobody here uses it");
    resolver.attached(&name(), 0, now);
    let actions = resolver.told(NAME, answer(NAME, &[0]), now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(1));
    assert!(!actions.iter().any(|action| matches!(action, Action::Query(_))), "{actions:?}");
    assert_eq!(resolver.tick(now + TIMEOUT), [], "it was answered");
    let actions = resolver.told(NAME, answer(NAME, &[0, 1]), now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(2));
    let of_another = answer("smp.bed.web.bed", &[0]);
    assert_eq!(resolver.told(NAME, of_another, now), [Action::Query(by_name())]);
}

#[test]
fn the_table_of_an_instance_that_comes_is_asked_for_only_if_nobody_tells_it() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.attached(&name(), 0, now);
    assert_eq!(resolver.deadline(), Some(now + NEWS));
    resolver.told(NAME, answer(NAME, &[0]), now);
    assert_eq!(resolver.tick(now + NEWS), [], "it was told");

    resolver.attached(&name(), 1, now);
    resolver.told(NAME, answer(NAME, &[0]), now);
    assert_eq!(resolver.tick(now + NEWS), [Action::Query(by_name())], "it was told of others alone");
    assert_eq!(resolver.tick(now + NEWS), [], "asked twice");
    assert_eq!(resolver.tick(now + NEWS + TIMEOUT), [Action::Query(by_name())]);
}

#[test]
fn an_instance_here_is_identified_as_soon_as_its_address_is_told() {
    let now = Instant::now();
    let mut resolver = connected(now);
    let actions = resolver.attached(&name(), 4, now);
    assert_eq!(actions, [Action::Subscribe(name())]);
    let mut told = answer(NAME, &[4, 5]);
    told.instance_list[0].namespace_ip = None;
    let own = OwnAddress { v4: Ipv4Addr::new(10, 30, 0, 4), v6: None };
    let identify = Action::Identify { service: name(), number: 4, own };
    assert!(resolver.answered(told, now).contains(&identify), "its place need not be known for that");
    assert!(!resolver.answered(answer(NAME, &[4, 5]), now).contains(&identify), "told twice");
    assert_eq!(resolver.own_address(&name(), 4), Some(own));
}

#[test]
fn an_unanswered_question_is_asked_again_and_one_for_a_packet_is_dropped_in_the_end() {
    let start = Instant::now();
    let mut resolver = connected(start);
    resolver.attached(&name(), 0, start);
    assert_eq!(resolver.changed(NAME, start), [Action::Query(by_name())]);
    resolver.missed(ROUND_ROBIN, start);
    assert_eq!(resolver.tick(start + TIMEOUT / 2), []);
    assert_eq!(
        resolver.tick(start + TIMEOUT),
        [Action::Query(by_name()), Action::Query(by_address(ROUND_ROBIN))]
    );
    assert_eq!(resolver.tick(start + GIVE_UP), [Action::Query(by_name())]);
    assert_eq!(
        resolver.missed(ROUND_ROBIN, start + GIVE_UP),
        [Action::Query(by_address(ROUND_ROBIN))],
        "a question that was dropped blocks the next one"
    );
}

#[test]
fn after_a_lost_session_everything_of_interest_is_asked_again() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.attached(&name(), 0, now);
    resolver.answered(answer(NAME, &[0]), now);
    resolver.disconnected();
    assert_eq!(resolver.missed(v4(9, 9), now), [], "nobody to ask");
    let actions = resolver.connected(now);
    assert_eq!(actions[0], Action::Subscribe(name()));
    assert!(actions.contains(&Action::Query(by_name())));
    assert!(actions.contains(&Action::Query(by_address(v4(9, 9)))));
}

#[test]
fn an_address_that_another_service_got_is_no_longer_the_first_ones() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.answered(answer(NAME, &[0]), now);
    let mut other = answer("oth.bed.srv.bed", &[0]);
    other.app_name = "oth.bed.srv.bed".to_owned();
    other.instance_list[0].namespace_ip = Some("10.18.0.77".to_owned());
    let actions = resolver.answered(other, now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(1));
    assert!(resolver.published().all(|(_, owner, _)| owner.unwrap().as_str() == "oth.bed.srv.bed"));
}

#[test]
fn interest_ends_when_nothing_has_used_the_service_for_long() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.answered(answer(NAME, &[0]), now);
    assert_eq!(resolver.sweep(|_| false, now + IDLE / 2), []);
    assert_eq!(resolver.sweep(|address| address == ROUND_ROBIN, now + IDLE), []);
    assert_eq!(resolver.sweep(|_| false, now + IDLE + IDLE / 2), []);
    let actions = resolver.sweep(|_| false, now + IDLE + IDLE);
    assert_eq!(
        actions,
        [
            Action::Withdraw(v4(0, 0)),
            Action::Withdraw(ROUND_ROBIN),
            Action::Unsubscribe(name()),
            Action::RemoveInterest(name())
        ]
    );
    assert_eq!(resolver.published().count(), 0);
}

#[test]
fn interest_lasts_while_an_instance_runs_here() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.attached(&name(), 0, now);
    assert_eq!(resolver.sweep(|_| false, now + 3 * IDLE), []);
    assert_eq!(resolver.detached(&name(), 0, ns_ip(0), now + 3 * IDLE), []);
    assert_eq!(resolver.sweep(|_| false, now + 3 * IDLE), []);
    assert!(!resolver.sweep(|_| false, now + 4 * IDLE).is_empty());
}

#[test]
fn what_an_earlier_run_published_stays_until_it_is_answered() {
    let now = Instant::now();
    let (mut before, mut after) = (connected(now), Resolver::default());
    before.answered(answer(NAME, &[0]), now);
    for (address, _, entry) in before.published() {
        after.adopt(address, entry.clone(), now);
    }
    assert_eq!(after.tick(now + IDLE), [], "a warm service was withdrawn");
    assert!(after.connected(now).contains(&Action::Query(by_address(ROUND_ROBIN))));
    let actions = after.answered(answer(&ROUND_ROBIN.to_string(), &[0]), now);
    assert!(!actions.iter().any(|action| matches!(action, Action::Publish(..) | Action::Withdraw(_))));
}

#[test]
fn what_the_data_plane_refuses_is_tried_again_until_it_takes_it() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.answered(answer(NAME, &[0]), now);
    resolver.answered(answer(NAME, &[0]), now);
    assert!(resolver.refused(ROUND_ROBIN, now), "the first refusal is news");
    assert!(resolver.published().all(|(address, ..)| address != ROUND_ROBIN));

    // The next packet; without one, the clock; and any answer, though it says the same.
    let actions = resolver.missed(ROUND_ROBIN, now);
    assert_eq!((actions.len(), backends(&actions, ROUND_ROBIN)), (1, Some(1)));
    assert!(!resolver.refused(ROUND_ROBIN, now), "said once, not at each try");
    assert!(resolver.deadline().unwrap() <= now + RETRY);
    let actions = resolver.tick(now + RETRY);
    assert_eq!((actions.len(), backends(&actions, ROUND_ROBIN)), (1, Some(1)));
    assert_eq!(resolver.tick(now + RETRY), [], "tried twice at once");
    assert_eq!(backends(&resolver.answered(answer(NAME, &[0]), now + RETRY), ROUND_ROBIN), Some(1));

    assert!(resolver.accepted(ROUND_ROBIN));
    assert!(!resolver.accepted(ROUND_ROBIN));
    assert_eq!(resolver.missed(ROUND_ROBIN, now + RETRY), []);
    assert_eq!(resolver.tick(now + 3 * RETRY), []);
    assert!(resolver.refused(ROUND_ROBIN, now + 3 * RETRY), "a new refusal is news again");
}
