//! Machines whose clock is set while root and cluster run, as those without a battery for it are when they reach a server of time.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde_json::json;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::root::Root;

/// Another wall clock, by libfaketime. The clock that only ever grows stays as it is, as when an administrator sets the time.
struct Clock {
    folder: TempDir,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().expect("make a folder") };
        clock.set("+0");
        clock
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// So far from now: `+3650d`.
    fn set(&self, offset: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, offset).expect("write an offset");
        std::fs::rename(new, self.file()).expect("replace an offset");
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let library = std::fs::read_dir("/usr/lib")
            .expect("list /usr/lib")
            .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketime.so.1")))
            .find(|path| path.exists())
            .expect("libfaketime, of the package faketime (`cargo xtask setup` installs it)");
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

#[test]
fn clocks_that_are_set_by_years_cost_no_instance_no_cluster_and_no_worker() {
    let clock = Clock::new();
    let root = Root::start_with(&clock.environment());
    let _cluster = Cluster::join_with(&root, &clock.environment());
    let sla =
        json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [{ "application_name": "hello",
        "application_namespace": "demo", "microservices": [{ "microservice_name": "web",
        "microservice_namespace": "demo", "virtualization": "container", "code": "docker.io/hypha/busybox:1",
        "memory": 16, "vcpus": 0 }] }] })
        .to_string();
    root.admin().hypha_with(&["apply", "-f", "-"], &sla).exits(0);
    // There and back: what has happened lies ten years in the future then.
    for (count, days, offset) in [(2, 3650.0, "+3650d"), (3, -3650.0, "-3650d"), (4, 0.0, "+0")] {
        clock.set(offset);
        // Whose tokens have run out, or are not good yet, logs in again.
        let admin = root.admin();
        // It needs a cluster that is heard of, and a worker.
        admin.hypha(&["scale", &format!("web={count}"), "--timeout", "20s"]).exits(0);
        let instances = admin.hypha(&["get", "instances", "-o", "json"]).exits(0).json();
        let states: Vec<_> = instances.as_array().expect("a list").iter().map(|it| &it["status"]).collect();
        assert_eq!(states, vec![&json!("RUNNING"); count], "{offset}: {instances:#}");
        // And the daemons do have that clock.
        let begun = instances[count - 1]["last_modified_timestamp"].as_f64();
        let now = UNIX_EPOCH.elapsed().expect("a clock").as_secs_f64() + days * 86_400.0;
        assert!(begun.is_some_and(|begun| (begun - now).abs() < 3600.0), "{offset}: {begun:?}");
        let status = admin.hypha(&["status", "-o", "json"]).exits(0).json();
        assert_eq!(status["clusters"], json!({ "active": 1, "total": 1 }), "{offset}");
        assert_eq!(status["problems"], json!([]), "{offset}");
    }
}
