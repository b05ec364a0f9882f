//! A disk that becomes full.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::api::Api;
use integration::application::document;
use integration::daemon::{Daemon, Recipe, binary};
use integration::{Lab, eventually};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] =
    &[("a_root_whose_disk_is_full_says_so_and_loses_nothing", a_root_whose_disk_is_full_says_so)];

const PASSWORD: &str = "Admin";
const PORTS: [&str; 3] = ["11000", "11001", "11002"];
/// More than would fill the disk many times over.
const TRIES: usize = 500;

/// A disk of a few MB. Taken away when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        let size = Some("size=3m");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), size).context("mount a small disk")?;
        Ok(Self(path))
    }

    fn grow(&self) -> Result<()> {
        let (none, size) = (None::<&str>, Some("size=64m"));
        mount(none, &self.0, none, MsFlags::MS_REMOUNT, size).context("make the disk larger")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

fn a_root_whose_disk_is_full_says_so(lab: &mut Lab) -> Result<()> {
    let disk = Disk::mount(lab.folder().join("small"))?;
    let mut root = start(lab, &disk.0)?;
    let api = login(lab)?;
    let mut accepted = 0;
    let refusal = loop {
        let answer = api.post("/api/application", &large(accepted)?)?;
        if answer.status != StatusCode::OK {
            break answer;
        }
        accepted += 1;
        ensure!(accepted < TRIES, "{TRIES} applications of 100 KB are on a disk of 3 MB");
    };
    let said = refusal.body.to_string();
    ensure!(refusal.status == StatusCode::INSUFFICIENT_STORAGE && said.contains("is full"), "{refusal:?}");
    ensure!(names(&api)?.len() == accepted, "{accepted} were accepted, there are {:?}", names(&api)?);

    disk.grow()?;
    api.post("/api/application", &large(accepted)?)?.ok().context("on a disk with room again")?;
    root.kill()?;
    root.start_again()?;
    let there = names(&login(lab)?)?;
    ensure!(there.len() == accepted + 1, "{} were accepted, there are {there:?}", accepted + 1);
    Ok(())
}

fn start(lab: &Lab, data_dir: &Path) -> Result<Daemon> {
    let [port, grpc, net] = PORTS;
    let flags = ["--bind", "127.0.0.1", "--port", port, "--grpc-port", grpc, "--net-port", net];
    let data_dir = ["root".into(), "--data-dir".into(), data_dir.as_os_str().to_owned()];
    Recipe {
        name: "root on a small disk".to_owned(),
        netns: Arc::clone(&lab.control.netns),
        program: binary("orchestrator")?,
        arguments: data_dir.into_iter().chain(flags.map(Into::into)).collect(),
        environment: vec![("HYPHA_INSECURE_ADMIN_PASSWORD".into(), PASSWORD.into())],
        log: lab.folder().join("small.log"),
    }
    .start()
}

fn login(lab: &Lab) -> Result<Api> {
    let api = Api::new(Arc::clone(&lab.control.netns), format!("http://127.0.0.1:{}", PORTS[0]));
    eventually(Duration::from_secs(10), "the root on a small disk", || {
        api.login("Admin", PASSWORD).map_err(|error| format!("{error:#}"))
    })
}

/// An application of 100 KB.
fn large(number: usize) -> Result<Value> {
    let mut document = document(&format!("large{number}"), 1)?;
    let variables: Vec<_> = (0..10).map(|each| format!("V{each}={}", "x".repeat(10_000))).collect();
    document["applications"][0]["microservices"][0]["environment"] = json!(variables);
    Ok(document)
}

fn names(api: &Api) -> Result<Vec<String>> {
    let applications = api.get("/api/applications")?.ok()?;
    let applications = applications.as_array().context("a list of applications")?;
    Ok(applications.iter().map(|one| one["application_name"].to_string()).collect())
}
