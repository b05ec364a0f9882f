//! From the order to run an instance to the last trace of it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::{eventually, image};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::bed::{Bed, PATIENCE, SERVICE, id, worker_groups};

/// Ends within a moment of SIGTERM, and says so.
const OBEDIENT: &str = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done";
/// Handles SIGTERM by going on.
const STUBBORN: &str = "trap 'echo no' TERM; echo up; while true; do sleep 0.1; done";

#[test]
fn an_instance_runs_as_it_was_ordered() -> Result<()> {
    let bed = Bed::start(10)?;
    let script = "hostname; id -u; echo $HOSTNAME $GREETING; cat /etc/hosts >/dev/null && exec sleep 1000";
    bed.deploy(
        3,
        json!({"cmd": ["/bin/sh", "-c", script], "environment": ["GREETING=good morning"], "port": "8080:80"}),
    )?;
    bed.wait_for(3, "CREATED")?;
    bed.wait_for_output(3, "instance-3\n0\ninstance-3 good morning\n")?;

    let pid = bed.task(3)?.pid;
    let environment = fs::read_to_string(format!("/proc/{pid}/environ"))?;
    assert!(environment.starts_with("HOSTNAME=instance-3\0"), "{environment:?}");
    for namespace in ["net", "pid", "mnt", "uts", "ipc"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        assert_ne!(of(&pid.to_string())?, of("self")?, "{namespace} namespace");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");

    // Connected before its program ran: it still was runc's own first process then.
    let attached = bed.netmanager.requests("/container/deploy");
    assert_eq!(attached.len(), 1);
    assert_eq!(
        attached[0].body,
        json!({"pid": pid, "serviceName": SERVICE, "instanceNumber": 3, "portMappings": "8080:80"})
    );
    assert!(attached[0].program.contains("runc"), "{:?}", attached[0].program);

    eventually(PATIENCE, "the instance's output in the report", || match bed.cluster.resources(3) {
        Some(report) if report["logs"].as_str().is_some_and(|logs| logs.ends_with("good morning\n")) => {
            Ok(())
        }
        other => Err(other),
    })
}

#[test]
fn the_limits_of_the_service_are_the_kernel_s() -> Result<()> {
    let bed = Bed::start(10)?;
    bed.deploy(0, json!({"memory": 33, "vcpus": 2}))?;
    bed.wait_for(0, "CREATED")?;
    let pid = bed.task(0)?.pid;
    let group = format!("/hypha/{}/{}", bed.hostname, id(0));
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    assert!(membership.contains(&group), "{membership}");
    let limits = [
        ("memory/memory.limit_in_bytes", "memory.max", (33 << 20).to_string()),
        ("cpu/cpu.cfs_quota_us", "cpu.max", "200000".to_owned()),
        ("pids/pids.max", "pids.max", "1024".to_owned()),
    ];
    for (separate, unified, expected) in limits {
        let (controller, file) = separate.split_once('/').context("a controller")?;
        let value = fs::read_to_string(format!("/sys/fs/cgroup/{controller}{group}/{file}"))
            .or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup{group}/{unified}")))?;
        assert_eq!(value.split_whitespace().next(), Some(expected.as_str()), "{file}");
    }
    Ok(())
}

#[test]
fn an_instance_that_needs_more_memory_than_it_may_is_told_so() -> Result<()> {
    let bed = Bed::start(10)?;
    bed.deploy(0, json!({"memory": 16, "cmd": ["/bin/sh", "-c", "sleep 2.5; tail /dev/zero"]}))?;
    let detail = bed.wait_for(0, "DEAD")?;
    assert!(detail.contains("more than its 16 MB of memory"), "{detail}");
    bed.wait_until_empty()
}

#[test]
fn an_undeployed_instance_ends_gracefully_and_leaves_nothing() -> Result<()> {
    let mut bed = Bed::start(30)?;
    bed.deploy_script(0, OBEDIENT)?;
    bed.wait_for(0, "CREATED")?;
    bed.wait_for_output(0, "up")?;
    let asked = Instant::now();
    bed.delete(0)?;
    bed.wait_for(0, "UNDEPLOYED")?;
    assert!(asked.elapsed() < Duration::from_secs(15), "the grace period was waited for");
    assert_eq!(bed.output(0)?, "up\nbye\n");
    bed.wait_until_empty()?;
    let statuses: Vec<_> =
        bed.cluster.reports(SERVICE, 0).iter().map(|report| report["status"].clone()).collect();
    assert_eq!(statuses, [json!("CREATED"), json!("UNDEPLOYED")]);
    let detached = bed.netmanager.requests("/container/undeploy");
    assert_eq!(detached[0].body, json!({"serviceName": SERVICE, "instanceNumber": 0}));
    bed.engine.terminate()?;
    assert_eq!(worker_groups(&bed.hostname), Vec::<PathBuf>::new());
    Ok(())
}

/// The kernel drops signals that a namespace's first process does not handle: waiting would be in vain.
#[test]
fn a_program_without_a_handler_is_not_waited_for() -> Result<()> {
    let bed = Bed::start(30)?;
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    let asked = Instant::now();
    bed.delete(0)?;
    bed.wait_for(0, "UNDEPLOYED")?;
    assert!(asked.elapsed() < Duration::from_secs(15), "the grace period was waited for");
    Ok(())
}

#[test]
fn a_stubborn_instance_is_killed_after_its_grace_and_holds_up_no_other() -> Result<()> {
    let bed = Bed::start(4)?;
    bed.deploy_script(0, STUBBORN)?;
    bed.wait_for_output(0, "up")?;
    let asked = Instant::now();
    bed.delete(0)?;
    for number in 1..=10 {
        bed.deploy(number, json!({"memory": 10}))?;
    }
    bed.wait_for(1, "CREATED")?;
    assert!(bed.cluster.last_report(SERVICE, 0).is_some_and(|report| report["status"] == "CREATED"));
    for number in 2..=10 {
        bed.wait_for(number, "CREATED")?;
    }
    bed.wait_for(0, "UNDEPLOYED")?;
    assert!(asked.elapsed() >= Duration::from_secs(4), "killed before its time");
    assert!(bed.output(0)?.ends_with("no\n"));
    Ok(())
}

#[test]
fn deploying_and_deleting_twice_is_as_once() -> Result<()> {
    let bed = Bed::start(10)?;
    bed.delete(7)?;
    bed.wait_for(7, "UNDEPLOYED")?;
    bed.deploy(7, json!({}))?;
    bed.wait_for(7, "CREATED")?;
    let pid = bed.task(7)?.pid;
    bed.cluster.clear();
    bed.deploy(7, json!({"cmd": ["/bin/false"]}))?;
    bed.wait_for(7, "CREATED")?;
    assert_eq!(bed.task(7)?.pid, pid);
    bed.delete(7)?;
    bed.delete(7)?;
    bed.wait_for(7, "UNDEPLOYED")?;
    bed.wait_until_empty()?;
    // The number can be used again.
    bed.deploy(7, json!({}))?;
    bed.wait_for(7, "CREATED")?;
    Ok(())
}

#[test]
fn a_job_that_ends_well_is_completed() -> Result<()> {
    let bed = Bed::start(10)?;
    bed.deploy(0, json!({"one_shot": true, "cmd": ["/bin/sh", "-c", "echo done"]}))?;
    bed.wait_for(0, "COMPLETED")?;
    bed.deploy(1, json!({"one_shot": true, "cmd": ["/bin/sh", "-c", "sleep 3; echo no paper; exit 4"]}))?;
    let detail = bed.wait_for(1, "DEAD")?;
    assert!(detail.contains("code 4") && detail.ends_with(": no paper"), "{detail}");
    bed.wait_until_empty()
}

#[test]
fn a_killed_service_is_dead() -> Result<()> {
    let bed = Bed::start(10)?;
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    std::thread::sleep(Duration::from_secs(2));
    integration::process::signal(bed.task(0)?.pid, Signal::SIGKILL)?;
    let detail = bed.wait_for(0, "DEAD")?;
    assert!(detail.contains("SIGKILL"), "{detail}");
    bed.wait_until_empty()?;
    eventually(PATIENCE, "a report without the instance", || match bed.cluster.resources(0) {
        None => Ok(()),
        Some(report) => Err(report),
    })
}

#[test]
fn an_image_that_nobody_unpacked_is_unpacked_and_its_user_is_looked_up() -> Result<()> {
    let bed = Bed::start_without_image(10)?;
    let archive = bed.path("image.tar");
    let reference = "docker.io/hypha/web:1";
    image::write_variant(&archive, &image::Variant { reference, user: "web", ..image::Variant::default() })?;
    bed.containerd.ctr(&["image", "import", "--no-unpack", archive.to_str().context("a path")?])?;
    bed.deploy(0, json!({"image": reference, "cmd": ["/bin/sh", "-c", "id; exec sleep 1000"]}))?;
    bed.wait_for(0, "CREATED")?;
    bed.wait_for_output(0, "uid=33(web) gid=33(web)")?;
    bed.delete(0)?;
    bed.wait_for(0, "UNDEPLOYED")?;
    bed.wait_until_empty()
}
