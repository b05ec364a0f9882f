use std::time::Duration;

use protocol::service::{Instance, Service};
use protocol::status::Status;

use super::verdict::{Verdict, failure};
use super::{Goal, Rollout};
use crate::exit::Exit;
use crate::sample;

const SECOND: Duration = Duration::from_secs(1);

fn service(instances: &[(u32, Status)]) -> Service {
    let mut service = sample::service(&sample::app(1, "hello", "demo"), 2, "web");
    service.instance_list = instances
        .iter()
        .map(|&(number, status)| Instance {
            host_ip: Some("192.0.2.11".into()),
            ..Instance::new(number, status)
        })
        .collect();
    service
}

fn rollout(wanted: usize) -> Rollout {
    since(&[], wanted)
}

fn since(before: &[Service], wanted: usize) -> Rollout {
    Rollout::new(vec![Goal { service: sample::id(2), label: "hello/web".into(), wanted }], before)
}

fn told(rollout: &mut Rollout, service: &Service, now: Duration) -> Vec<String> {
    let changes = rollout.observe(std::slice::from_ref(service), now);
    changes
        .into_iter()
        .map(|change| {
            let took = change.took.map(|took| format!(" after {}", took.as_secs())).unwrap_or_default();
            format!("{:?} {} {}{took}", change.instance, change.word, change.detail)
        })
        .collect()
}

#[test]
fn each_state_is_told_once_with_the_time_it_took() {
    let mut rollout = rollout(1);
    assert_eq!(told(&mut rollout, &service(&[]), Duration::ZERO), [""; 0]);
    let placed = service(&[(0, Status::NodeScheduled)]);
    assert_eq!(told(&mut rollout, &placed, SECOND), ["Some(0) placed on 192.0.2.11"]);
    assert_eq!(told(&mut rollout, &placed, 2 * SECOND), [""; 0]);
    let running = service(&[(0, Status::Running)]);
    assert_eq!(told(&mut rollout, &running, 4 * SECOND), ["Some(0) running on 192.0.2.11 after 3"]);
    assert_eq!(rollout.verdict(&[running]), Verdict::Done);
}

#[test]
fn an_instance_that_leaves_is_told_and_one_that_left_before_is_not() {
    let two = service(&[(0, Status::Running), (1, Status::Running), (2, Status::Undeployed)]);
    let mut rollout = since(std::slice::from_ref(&two), 1);
    assert_eq!(told(&mut rollout, &two, Duration::ZERO), [""; 0], "nothing has changed");
    assert!(
        matches!(rollout.verdict(&[two]), Verdict::Waiting(missing) if missing[0].reason.starts_with("2 instances"))
    );
    let one = service(&[(0, Status::Running)]);
    assert_eq!(told(&mut rollout, &one, SECOND), ["Some(1) removed  after 1"]);
    assert_eq!(told(&mut rollout, &one, 2 * SECOND), [""; 0]);
    assert_eq!(rollout.verdict(&[one]), Verdict::Done);
}

#[test]
fn waiting_for_a_place_ends_as_not_placed_with_the_reason() {
    let mut rollout = rollout(2);
    let mut full = service(&[(0, Status::Running)]);
    full.status = Some(Status::NoWorkerCapacity);
    full.status_detail = Some("memory: wants 9000 MB, most is 1536 MB on nuc-3".into());
    let lines = told(&mut rollout, &full, SECOND);
    assert_eq!(lines[1], "None waiting memory: wants 9000 MB, most is 1536 MB on nuc-3");
    let Verdict::Waiting(missing) = rollout.verdict(&[full]) else { panic!("not waiting") };
    let failure = failure(&missing, 60 * SECOND, false);
    assert_eq!(failure.exit, Exit::NotPlaced);
    assert!(failure.details[0].contains("1 of 2 instances are there: memory: wants 9000 MB"), "{failure:?}");
}

#[test]
fn an_instance_that_fails_again_and_again_is_not_waited_for() {
    let mut rollout = rollout(1);
    let failed = service(&[(0, Status::Failed)]);
    for round in 0..5 {
        assert!(
            matches!(rollout.verdict(std::slice::from_ref(&failed)), Verdict::Waiting(_)),
            "round {round}"
        );
        told(&mut rollout, &failed, round * SECOND);
        told(&mut rollout, &failed, round * SECOND);
        if round < 4 {
            told(&mut rollout, &service(&[(0, Status::NodeScheduled)]), round * SECOND);
        }
    }
    let Verdict::Hopeless(missing) = rollout.verdict(&[failed]) else { panic!("still waiting") };
    assert_eq!(failure(&missing, SECOND, true).exit, Exit::Failed);
}

#[test]
fn a_service_that_is_deleted_meanwhile_is_not_waited_for() {
    let Verdict::Hopeless(missing) = rollout(1).verdict(&[]) else { panic!("still waiting") };
    assert_eq!(failure(&missing, SECOND, true).exit, Exit::Failed);
}

#[test]
fn an_instance_that_is_tried_again_is_a_failed_one_until_it_runs() {
    let mut rollout = rollout(1);
    let mut failed = service(&[(0, Status::Failed)]);
    failed.instance_list[0].status_detail = Some("no such image".into());
    told(&mut rollout, &failed, SECOND);
    let retried = service(&[(0, Status::NodeScheduled)]);
    told(&mut rollout, &retried, 2 * SECOND);
    let Verdict::Waiting(missing) = rollout.verdict(&[retried]) else { panic!("not waiting") };
    let failure = failure(&missing, 2 * SECOND, false);
    assert_eq!(
        (failure.exit, failure.details),
        (Exit::Failed, vec!["hello/web/0  failed: no such image".to_owned()])
    );
    let running = service(&[(0, Status::Running)]);
    told(&mut rollout, &running, 3 * SECOND);
    assert_eq!(rollout.verdict(&[running]), Verdict::Done);
}

#[test]
fn instances_with_the_same_reason_share_a_line() {
    let six: Vec<_> = (0..6).map(|number| (number, Status::Creating)).chain([(6, Status::Failed)]).collect();
    let Verdict::Waiting(missing) = rollout(7).verdict(&[service(&six)]) else { panic!("done") };
    let failure = failure(&missing, SECOND, false);
    assert_eq!(
        failure.details,
        [
            "hello/web/0, hello/web/1, hello/web/2, hello/web/3 and 2 more  creating: its worker creates it",
            "hello/web/6  failed: no reason given; the cluster will try again",
        ]
    );
}

#[test]
fn slow_work_ends_as_timed_out() {
    let Verdict::Waiting(missing) = rollout(1).verdict(&[service(&[(0, Status::Creating)])]) else {
        panic!("done")
    };
    assert_eq!(failure(&missing, SECOND, false).exit, Exit::TimedOut);
}
