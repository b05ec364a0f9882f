use std::net::Ipv4Addr;

use protocol::cluster::{ReportedWorker, WorkerState};
use protocol::event::{Code, Kind, Severity};
use protocol::id::Id;
use protocol::service::Instance as Document;
use protocol::sla::Microservice;
use protocol::status::Status;
use serde_json::json;

use super::{Events, Happening, KEPT_MAX, MESSAGE_MAX, Names, of_service, of_workers, seen};
use crate::root::record::{Parent, Record};

const BERLIN: Id = Id::from_bytes([1; 12]);
const MUNICH: Id = Id::from_bytes([2; 12]);
const PI: Id = Id::from_bytes([3; 12]);
const NUC: Id = Id::from_bytes([4; 12]);
const APP: Id = Id::from_bytes([5; 12]);

fn names() -> Names {
    let named = [(BERLIN, "berlin"), (MUNICH, "munich"), (PI, "berlin/pi"), (NUC, "berlin/nuc")];
    Names(named.into_iter().map(|(id, name)| (id, name.to_owned())).collect())
}

/// A service with one instance that waits.
fn service() -> Record {
    let parent = Parent {
        application: APP,
        app_name: "shop".to_owned(),
        app_ns: "prod".to_owned(),
        owner: "jane".to_owned(),
    };
    let sla = Microservice {
        microservice_name: "web".to_owned(),
        microservice_namespace: "prod".to_owned(),
        code: "web:1".to_owned(),
        ..Microservice::default()
    };
    let mut record =
        Record::new(Id::from_bytes([6; 12]), &parent, sla, Ipv4Addr::new(10, 30, 0, 1), None).unwrap();
    record.add_instance(Ipv4Addr::new(10, 30, 0, 2));
    record
}

fn told(happenings: Vec<Happening>) -> Vec<(String, Code, String)> {
    happenings.into_iter().map(|it| (it.subject.name, it.code, it.message)).collect()
}

fn reported(status: Status, worker: Option<Id>, detail: &str) -> Document {
    Document { worker_id: worker, status_detail: Some(detail.to_owned()), ..Document::new(0, status) }
}

#[test]
fn the_life_of_an_instance_is_told_step_by_step_and_nothing_twice() {
    let mut record = service();
    let mut step = |change: &dyn Fn(&mut Record)| {
        let before = record.clone();
        change(&mut record);
        let happened = of_service(Some(&before), Some(&record), &names());
        assert!(
            happened.iter().all(|it| it.subject.kind == Kind::Instance && it.subject.name == "shop/web/0")
        );
        told(happened).into_iter().map(|(_, code, message)| (code, message)).collect::<Vec<_>>()
    };
    let observe = |status, worker, detail: &'static str| {
        move |record: &mut Record| record.observe(BERLIN, &reported(status, worker, detail))
    };
    let no_room = |record: &mut Record| record.explain(0, Status::NoActiveClusterWithCapacity, "full");
    assert_eq!(step(&no_room), [(Code::Waiting, "full".to_owned())]);
    assert_eq!(step(&|record| record.explain(0, Status::TargetClusterNoCapacity, "still full")), []);
    let placed = step(&|record| record.place(0, BERLIN, "here"));
    assert_eq!(placed, [(Code::Scheduled, "in cluster berlin".to_owned())]);
    let created = step(&observe(Status::Created, Some(PI), ""));
    assert_eq!(created, [(Code::Placed, "on berlin/pi".to_owned())]);
    let running = step(&observe(Status::Running, Some(PI), ""));
    assert_eq!(running, [(Code::Running, "on berlin/pi".to_owned())]);
    assert_eq!(step(&observe(Status::Running, Some(PI), "Running, but too far away")), []);
    let failed = step(&observe(Status::Failed, None, "exit code 1; next attempt in 1 s"));
    assert_eq!(failed, [(Code::Failed, "exit code 1; next attempt in 1 s".to_owned())]);
    assert_eq!(step(&observe(Status::Dead, None, "exit code 1")), [], "it is known to have failed");
    let again = step(&observe(Status::Creating, Some(PI), ""));
    assert_eq!(
        again,
        [(Code::Placed, "on berlin/pi".to_owned()), (Code::Restarted, "on berlin/pi".to_owned())]
    );
    let moved = step(&observe(Status::Running, Some(NUC), ""));
    assert_eq!(
        moved,
        [
            (Code::Moved, "from berlin/pi to berlin/nuc".to_owned()),
            (Code::Running, "on berlin/nuc".to_owned())
        ]
    );
    let moved = step(&|record| record.place(0, MUNICH, "there"));
    assert_eq!(moved, [(Code::Moved, "from cluster berlin to munich".to_owned())]);
    let gone = step(&|record| drop(record.remove_instances([0])));
    assert_eq!(gone, [(Code::Removed, String::new())]);
}

#[test]
fn a_service_comes_changes_and_goes_with_its_instances() {
    let before = service();
    let line = |name: &str, code, message: &str| (name.to_owned(), code, message.to_owned());
    assert_eq!(told(of_service(None, Some(&before), &names())), [line("shop/web", Code::Created, "web:1")]);
    let mut after = before.clone();
    after.interested.insert(BERLIN);
    assert_eq!(told(of_service(Some(&before), Some(&after), &names())), [], "nobody's business");
    after.describe(Microservice { code: "web:2".to_owned(), ..before.service.sla.clone() });
    assert_eq!(
        told(of_service(Some(&before), Some(&after), &names())),
        [line("shop/web", Code::Changed, "for instances that are started from now on")]
    );
    assert_eq!(
        told(of_service(Some(&before), None, &names())),
        [line("shop/web/0", Code::Removed, "with its service"), line("shop/web", Code::Deleted, "")]
    );
}

fn worker(id: Id, change: impl FnOnce(&mut ReportedWorker)) -> ReportedWorker {
    let mut worker: ReportedWorker = serde_json::from_value(json!({
        "_id": id, "name": "pi", "ip": "192.0.2.31", "state": "ready", "cordoned": false, "draining": false,
        "silent": 0, "vcpus": 4, "cpu_percent": 7.5, "memory": 3200, "memory_percent": 20.0,
        "architecture": "arm64", "virtualization": ["docker"], "instances": 3,
    }))
    .unwrap();
    change(&mut worker);
    worker
}

#[test]
fn what_a_cluster_tells_of_its_workers_is_news_once() {
    let pi = |change: fn(&mut ReportedWorker)| vec![worker(PI, change)];
    let steps = [
        (pi(|_| {}), vec![(Code::Joined, "192.0.2.31")]),
        (
            pi(|it| it.state = WorkerState::Unreachable),
            vec![(Code::Unreachable, "it has missed reports; nothing is moved yet")],
        ),
        (pi(|it| (it.state, it.silent) = (WorkerState::Unreachable, 9)), vec![]),
        (
            pi(|it| (it.state, it.silent) = (WorkerState::Dead, 30)),
            vec![(Code::Dead, "silent for 30 s; its instances go elsewhere")],
        ),
        (pi(|it| it.cordoned = true), vec![(Code::Back, "it was dead"), (Code::Cordoned, "by an operator")]),
        (pi(|_| {}), vec![(Code::Uncordoned, "by an operator")]),
        (vec![], vec![(Code::Gone, "it is not expected any more")]),
    ];
    let mut before = seen([].iter());
    for (after, expected) in steps {
        let happened = told(of_workers(&before, &after, &names()));
        let expected: Vec<_> = expected
            .iter()
            .map(|(code, message)| ("berlin/pi".to_owned(), *code, (*message).to_owned()))
            .collect();
        assert_eq!(happened, expected);
        before = seen(after.iter());
    }
}

#[test]
fn the_last_are_kept_in_order_and_bounded_and_are_whose_the_application_is() {
    let events = Events::default();
    events.is_called(BERLIN, "berlin");
    events.of_cluster(BERLIN, Code::Lost, "x".repeat(MESSAGE_MAX - 1) + "ää");
    events.of_workers(BERLIN, None, &[worker(PI, |_| {})]);
    events.of_workers(BERLIN, Some(&seen([].iter())), &[worker(PI, |_| {})]);
    events.belongs(APP, ("jane".to_owned(), MUNICH));
    events.of_service(None, Some(&service()));
    let all = events.all();
    let summary: Vec<_> =
        all.iter().map(|(event, owner)| (event.subject.name.as_str(), event.code, owner.clone())).collect();
    assert_eq!(
        summary,
        [
            ("berlin", Code::Lost, None),
            ("berlin/pi", Code::Joined, None),
            ("shop/web", Code::Created, Some(("jane".to_owned(), MUNICH))),
        ],
        "what is told of first has not happened now"
    );
    assert_eq!((all[0].0.message.len(), all[0].0.severity), (MESSAGE_MAX - 1, Severity::Error));
    for _ in 0..KEPT_MAX {
        events.of_cluster(BERLIN, Code::Back, "");
    }
    let all = events.all();
    assert_eq!(all.len(), KEPT_MAX);
    assert!(all.iter().all(|(event, _)| event.code == Code::Back), "the oldest are gone");
    assert!(all.is_sorted_by(|a, b| a.0.id < b.0.id));
}
