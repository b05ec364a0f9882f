mod nodes;

use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::{IpType, NetService, TableQuery, UpdateKind};
use serde_json::json;

use super::interests::INTERESTS_MAX;
use super::question::{ANSWER_WITHIN, ASK_AGAIN_MAX};
use super::{Act, Directory, Subject, TOLD_TO_ALL, Unreached};
use crate::cluster::instance::Address;
use crate::cluster::table::ELSEWHERE_LEAVES_WITHIN;

const WORKER: Id = Id::from_bytes([1; 12]);
const OTHER: Id = Id::from_bytes([2; 12]);
const ADDRESS: &str = "10.30.109.1";

fn name() -> ServiceName {
    "smp.bed.srv.bed".parse().unwrap()
}

fn by_name() -> Subject {
    Subject::Name(name())
}

fn by_address() -> Subject {
    Subject::parse(ADDRESS).unwrap()
}

fn query(text: &str) -> TableQuery {
    match Subject::parse(text) {
        Some(Subject::Address(_)) => TableQuery { sname: String::new(), sip: text.to_owned() },
        _ => TableQuery { sname: text.to_owned(), sip: String::new() },
    }
}

/// The root's view, with these instances, and whether they run.
fn root(instances: &[(u32, bool)]) -> NetService {
    let instances: Vec<_> = instances
        .iter()
        .map(|(number, runs)| {
            json!({"instance_number": number, "instance_ip": format!("10.30.0.{number}"),
                "namespace_ip": runs.then_some("10.18.9.2"), "host_ip": runs.then_some("198.51.100.7"),
                "host_port": 50103})
        })
        .collect();
    serde_json::from_value(json!({"_id": "6b033dd4d683569b0801fa18", "job_name": name(),
        "service_ip_list": [{"IpType": "RR", "Address": ADDRESS}], "instance_list": instances}))
    .unwrap()
}

fn address() -> Address {
    Address {
        worker: WORKER,
        namespace_ip: "10.18.0.2".to_owned(),
        namespace_ip_v6: String::new(),
        host_ip: "192.0.2.31".to_owned(),
        host_port: 50103,
        links: protocol::link::LinkOffer { vx: true },
    }
}

fn notify(subject: Subject, kind: UpdateKind) -> Act {
    Act::Notify { subject, kind }
}

/// How many instances each answer had, by worker.
fn answers(acts: &[Act]) -> Vec<(Id, usize)> {
    acts.iter()
        .filter_map(|act| match act {
            Act::Answer { worker, result } => Some((*worker, result.instance_list.len())),
            _ => None,
        })
        .collect()
}

#[test]
fn what_is_not_known_is_asked_once_for_all_who_wait() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query(ADDRESS), now);
    directory.query(OTHER, &query(ADDRESS), now);
    assert_eq!(directory.take_acts(), [Act::Ask(by_address())]);
    directory.root_answered(&by_address(), Ok(Some(root(&[(0, true)]))), now);
    let acts = directory.take_acts();
    assert_eq!(answers(&acts), [(WORKER, 1), (OTHER, 1)]);
    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    assert_eq!(answers(&directory.take_acts()), [(WORKER, 1)], "known by name too, without asking");
}

#[test]
fn a_small_table_is_told_to_all_once_it_is_whole_and_if_it_is_the_same_for_all() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.set_local(&name(), 0, Some(address()));
    assert_eq!(directory.told_to_all(&by_name()), None, "the root has not said its address");
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, true), (1, true)]))), now);
    let told = directory.told_to_all(&by_name()).unwrap();
    assert_eq!((told.app_name.as_str(), told.instance_list.len()), ("smp.bed.srv.bed", 2));
    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    let answered = directory.take_acts().into_iter().find_map(|act| match act {
        Act::Answer { result, .. } => Some(result),
        _ => None,
    });
    assert_eq!(answered, Some(told), "as if it were asked");
    assert_eq!(directory.told_to_all(&by_address()), None, "who listens there may ask for its service");

    let learn = |directory: &mut Directory, root: NetService| {
        directory.root_changed(&name(), None, UpdateKind::Deployment, now);
        directory.root_answered(&by_name(), Ok(Some(root)), now);
    };
    let many: Vec<_> = (0..=u32::try_from(TOLD_TO_ALL).unwrap()).map(|number| (number, true)).collect();
    learn(&mut directory, root(&many[..TOLD_TO_ALL]));
    assert!(directory.told_to_all(&by_name()).is_some());
    learn(&mut directory, root(&many));
    assert_eq!(directory.told_to_all(&by_name()), None, "a long one");
    let mut closest = root(&[(0, true)]);
    closest.service_ip_list[0].ip_type = IpType::Closest;
    learn(&mut directory, closest);
    assert_eq!(directory.told_to_all(&by_name()), None, "each has other distances");
}

#[test]
fn a_worker_is_answered_even_when_the_root_is_not_there() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query(ADDRESS), now);
    directory.take_acts();
    directory.tick(now + ANSWER_WITHIN - Duration::from_millis(1));
    assert_eq!(answers(&directory.take_acts()), []);
    directory.tick(now + ANSWER_WITHIN);
    assert_eq!(answers(&directory.take_acts()), [(WORKER, 0)], "the question hangs");

    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    directory.take_acts();
    directory.root_answered(&by_name(), Err(Unreached), now);
    assert_eq!(answers(&directory.take_acts()), [(WORKER, 0)], "the question failed");
}

#[test]
fn nonsense_is_answered_and_not_asked() {
    let mut directory = Directory::default();
    directory.query(WORKER, &query("no such form"), Instant::now());
    let acts = directory.take_acts();
    assert_eq!((answers(&acts), acts.len()), (vec![(WORKER, 0)], 1));
}

#[test]
fn who_asked_for_an_address_that_led_nowhere_is_told() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query(ADDRESS), now);
    directory.take_acts();
    directory.root_answered(&by_address(), Ok(None), now);
    assert_eq!(answers(&directory.take_acts()), [(WORKER, 0)]);
    // The service is made, and an instance deployed here.
    directory.set_local(&name(), 0, None);
    assert_eq!(directory.take_acts(), [Act::Ask(by_name())]);
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, false)]))), now);
    assert_eq!(directory.take_acts(), [Act::Keep(name())]);
    directory.set_local(&name(), 0, Some(address()));
    assert_eq!(
        directory.take_acts(),
        [notify(by_name(), UpdateKind::Deployment), notify(by_address(), UpdateKind::Deployment)]
    );
}

#[test]
fn an_address_is_asked_again_while_somebody_is_interested() {
    let mut now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query(ADDRESS), now);
    let mut questions = 0;
    for _ in 0..600 {
        if directory.take_acts().contains(&Act::Ask(by_address())) {
            questions += 1;
            directory.root_answered(&by_address(), Ok(None), now);
        }
        now += Duration::from_millis(500);
        directory.tick(now);
    }
    assert!((8..25).contains(&questions), "{questions} in 5 minutes");
    directory.take_acts();
    directory.ignores(WORKER, &by_address());
    directory.tick(now + ASK_AGAIN_MAX * 2);
    assert_eq!(directory.take_acts(), []);
}

#[test]
fn a_repeated_question_for_nothing_does_not_reach_the_root_each_time() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query(ADDRESS), now);
    directory.root_answered(&by_address(), Ok(None), now);
    directory.take_acts();
    directory.query(WORKER, &query(ADDRESS), now);
    let acts = directory.take_acts();
    assert_eq!((answers(&acts), acts.len()), (vec![(WORKER, 0)], 1));
}

#[test]
fn the_end_of_an_instance_is_told_at_once_and_once() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.set_local(&name(), 0, Some(address()));
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, false)]))), now);
    directory.take_acts();
    directory.set_local(&name(), 0, None);
    assert_eq!(directory.take_acts(), [notify(by_name(), UpdateKind::Undeployment)]);
    directory.set_local(&name(), 0, None);
    directory.root_changed(&name(), Some(0), UpdateKind::Undeployment, now);
    assert!(!directory.take_acts().iter().any(|act| matches!(act, Act::Notify { .. })), "told twice");
}

/// The numbers of the instances in the answer to a question by name, and of those that are leaving.
fn listed(directory: &mut Directory, now: Instant) -> (Vec<u32>, Vec<u32>) {
    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    let acts = directory.take_acts();
    let result = acts.iter().find_map(|act| match act {
        Act::Answer { result, .. } => Some(result),
        _ => None,
    });
    let numbers = |list: &[protocol::net::TableInstance]| list.iter().map(|it| it.instance_number).collect();
    let result = result.expect("an answer");
    (numbers(&result.instance_list), numbers(&result.leaving))
}

#[test]
fn an_instance_that_is_being_stopped_is_listed_apart_until_it_is_gone_whatever_the_root_says_meanwhile() {
    for root_is_first in [false, true] {
        let now = Instant::now();
        let mut directory = Directory::default();
        directory.set_local(&name(), 0, Some(address()));
        directory.root_answered(&by_name(), Ok(Some(root(&[(0, false), (1, true)]))), now);
        assert_eq!(listed(&mut directory, now), (vec![0, 1], vec![]));
        if root_is_first {
            directory.root_changed(&name(), Some(0), UpdateKind::Undeployment, now);
            assert!(directory.take_acts().contains(&notify(by_name(), UpdateKind::Undeployment)));
            assert_eq!(listed(&mut directory, now), (vec![1], vec![0]));
        }
        directory.let_go(&name(), 0, address());
        assert_eq!(
            directory.take_acts().contains(&notify(by_name(), UpdateKind::Undeployment)),
            !root_is_first,
            "told once"
        );
        directory.root_changed(&name(), Some(0), UpdateKind::Undeployment, now);
        assert_eq!(listed(&mut directory, now), (vec![1], vec![0]));
        directory.remove_local(&name(), 0);
        assert!(directory.take_acts().contains(&notify(by_name(), UpdateKind::Undeployment)));
        assert_eq!(listed(&mut directory, now), (vec![1], vec![]));
    }
}

#[test]
fn an_instance_that_is_being_stopped_while_the_cluster_restarts_is_no_choice_afterwards() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.restore(root(&[(0, true), (1, true)]));
    directory.let_go(&name(), 0, address());
    directory.restored();
    assert_eq!(listed(&mut directory, now), (vec![1], vec![0]));
}

/// A worker follows a service of which two instances run in another cluster.
fn elsewhere(now: Instant) -> Directory {
    let mut directory = Directory::default();
    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, true), (1, true)]))), now);
    assert_eq!(listed(&mut directory, now), (vec![0, 1], vec![]));
    directory
}

#[test]
fn an_instance_of_another_cluster_that_was_taken_back_is_listed_apart_for_as_long_as_programs_get_to_end() {
    let now = Instant::now();
    let mut directory = elsewhere(now);
    directory.root_changed(&name(), Some(0), UpdateKind::Undeployment, now);
    assert!(directory.take_acts().contains(&notify(by_name(), UpdateKind::Undeployment)));
    assert_eq!(listed(&mut directory, now), (vec![1], vec![0]));
    // Said a second time, and by a root that has not heard of it yet.
    let later = now + ELSEWHERE_LEAVES_WITHIN / 2;
    directory.root_changed(&name(), Some(0), UpdateKind::Undeployment, later);
    directory.root_changed(&name(), Some(1), UpdateKind::Deployment, later);
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, true), (1, true)]))), later);
    assert!(!directory.take_acts().iter().any(|act| matches!(act, Act::Notify { .. })), "told twice");
    assert_eq!(listed(&mut directory, later), (vec![1], vec![0]));
    directory.root_changed(&name(), Some(1), UpdateKind::Deployment, later);
    directory.root_answered(&by_name(), Ok(Some(root(&[(1, true)]))), later);

    directory.tick(now + ELSEWHERE_LEAVES_WITHIN - Duration::from_millis(1));
    directory.take_acts();
    directory.tick(now + ELSEWHERE_LEAVES_WITHIN);
    assert_eq!(directory.take_acts(), [notify(by_name(), UpdateKind::Undeployment)]);
    assert_eq!(listed(&mut directory, now + ELSEWHERE_LEAVES_WITHIN), (vec![1], vec![]));
}

#[test]
fn of_a_service_of_other_clusters_that_is_deleted_the_connections_go_on_as_long() {
    let now = Instant::now();
    for the_root_tells in [false, true] {
        let mut directory = elsewhere(now);
        if the_root_tells {
            directory.root_changed(&name(), None, UpdateKind::Undeployment, now);
        }
        directory.root_changed(&name(), Some(0), UpdateKind::Deployment, now);
        directory.root_answered(&by_name(), Ok(None), now);
        assert!(directory.take_acts().contains(&notify(by_name(), UpdateKind::Undeployment)));
        directory.query(WORKER, &query("smp.bed.srv.bed"), now);
        directory.root_answered(&by_name(), Ok(None), now);
        assert_eq!(listed(&mut directory, now), (vec![], vec![0, 1]));
        directory.tick(now + ELSEWHERE_LEAVES_WITHIN);
        assert!(directory.take_acts().contains(&notify(by_name(), UpdateKind::Undeployment)));
    }
}

#[test]
fn an_instance_that_moves_to_another_cluster_keeps_nothing_where_it_was() {
    let now = Instant::now();
    let mut directory = elsewhere(now);
    directory.root_changed(&name(), Some(0), UpdateKind::Deployment, now);
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, false), (1, true)]))), now);
    assert_eq!(listed(&mut directory, now), (vec![1], vec![]));
}

#[test]
fn news_while_a_question_is_on_its_way_is_asked_for_again() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    directory.root_changed(&name(), Some(1), UpdateKind::Deployment, now);
    directory.take_acts();
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, true)]))), now);
    assert!(directory.take_acts().contains(&Act::Ask(by_name())));
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, true), (1, true)]))), now);
    let acts = directory.take_acts();
    assert!(acts.contains(&notify(by_name(), UpdateKind::Deployment)), "{acts:?}");
    assert!(!acts.contains(&Act::Ask(by_name())), "{acts:?}");
}

#[test]
fn a_change_that_the_root_could_not_tell_is_asked_for_until_it_can() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, true)]))), now);
    directory.root_changed(&name(), Some(1), UpdateKind::Deployment, now);
    directory.take_acts();
    directory.root_answered(&by_name(), Err(Unreached), now);
    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    assert_eq!(answers(&directory.take_acts()), [(WORKER, 1)], "what is known stays known");
    directory.tick(now + Duration::from_secs(1));
    assert_eq!(directory.take_acts(), [Act::Ask(by_name())]);
}

#[test]
fn what_nobody_wants_is_forgotten_here_and_at_the_root() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query(ADDRESS), now);
    directory.listens(OTHER, &by_name());
    directory.root_answered(&by_address(), Ok(Some(root(&[(0, true)]))), now);
    directory.take_acts();
    directory.ignores(WORKER, &by_address());
    assert_eq!(directory.take_acts(), [], "another is interested by name");
    directory.forget_worker(OTHER);
    assert_eq!(directory.take_acts(), [Act::Forget(name())]);
    directory.query(WORKER, &query(ADDRESS), now);
    assert_eq!(directory.take_acts(), [Act::Ask(by_address())]);
}

#[test]
fn a_scan_of_the_service_network_has_an_end() {
    let now = Instant::now();
    let mut directory = Directory::default();
    for number in 0..u32::try_from(INTERESTS_MAX).unwrap() + 100 {
        let address = std::net::Ipv4Addr::from_bits(0x0a1e_0000 + number);
        directory.query(WORKER, &query(&address.to_string()), now);
        directory.root_answered(&Subject::Address(address.into()), Ok(None), now);
    }
    assert_eq!(directory.interests.count(), INTERESTS_MAX);
    assert!(directory.questions.subjects().count() <= INTERESTS_MAX);
    directory.forget_worker(WORKER);
    assert_eq!((directory.interests.count(), directory.questions.subjects().count()), (0, 0));
}

#[test]
fn an_address_that_changed_hands_leads_to_its_new_service() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query("smp.bed.srv.bed"), now);
    directory.root_answered(&by_name(), Ok(Some(root(&[(0, true), (1, true)]))), now);
    directory.root_changed(&name(), Some(1), UpdateKind::Undeployment, now);
    directory.take_acts();
    directory.query(WORKER, &query("10.30.0.1"), now);
    assert_eq!(
        directory.take_acts(),
        [Act::Ask(Subject::parse("10.30.0.1").unwrap())],
        "not this service's any more"
    );
}

#[test]
fn who_is_done_with_a_name_is_done_with_its_addresses() {
    let now = Instant::now();
    let mut directory = Directory::default();
    directory.query(WORKER, &query(ADDRESS), now);
    directory.root_answered(&by_address(), Ok(Some(root(&[(0, true)]))), now);
    directory.listens(WORKER, &by_name());
    directory.take_acts();
    directory.ignores(WORKER, &by_name());
    assert_eq!(directory.take_acts(), [Act::Forget(name())]);
}
