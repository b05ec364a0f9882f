//! What cannot be run: said in words that a person can act on, and nothing of it left behind.

use anyhow::{Context, Result};
use integration::image::{self, Variant};
use serde_json::{Value, json};

use crate::bed::Bed;

/// Deploys with `changes`, and expects FAILED for a reason that says all of `words`.
fn expect_failure(bed: &Bed, number: u32, changes: Value, words: &[&str]) -> Result<()> {
    bed.deploy(number, changes)?;
    let reason = bed.wait_for(number, "FAILED")?;
    for word in words {
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }
    Ok(())
}

#[test]
fn each_cause_of_a_failure_is_named() -> Result<()> {
    let bed = Bed::start(10)?;
    let foreign = bed.path("foreign.tar");
    let architecture = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };
    image::write_variant(
        &foreign,
        &Variant { reference: "docker.io/hypha/foreign:1", architecture, ..Variant::default() },
    )?;
    bed.containerd.ctr(&[
        "image",
        "import",
        "--all-platforms",
        "--no-unpack",
        foreign.to_str().context("a path")?,
    ])?;
    let ghost = bed.path("ghost.tar");
    image::write_variant(
        &ghost,
        &Variant { reference: "docker.io/hypha/ghost:1", user: "ghost", ..Variant::default() },
    )?;
    bed.containerd.import(&ghost)?;

    let socket = bed.containerd.socket().display().to_string();
    let import = format!("ctr -a {socket} -n oakestra image import");
    let shell = |script: &str| json!({"cmd": ["/bin/sh", "-c", script]});
    for (number, (changes, words)) in (0..).zip([
        (
            json!({"image": "docker.io/library/missing:1"}),
            vec!["docker.io/library/missing:1", "not on this worker", &import],
        ),
        (json!({"image": "https://x/Y"}), vec!["https://x/Y", "without a scheme"]),
        (json!({"image": "docker.io/hypha/foreign:1"}), vec!["made for", architecture]),
        (json!({"image": "docker.io/hypha/ghost:1"}), vec!["ghost", "/etc/passwd"]),
        (json!({"cmd": ["/bin/nothing"]}), vec!["/bin/nothing", "no such file"]),
        (json!({"virtualization": "unikernel"}), vec!["containers only", "unikernel"]),
        (json!({"environment": ["NONSENSE"]}), vec!["NONSENSE", "NAME=VALUE"]),
        (json!({"cmd": "not a list"}), vec!["cannot be read", "cmd"]),
        (shell("echo cannot open configuration; exit 3"), vec!["code 3", "cannot open configuration"]),
    ]) {
        expect_failure(&bed, number, changes, &words)?;
    }
    bed.wait_until_empty()
}

#[test]
fn a_start_that_fails_half_way_is_undone() -> Result<()> {
    let bed = Bed::start(10)?;
    bed.netmanager.refuse();
    expect_failure(
        &bed,
        0,
        json!({}),
        &["connect app.ns.svc.ns.instance.0 to the overlay", "no address is left"],
    )?;
    bed.wait_until_empty()?;
    assert_eq!(bed.netmanager.requests("/container/deploy").len(), 1);
    assert!(!bed.netmanager.requests("/container/undeploy").is_empty());
    Ok(())
}

#[test]
fn malformed_messages_are_told_of_once_and_change_nothing() -> Result<()> {
    let mut bed = Bed::start(10)?;
    let long = format!(r#"{{"job_name":"{}"}}"#, "x".repeat(100_000));
    for _ in 0..3 {
        for payload in ["", "{", "null", "[1,2]", r#"{"job_name":"../../etc","instance_number":0}"#, &long] {
            bed.cluster.say("control/deploy", payload)?;
            bed.cluster.say("control/delete", payload)?;
        }
    }
    bed.deploy(0, json!({}))?;
    bed.wait_for(0, "CREATED")?;
    bed.engine.expect_running()?;
    let log = bed.log();
    let told = log.lines().filter(|line| line.contains("malformed")).count();
    assert!((2..=12).contains(&told), "{told} lines:\n{log}");
    Ok(())
}
