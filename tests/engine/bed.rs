//! One worker with everything around it that node-engine talks to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::containerd::{Containerd, Task};
use integration::daemon::{Daemon, Recipe, binary};
use integration::netns::require_root;
use integration::{Netns, eventually, image, process};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::netmanager::Netmanager;

/// Long enough for a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SERVICE: &str = "app.ns.svc.ns";

/// Stopped and removed when it is dropped.
pub(crate) struct Bed {
    // In the order of their end.
    pub(crate) engine: Daemon,
    pub(crate) netmanager: Netmanager,
    pub(crate) cluster: Cluster,
    pub(crate) containerd: Containerd,
    pub(crate) netns: Arc<Netns>,
    pub(crate) hostname: String,
    folder: Folder,
}

impl Bed {
    /// With the standard image, and this long to stop.
    pub(crate) fn start(grace_s: u32) -> Result<Self> {
        let bed = Self::start_without_image(grace_s)?;
        let archive = bed.path("image.tar");
        image::write_archive(&archive)?;
        bed.containerd.import(&archive)?;
        Ok(bed)
    }

    pub(crate) fn start_without_image(grace_s: u32) -> Result<Self> {
        Self::start_with(grace_s, "never")
    }

    /// Without an image, but with leave to fetch one.
    pub(crate) fn start_pulling() -> Result<Self> {
        Self::start_with(10, "missing")
    }

    fn start_with(grace_s: u32, pull: &str) -> Result<Self> {
        require_root()?;
        let folder = Folder::make()?;
        let hostname = folder.0.file_name().and_then(|name| name.to_str()).unwrap_or("worker").to_owned();
        let netns = Arc::new(Netns::new("engine")?);
        let containerd = Containerd::start(&hostname, &netns, &folder.0.join("containerd"))?;
        let cluster = Cluster::start(&netns, &folder.0)?;
        let socket = folder.0.join("netmanager.sock");
        let netmanager = Netmanager::start(&socket)?;
        let flags = [
            ("-a", cluster.address().to_string().into()),
            ("-p", cluster.api_port().to_string().into()),
            ("--netmanager-socket", socket.into()),
            ("--containerd", containerd.socket().into()),
            ("--hostname", (&hostname).into()),
            ("--log-dir", folder.0.join("logs").into()),
            ("--state-dir", folder.0.join("state").into()),
            ("--grace", grace_s.to_string().into()),
            ("--pull", pull.into()),
        ];
        let engine = Recipe {
            name: "node-engine".to_owned(),
            netns: Arc::clone(&netns),
            program: binary("node-engine")?,
            arguments: flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect(),
            environment: Vec::new(),
            log: folder.0.join("node-engine.log"),
        }
        .start()?;
        let mut bed = Self { engine, netmanager, cluster, containerd, netns, hostname, folder };
        bed.wait_until_joined()?;
        Ok(bed)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// Everything that node-engine has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.engine.recipe().log).unwrap_or_default()
    }

    pub(crate) fn wait_until_joined(&mut self) -> Result<()> {
        eventually(PATIENCE, "node-engine to listen for commands", || {
            self.engine.expect_running().map_err(|error| format!("{error:#}"))?;
            if self.cluster.has_listener() { Ok(()) } else { Err(self.engine.recipe().log_tail()) }
        })
    }

    /// Sends a deployment of the standard image, in which the keys of `changes` are replaced.
    pub(crate) fn deploy(&self, number: u32, changes: Value) -> Result<()> {
        let mut order = json!({
            "_id": "6b033dd4d683569b0801fa18", "job_name": SERVICE, "microserviceID": "6b033dd4d683569b0801fa18",
            "virtualization": "docker", "code": image::REFERENCE, "image": image::REFERENCE,
            "cmd": ["/bin/httpd", "-f", "-p", "80", "-h", "/www"], "memory": 20, "vcpus": 1, "port": "",
            "addresses": {"rr_ip": "10.30.109.1"}, "constraints": [], "instance_list": [], "RR_ip_v6": null,
            "status": "NODE_SCHEDULED", "instance_number": number,
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            order[key] = value.clone();
        }
        self.cluster.say("control/deploy", &order.to_string())
    }

    /// Deploys `script` for the shell.
    pub(crate) fn deploy_script(&self, number: u32, script: &str) -> Result<()> {
        self.deploy(number, json!({"cmd": ["/bin/sh", "-c", script]}))
    }

    pub(crate) fn delete(&self, number: u32) -> Result<()> {
        let order = json!({"job_name": SERVICE, "virtualization": "docker", "instance_number": number});
        self.cluster.say("control/delete", &order.to_string())
    }

    /// Waits until the last word on the instance is `status`, and returns its detail.
    pub(crate) fn wait_for(&self, number: u32, status: &str) -> Result<String> {
        let what = format!("instance {number} to be {status}");
        eventually(PATIENCE, &what, || match self.cluster.last_report(SERVICE, number) {
            Some(report) if report["status"] == status => {
                Ok(report["status_detail"].as_str().unwrap_or_default().to_owned())
            }
            other => Err(other),
        })
        .with_context(|| self.engine.recipe().log_tail())
    }

    /// The instance's process, as containerd tells.
    pub(crate) fn task(&self, number: u32) -> Result<Task> {
        let id = id(number);
        let tasks = self.containerd.tasks()?;
        tasks.into_iter().find(|task| task.id == id).with_context(|| format!("{id} has no task"))
    }

    /// Waits until nothing is left of any instance: no container, task, snapshot or control group.
    pub(crate) fn wait_until_empty(&self) -> Result<()> {
        eventually(PATIENCE, "nothing to be left of the instances", || {
            let rest = self.rest().map_err(|error| format!("{error:#}"))?;
            if rest.is_empty() { Ok(()) } else { Err(rest.join(", ")) }
        })
        .with_context(|| self.engine.recipe().log_tail())
    }

    fn rest(&self) -> Result<Vec<String>> {
        let snapshots = self.containerd.ctr(&["snapshot", "ls"])?;
        let snapshots =
            snapshots.lines().filter(|line| line.contains("-snapshotter")).map(|line| line.trim().to_owned());
        let tasks = self.containerd.tasks()?.into_iter().map(|task| format!("task {}", task.id));
        let records = fs::read_dir(self.path("state/instances")).context("read the records")?;
        let records = records.flatten().map(|entry| format!("record {}", entry.path().display()));
        let groups = cgroups(&self.hostname).into_iter().map(|path| format!("group {}", path.display()));
        Ok(self
            .containerd
            .containers()?
            .into_iter()
            .chain(snapshots)
            .chain(tasks)
            .chain(records)
            .chain(groups)
            .collect())
    }

    /// What the instance has written.
    pub(crate) fn output(&self, number: u32) -> Result<String> {
        let path = self.path("logs").join(id(number));
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    pub(crate) fn wait_for_output(&self, number: u32, text: &str) -> Result<()> {
        eventually(PATIENCE, &format!("{text:?} in the log of instance {number}"), || {
            match self.output(number) {
                Ok(output) if output.contains(text) => Ok(()),
                other => Err(other.map_err(|error| format!("{error:#}"))),
            }
        })
    }
}

/// The container of an instance.
pub(crate) fn id(number: u32) -> String {
    format!("{SERVICE}.instance.{number}")
}

/// The control groups of the worker's instances.
fn cgroups(hostname: &str) -> Vec<PathBuf> {
    worker_groups(hostname)
        .into_iter()
        .filter_map(|group| fs::read_dir(group).ok())
        .flat_map(|groups| groups.flatten().map(|group| group.path()))
        .filter(|path| path.is_dir())
        .collect()
}

/// The control group of the worker itself, in every hierarchy that has it.
pub(crate) fn worker_groups(hostname: &str) -> Vec<PathBuf> {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|hierarchy| hierarchy.join("hypha").join(hostname))
        .filter(|group| group.is_dir())
        .collect()
}

struct Folder(PathBuf);

impl Folder {
    /// Short, because the path of a UNIX socket has at most 107 bytes.
    fn make() -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new("/tmp").join(format!("hypha-engine-{}-{number}", std::process::id()));
        ensure!(!path.exists(), "{} is there already", path.display());
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("HYPHA_LAB_KEEP").is_none() {
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

impl Drop for Bed {
    /// Containers outlive the daemons, by design; here they must not.
    fn drop(&mut self) {
        if process::is_alive(self.engine.pid()) {
            self.engine.kill().ok();
        }
        process::end_all_in_netns(self.netns.path()).ok();
        for group in cgroups(&self.hostname).into_iter().chain(worker_groups(&self.hostname)) {
            fs::remove_dir(group).ok();
        }
    }
}
