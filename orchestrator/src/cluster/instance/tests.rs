use std::time::{Duration, Instant};

use protocol::decision::{Decision, Rejection};
use protocol::id::Id;
use protocol::outage::Reconcile;
use protocol::service::Instance as Document;
use protocol::status::Status;

use super::{Instance, PAUSE_MAX, Phase, pause};
use crate::cluster::decisions::WithoutPlace;

const SERVICE: Id = Id::from_bytes([7; 12]);
const WORKER: Id = Id::from_bytes([1; 12]);

fn placed(now: Instant) -> Instance {
    let mut instance = Instance::new(SERVICE, Document::new(3, Status::Requested));
    assert!(instance.placeable(now, false));
    instance.place(WORKER, "192.0.2.31", 50011, now);
    instance
}

fn up(now: Instant) -> Instance {
    let mut instance = placed(now);
    assert!(instance.is_up(WORKER, Status::Running, "", now));
    instance
}

#[test]
fn from_placement_to_running() {
    let now = Instant::now();
    let mut instance = placed(now);
    assert_eq!(instance.status(), Status::NodeScheduled);
    assert!(instance.unreported());
    assert!(instance.is_up(WORKER, Status::Created, "", now));
    assert!(instance.unreported(), "created is not measured yet");
    assert!(instance.is_up(WORKER, Status::Running, "", now));
    assert!(!instance.unreported());
    assert!(!instance.is_up(WORKER, Status::Running, "", now), "nothing new");
    assert!(!instance.is_up(WORKER, Status::Created, "", now), "late news");
    assert_eq!(instance.status(), Status::Running);
}

#[test]
fn pauses_grow_to_a_limit_and_differ_between_instances() {
    for failures in 1..30 {
        let wait = pause(failures, SERVICE, 0);
        let nominal = Duration::from_secs(1 << (failures - 1).min(16)).min(PAUSE_MAX);
        assert!(wait >= nominal * 3 / 4 && wait <= nominal * 5 / 4, "{failures}: {wait:?}");
    }
    let waits: std::collections::HashSet<_> = (0..10).map(|number| pause(1, SERVICE, number)).collect();
    assert!(waits.len() > 5, "{waits:?}");
}

#[test]
fn a_failed_instance_waits_for_its_next_attempt() {
    let now = Instant::now();
    let mut instance = up(now);
    instance.fail(Status::Dead, "exit code 1", now);
    assert_eq!((instance.status(), instance.worker()), (Status::Dead, None));
    assert!(!instance.placeable(now, true));
    assert!(instance.placeable(now + Duration::from_secs(2), false));
    let detail = instance.record.document.status_detail.clone().unwrap();
    assert!(detail.starts_with("exit code 1; next attempt in"), "{detail}");
    instance.place(WORKER, "192.0.2.31", 50011, now);
    instance.is_up(WORKER, Status::Running, "Running", now);
    let detail = instance.record.document.status_detail.as_deref();
    assert_eq!(detail, Some("Running; before: exit code 1"), "the reason stays to be seen");
}

#[test]
fn a_stable_run_forgives_earlier_failures() {
    let now = Instant::now();
    let mut instance = up(now);
    instance.record.failures = 9;
    instance.fail(Status::Dead, "exit code 1", now + Duration::from_secs(61));
    assert_eq!(instance.record.failures, 1);
}

#[test]
fn an_instance_whose_worker_is_gone_need_not_wait() {
    let now = Instant::now();
    let mut instance = up(now);
    instance.lose_worker("pi1 is silent".to_owned(), Reconcile::Newest);
    assert!(instance.placeable(now, false));
    assert_eq!(instance.record.failures, 0);
}

#[test]
fn without_room_it_waits_for_room_only() {
    let now = Instant::now();
    let mut instance = Instance::new(SERVICE, Document::new(0, Status::Requested));
    let mut no_room = |detail: &str, count, seconds| {
        let rejection = Rejection { filter: "memory".into(), count, detail: String::new() };
        let decision = Decision { rejections: vec![rejection], ..Decision::default() };
        let refused = WithoutPlace::new(&decision, now + Duration::from_secs(seconds));
        instance.no_room(detail.to_owned(), refused, false)
    };
    assert!(no_room("full", 1, 0));
    assert!(!no_room("full", 1, 1), "told twice");
    assert!(!no_room("as full, with another number", 1, 1));
    assert!(no_room("fuller", 2, 2));
    assert!(no_room("as full, with another number", 2, 400), "it is not wrong for ever");
    assert!(!instance.placeable(now + Duration::from_secs(3600), false));
    assert!(instance.placeable(now, true));
}

#[test]
fn removal_asks_the_worker_that_has_it() {
    let now = Instant::now();
    assert_eq!(up(now).remove(now), Some(WORKER));
    assert_eq!(Instance::new(SERVICE, Document::new(0, Status::Requested)).remove(now), None);
}

#[test]
fn every_state_survives_the_store() {
    let now = Instant::now();
    let mut failed = up(now);
    failed.fail(Status::Failed, "no such image", now);
    let mut completed = up(now);
    completed.complete("done");
    let mut removing = up(now);
    removing.remove(now);
    for mut instance in [placed(now), up(now), failed, completed, removing] {
        // The last digit of a time is not kept.
        instance.record.document.last_modified_timestamp = 1_795_374_560.5;
        let stored = serde_json::to_string(&instance.record).unwrap();
        let restored = Instance::restore(serde_json::from_str(&stored).unwrap(), now);
        assert_eq!(restored.record, instance.record);
        assert_eq!(std::mem::discriminant(&restored.phase), std::mem::discriminant(&instance.phase));
        assert_eq!(restored.worker(), instance.worker());
    }
    assert!(matches!(placed(now).phase, Phase::Placed { .. }));
}
