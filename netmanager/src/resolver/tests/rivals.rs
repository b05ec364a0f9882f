//! Two services that are said to have the same address.

use super::*;

const OTHER: &str = "smp.bed.other.bed";

/// As [`answer`], for another service with the same ServiceIP.
fn answer_of_other(numbers: &[u8]) -> TableResult {
    let mut result = answer(OTHER, numbers);
    result.app_name = OTHER.to_owned();
    for instance in &mut result.instance_list {
        let last = u8::try_from(instance.instance_number).unwrap();
        instance.instance_ip = Some(Ipv4Addr::new(10, 30, 9, last));
    }
    result
}

fn by_other_name() -> Action {
    Action::Query(TableQuery { sname: OTHER.to_owned(), sip: String::new() })
}

fn contested() -> Action {
    Action::Contested { address: ROUND_ROBIN, holder: OTHER.parse().unwrap(), rival: name() }
}

fn both(now: Instant) -> Resolver {
    let mut resolver = connected(now);
    for result in [answer(NAME, &[0]), answer(NAME, &[0]), answer_of_other(&[0, 1]), answer_of_other(&[0, 1])]
    {
        resolver.answered(result, now);
    }
    resolver
}

#[test]
fn an_address_that_two_services_name_changes_hands_once_and_a_person_is_told_once() {
    let now = Instant::now();
    let mut resolver = connected(now);
    resolver.answered(answer(NAME, &[0]), now);
    resolver.answered(answer(NAME, &[0]), now);

    let actions = resolver.answered(answer_of_other(&[0, 1]), now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(2));
    assert!(actions.contains(&Action::Query(by_name())), "who had it is not asked: {actions:?}");
    resolver.answered(answer_of_other(&[0, 1]), now);

    let actions = resolver.answered(answer(NAME, &[0]), now);
    assert_eq!(actions, [contested()], "taken back");
    assert_eq!(resolver.owner(ROUND_ROBIN), Some(&OTHER.parse().unwrap()));
    for _ in 0..3 {
        assert_eq!(resolver.answered(answer(NAME, &[0]), now), []);
        assert_eq!(resolver.answered(answer_of_other(&[0, 1]), now), []);
    }
}

#[test]
fn an_address_that_its_service_gives_up_goes_to_the_other_one_that_names_it() {
    let now = Instant::now();
    let mut resolver = both(now);
    resolver.answered(answer(NAME, &[0]), now);

    let actions = resolver.answered(answer_of_other(&[]), now);
    assert!(actions.contains(&Action::Query(by_name())), "{actions:?}");
    let actions = resolver.answered(answer(NAME, &[0]), now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(1));
    assert_eq!(resolver.owner(ROUND_ROBIN), Some(&name()));
}

#[test]
fn an_address_that_has_moved_for_good_can_move_back() {
    let now = Instant::now();
    let mut resolver = both(now);
    let mut without = answer(NAME, &[0]);
    without.instance_list[0].service_ip.clear();
    assert_eq!(resolver.answered(without, now), []);

    let actions = resolver.answered(answer(NAME, &[0]), now);
    assert_eq!(backends(&actions, ROUND_ROBIN), Some(1), "{actions:?}");
    assert!(actions.contains(&by_other_name()), "{actions:?}");
}

#[test]
fn an_address_of_two_services_whose_holder_is_not_used_any_more_is_asked_for() {
    let now = Instant::now();
    let mut resolver = both(now);
    resolver.answered(answer(NAME, &[0]), now);
    resolver.attached(&name(), 0, now);

    let later = now + IDLE;
    let actions = resolver.sweep(|_| false, later);
    assert!(actions.contains(&Action::Withdraw(ROUND_ROBIN)), "{actions:?}");
    assert_eq!(resolver.missed(ROUND_ROBIN, later), [Action::Query(by_address(ROUND_ROBIN))]);
}
