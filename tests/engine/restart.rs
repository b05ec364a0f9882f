//! node-engine ends, and is started again.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::bed::{Bed, SERVICE, id};

#[test]
fn what_runs_is_adopted_and_what_ended_is_reported() -> Result<()> {
    let mut bed = Bed::start(10)?;
    bed.deploy(0, json!({}))?;
    bed.deploy(1, json!({}))?;
    bed.deploy(2, json!({"one_shot": true, "cmd": ["/bin/sh", "-c", "echo up; while [ ! -e /tmp/end ]; do sleep 0.1; done"]}))?;
    for number in [0, 1, 2] {
        bed.wait_for(number, "CREATED")?;
    }
    bed.wait_for_output(2, "up")?;
    let pids = [bed.task(0)?.pid, bed.task(1)?.pid, bed.task(2)?.pid];

    bed.engine.kill()?;
    integration::process::signal(pids[1], Signal::SIGKILL)?;
    fs::write(format!("/proc/{}/root/tmp/end", pids[2]), "")?;
    integration::eventually(crate::bed::PATIENCE, "the job to end", || {
        if integration::process::is_alive(pids[2]) { Err(pids[2]) } else { Ok(()) }
    })?;
    bed.cluster.clear();
    bed.engine.start_again()?;

    bed.wait_for(0, "CREATED")?;
    let detail = bed.wait_for(1, "DEAD")?;
    assert!(detail.contains("SIGKILL"), "{detail}");
    bed.wait_for(2, "COMPLETED")?;
    assert_eq!(bed.task(0)?.pid, pids[0], "the running container is another one");
    assert_eq!(
        bed.netmanager.requests("/container/deploy").len(),
        3,
        "an adopted container was connected again"
    );

    // It is in the same hands as before.
    bed.delete(0)?;
    bed.wait_for(0, "UNDEPLOYED")?;
    bed.wait_until_empty()
}

#[test]
fn a_clean_stop_leaves_the_containers_running() -> Result<()> {
    let mut bed = Bed::start(10)?;
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    let pid = bed.task(0)?.pid;
    let status = bed.engine.terminate()?;
    ensure!(status.success(), "{status}");
    assert_eq!(bed.task(0)?.pid, pid);
    assert_eq!(bed.task(0)?.status, "RUNNING");
    assert_eq!(bed.cluster.reports(SERVICE, 0).len(), 1);
    Ok(())
}

/// A reboot takes all processes; containerd keeps its records on disk, and so does node-engine.
#[test]
fn after_a_reboot_the_instances_are_started_again_without_a_cluster() -> Result<()> {
    let mut bed = Bed::start(10)?;
    bed.deploy(
        0,
        json!({"environment": ["KEPT=yes"], "cmd": ["/bin/sh", "-c", "echo kept $KEPT; exec sleep 1000"]}),
    )?;
    bed.wait_for(0, "CREATED")?;
    bed.wait_for_output(0, "kept yes")?;
    let pid = bed.task(0)?.pid;
    bed.engine.kill()?;
    bed.containerd.ctr(&["task", "rm", "-f", &id(0)])?;
    let path = bed.path("state/instances").join(format!("{}.json", id(0)));
    let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
    record["boot_id"] = json!("the boot before");
    fs::write(&path, record.to_string())?;
    bed.cluster.close_api();
    bed.cluster.broker.kill()?;

    // netmanager is not up yet either.
    bed.netmanager.close();
    bed.engine.start_again()?;
    integration::eventually(crate::bed::PATIENCE, "a first try", || {
        let log = bed.log();
        if log.contains("not started again after the reboot") { Ok(()) } else { Err(log) }
    })?;
    bed.netmanager.open()?;
    let task =
        integration::eventually(crate::bed::PATIENCE, "the instance to run again", || match bed.task(0) {
            Ok(task) if task.status == "RUNNING" => Ok(task),
            other => Err(format!("{other:?}")),
        })?;
    assert_ne!(task.pid, pid);
    let output = bed.output(0)?;
    assert_eq!(output, "kept yes\nkept yes\n");

    bed.cluster.broker.start_again()?;
    bed.cluster.open_api()?;
    bed.wait_for(0, "CREATED")?;
    Ok(())
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_and_the_first_unharmed() -> Result<()> {
    let mut bed = Bed::start(10)?;
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    let (status, said) = bed.engine.start_second()?;
    assert_eq!(status.code(), Some(1), "{said}");
    let state = bed.path("state").display().to_string();
    let holder = bed.engine.pid().to_string();
    ensure!(said.contains(&state) && said.contains(&holder), "{said}");
    bed.engine.expect_running()?;
    bed.delete(0)?;
    bed.wait_for(0, "UNDEPLOYED")?;
    Ok(())
}

#[test]
fn wrong_flags_are_named() -> Result<()> {
    let run = |flags: &[&str]| -> Result<(Option<i32>, String)> {
        let output = std::process::Command::new(integration::daemon::binary("node-engine")?)
            .args(flags)
            .output()
            .context("run node-engine")?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    for (flags, word) in [
        (&["-a", "http://x"][..], "--cluster"),
        (&["-a", "x", "-n", "none"], "--netmanager-port"),
        (&[], "--cluster"),
    ] {
        let (code, said) = run(flags)?;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(word), "{said}");
    }
    let (code, said) = run(&["-a", "x", "--state-dir", "/proc/nowhere"])?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/proc/nowhere"), "{said}");
    Ok(())
}
