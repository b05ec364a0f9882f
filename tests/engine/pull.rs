//! Images from a real registry, over plain HTTP, as one in a machine room or in a lab may be.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::daemon::{Daemon, Recipe};
use integration::{eventually, image, process};
use serde_json::json;

use crate::bed::{Bed, PATIENCE};

/// Not loopback: there `ctr` would know by itself that it is plain HTTP.
const REGISTRY: &str = "192.0.2.50:5000";

fn start_registry(bed: &Bed) -> Result<Daemon> {
    bed.netns.ip("addr add 192.0.2.50/32 dev lo")?;
    let (config, data) = (bed.path("registry.yml"), bed.path("registry"));
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {REGISTRY}\n",
        data.display()
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let registry = Recipe {
        name: "docker-registry".to_owned(),
        netns: Arc::clone(&bed.netns),
        program: "docker-registry".into(),
        arguments: vec!["serve".into(), config.into()],
        environment: Vec::new(),
        log: bed.path("registry.log"),
    }
    .start()?;
    eventually(PATIENCE, "the registry to listen", || {
        bed.netns.run(|| std::net::TcpStream::connect(REGISTRY).map(drop))?.map_err(anyhow::Error::from)
    })?;
    Ok(registry)
}

#[test]
fn an_image_that_is_not_here_is_pulled() -> Result<()> {
    let bed = Bed::start_pulling()?;
    let _registry = start_registry(&bed)?;
    let archive = bed.path("image.tar");
    let reference = format!("{REGISTRY}/edge/web:1");
    image::write_variant(&archive, &image::Variant { reference: &reference, ..image::Variant::default() })?;
    bed.containerd.import(&archive)?;
    let mut push = bed.netns.command("ctr")?;
    push.arg("-a").arg(bed.containerd.socket()).args([
        "-n",
        "oakestra",
        "image",
        "push",
        "--plain-http",
        &reference,
    ]);
    process::output(&mut push)?;
    bed.containerd.ctr(&["image", "rm", "--sync", &reference])?;

    // Three at once: the image is fetched once.
    for number in 0..3 {
        bed.deploy(number, json!({"image": reference}))?;
    }
    for number in 0..3 {
        bed.wait_for(number, "CREATED")?;
    }
    assert_eq!(bed.log().matches("pulling image").count(), 1);

    bed.deploy(4, json!({"image": format!("{REGISTRY}/edge/missing:1")}))?;
    let reason = bed.wait_for(4, "FAILED")?;
    assert!(reason.contains("pulling it failed") && reason.contains("not found"), "{reason}");
    Ok(())
}

#[test]
fn a_pull_that_takes_for_ever_ends_with_the_wish_for_it() -> Result<()> {
    let bed = Bed::start_pulling()?;
    bed.netns.ip("addr add 192.0.2.50/32 dev lo")?;
    // Takes connections, and never says a word.
    let _silent = bed.netns.run(|| TcpListener::bind(REGISTRY))??;
    bed.deploy(0, json!({"image": format!("{REGISTRY}/edge/web:1")}))?;
    eventually(PATIENCE, "the pull to begin", || {
        let log = bed.log();
        if log.contains("pulling image") { Ok(()) } else { Err(log) }
    })?;
    let asked = Instant::now();
    bed.delete(0)?;
    bed.wait_for(0, "UNDEPLOYED")?;
    assert!(asked.elapsed() < Duration::from_secs(5));
    bed.wait_until_empty()
}
