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

const ANSWERS: Reading = Reading {
    unanswered: 0,
    asked_port: Some(80),
    heard: Some(Duration::ZERO),
    refused: 0,
    accepted_port: Some(80),
    refused_port: None,
    round_trip: None,
};
const SILENT: Reading = Reading { unanswered: 2, heard: Some(Duration::from_secs(5)), ..ANSWERS };
const REFUSES: Reading = Reading { refused: REFUSALS, refused_port: Some(80), ..ANSWERS };

const NOBODY: fn(u16) -> bool = |_| false;

/// Runs to the moment at which something is due, and does it.
fn next(health: &mut Health, reading: Reading, now: &mut Instant) -> Vec<Action> {
    *now = health.deadline().expect("something is due").max(*now);
    health.tick(|_| Some(reading), true, *now)
}

#[test]
fn a_silent_backend_is_probed_and_set_aside_if_the_probe_is_not_answered() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    let suspected = health.suspected(backend(1), &SILENT, NOBODY, now);
    assert_eq!(suspected, Some(Action::Probe(backend(1), Probe::Connect(80))));
    assert_eq!(health.aside(&backend(1)), None, "not yet");
    assert_eq!(health.suspected(backend(1), &SILENT, NOBODY, now), None, "that is known");
    let told = now;
    assert_eq!(next(&mut health, SILENT, &mut now), [Action::SetAside(backend(1), Cause::Silent)]);
    assert_eq!(health.aside(&backend(1)), Some(Cause::Silent));
    assert!(now - told < Duration::from_millis(500));
}

#[test]
fn a_slow_backend_that_answers_the_probe_stays() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    health.suspected(backend(1), &SILENT, NOBODY, now);
    assert_eq!(next(&mut health, ANSWERS, &mut now), []);
    assert_eq!(health.aside(&backend(1)), None);
}

#[test]
fn one_that_was_set_aside_is_probed_ever_more_rarely_and_taken_back_when_it_answers() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    health.suspected(backend(1), &SILENT, NOBODY, now);
    next(&mut health, SILENT, &mut now);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let before = now;
        assert_eq!(next(&mut health, SILENT, &mut now), [Action::Probe(backend(1), Probe::Connect(80))]);
        pauses.push(now - before);
        assert_eq!(next(&mut health, SILENT, &mut now), []);
    }
    assert_eq!(pauses[..3], [1, 2, 4].map(|n| n * FIRST_PAUSE));
    assert_eq!(pauses[7], LONGEST_PAUSE);
    next(&mut health, SILENT, &mut now);
    assert_eq!(next(&mut health, ANSWERS, &mut now), [Action::TakeBack(backend(1))]);
    assert_eq!(health.aside(&backend(1)), None);
    // Forgotten in the end.
    assert_eq!(next(&mut health, ANSWERS, &mut now), []);
    assert!(health.is_empty());
}

#[test]
fn one_that_fails_again_soon_is_not_probed_as_often_as_at_first() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    for _ in 0..3 {
        health.suspected(backend(1), &SILENT, NOBODY, now);
        next(&mut health, SILENT, &mut now);
        next(&mut health, SILENT, &mut now);
        assert_eq!(next(&mut health, ANSWERS, &mut now), [Action::TakeBack(backend(1))]);
    }
    health.suspected(backend(1), &SILENT, NOBODY, now);
    next(&mut health, SILENT, &mut now);
    assert_eq!(health.deadline(), Some(now + 8 * FIRST_PAUSE));
}

#[test]
fn one_that_refuses_what_it_accepted_is_set_aside_at_once_until_it_accepts() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    let suspected = health.suspected(backend(1), &REFUSES, NOBODY, now);
    assert_eq!(suspected, Some(Action::SetAside(backend(1), Cause::Refuses)));
    assert_eq!(next(&mut health, REFUSES, &mut now), [Action::Probe(backend(1), Probe::Connect(80))]);
    assert_eq!(next(&mut health, REFUSES, &mut now), [], "it answers, by refusing");
    next(&mut health, REFUSES, &mut now);
    assert_eq!(next(&mut health, ANSWERS, &mut now), [Action::TakeBack(backend(1))]);
}

#[test]
fn a_port_that_nobody_has_accepts_nothing_and_says_nothing() {
    let (mut health, now) = (Health::default(), Instant::now());
    let scanned = Reading { refused_port: Some(81), ..REFUSES };
    assert_eq!(health.suspected(backend(1), &scanned, NOBODY, now), None);
    let elsewhere = health.suspected(backend(1), &scanned, |port| port == 81, now);
    assert_eq!(elsewhere, Some(Action::SetAside(backend(1), Cause::Refuses)), "others have it");
}

#[test]
fn one_that_does_not_take_datagrams_is_set_aside_and_tried_again_after_a_pause() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    let untaken = |health: &mut Health, now| health.untaken(backend(1), 53, |_| Answering::Another, now);
    for _ in 1..REFUSALS {
        assert_eq!(untaken(&mut health, now), None);
    }
    assert_eq!(untaken(&mut health, now), Some(Action::SetAside(backend(1), Cause::Untaken)));
    assert_eq!(untaken(&mut health, now), None, "that is known");
    assert_eq!(next(&mut health, SILENT, &mut now), [Action::TakeBack(backend(1))], "without a probe");
    assert_eq!(health.aside(&backend(1)), None);
    // The next pause is longer.
    for _ in 0..REFUSALS {
        untaken(&mut health, now);
    }
    assert_eq!(health.deadline(), Some(now + 2 * FIRST_PAUSE));
}

#[test]
fn one_whose_container_answers_a_probe_and_takes_no_datagrams_is_set_aside() {
    let (mut health, now) = (Health::default(), Instant::now());
    let reading = Reading { asked_port: None, ..SILENT };
    assert_eq!(
        health.suspected(backend(1), &reading, NOBODY, now),
        Some(Action::Probe(backend(1), Probe::Echo))
    );
    let told = (0..REFUSALS).find_map(|_| health.untaken(backend(1), 53, |_| Answering::Another, now));
    assert_eq!(told, Some(Action::SetAside(backend(1), Cause::Untaken)));
}

#[test]
fn a_row_ends_by_another_port_and_by_a_long_time() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    for port in (0..100).map(|n| 5000 + n % 2) {
        assert_eq!(health.untaken(backend(1), port, |_| Answering::Another, now), None);
    }
    for _ in 0..100 {
        now += LONGEST_PAUSE / 2 + Duration::from_millis(1);
        assert_eq!(health.untaken(backend(2), 53, |_| Answering::Another, now), None);
    }
}

#[test]
fn datagrams_to_a_port_that_nobody_has_and_those_of_one_who_answers_others_say_nothing() {
    let (mut health, now) = (Health::default(), Instant::now());
    for answering in [Answering::Nobody, Answering::Itself] {
        for _ in 0..10 * REFUSALS {
            assert_eq!(health.untaken(backend(1), 53, |_| answering, now), None);
        }
    }
    health.retain(|_| false);
    assert!(health.is_empty());
}

#[test]
fn datagrams_are_probed_by_echo() {
    let (mut health, now) = (Health::default(), Instant::now());
    let reading = Reading { asked_port: None, ..SILENT };
    let suspected = health.suspected(backend(1), &reading, NOBODY, now);
    assert_eq!(suspected, Some(Action::Probe(backend(1), Probe::Echo)));
}

#[test]
fn where_no_probe_can_be_sent_new_flows_try() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    health.suspected(backend(1), &SILENT, NOBODY, now);
    next(&mut health, SILENT, &mut now);
    now = health.deadline().unwrap();
    assert_eq!(health.tick(|_| Some(SILENT), false, now), [Action::TakeBack(backend(1))]);
}

#[test]
fn what_an_earlier_run_has_set_aside_is_probed_at_once() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    health.adopt(backend(1), now);
    assert_eq!(health.aside(&backend(1)), Some(Cause::Silent));
    assert_eq!(next(&mut health, SILENT, &mut now), [Action::Probe(backend(1), Probe::Echo)]);
}

#[test]
fn the_last_one_is_kept() {
    let (mut health, mut now) = (Health::default(), Instant::now());
    for n in 1..=2 {
        let (resting, live) = health.split(vec![backend(1), backend(2)]);
        assert!(live.len() + resting.len() == 2 && !resting.is_empty() || n == 1);
        health.suspected(backend(n), &SILENT, NOBODY, now);
        next(&mut health, SILENT, &mut now);
        if n == 1 {
            let split = health.split(vec![backend(1), backend(2)]);
            assert_eq!(split, (vec![backend(2)], vec![backend(1)]));
        }
    }
    assert_eq!(health.split(vec![backend(1), backend(2)]), (vec![backend(1), backend(2)], vec![]));
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Suspected(u8, Reading),
    Passed(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1u8..5, prop_oneof![Just(SILENT), Just(REFUSES), Just(ANSWERS)])
            .prop_map(|(n, reading)| Event::Suspected(n, reading)),
        (0u64..3000).prop_map(Event::Passed),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_new_flows_have_somewhere_to_go_and_everything_ends(
        events in proptest::collection::vec(event(), 0..60)
    ) {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let all: Vec<_> = (1..5).map(backend).collect();
        let mut aside = std::collections::BTreeSet::new();
        for event in events {
            let actions: Vec<_> = match event {
                Event::Suspected(n, reading) => {
                    health.suspected(backend(n), &reading, NOBODY, now).into_iter().collect()
                }
                Event::Passed(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    health.tick(|_| Some(SILENT), true, now)
                }
            };
            for action in actions {
                match action {
                    Action::SetAside(backend, _) => prop_assert!(aside.insert(backend), "twice"),
                    Action::TakeBack(backend) => prop_assert!(aside.remove(&backend), "it was not aside"),
                    Action::Probe(..) => {}
                }
            }
            let (live, resting) = health.split(all.clone());
            prop_assert!(!live.is_empty());
            prop_assert_eq!(live.len() + resting.len(), all.len());
        }
        // All is well again: whatever was noted ends.
        for _ in 0..4 * all.len() {
            if health.deadline().is_some() {
                next(&mut health, ANSWERS, &mut now);
            }
        }
        prop_assert!(health.is_empty());
    }

    #[test]
    fn the_time_until_the_next_look_never_grows_too_long(pauses in 0usize..30) {
        let (mut health, mut now) = (Health::default(), Instant::now());
        health.suspected(backend(1), &SILENT, NOBODY, now);
        for _ in 0..pauses {
            next(&mut health, SILENT, &mut now);
            prop_assert!(health.deadline().unwrap() <= now + LONGEST_PAUSE);
        }
    }
}
