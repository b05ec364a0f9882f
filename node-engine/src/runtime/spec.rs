//! The OCI runtime specification of a container: what runc is told. Pure: values in, one JSON document out.

use std::path::Path;

use serde_json::{Value, json};

use super::user::User;
use crate::assignment::Limits;

/// What a container is made from.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    pub hostname: String,
    /// Path in the control group hierarchy; runc makes it, under every controller.
    pub cgroup: String,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub directory: String,
    pub user: User,
    pub limits: Limits,
    pub privileged: bool,
    pub hosts: &'a Path,
    pub resolv_conf: &'a Path,
    pub host: Host,
}

/// What differs from one host to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// `/sys/fs/cgroup` is the unified hierarchy.
    pub unified_cgroups: bool,
    /// The kernel accounts for swap, so that a limit on it can be set.
    pub swap_limit: bool,
}

/// Docker's list: what ordinary images expect to be able to do, and nothing that reaches the host.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Files by which the host could be read or led astray.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// One instance that forks without end does not take the worker's process table with it.
const PROCESSES_MAX: u32 = 1024;

/// The period over which CPU time is rationed, in microseconds; the kernel's default.
const CPU_PERIOD: u64 = 100_000;

impl Plan<'_> {
    /// The document.
    #[must_use]
    pub fn to_spec(&self) -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": self.process(),
            "root": {"path": "rootfs", "readonly": false},
            "hostname": self.hostname,
            "mounts": self.mounts(),
            "linux": {
                "namespaces": self.namespaces(),
                "cgroupsPath": self.cgroup,
                "resources": self.resources(),
                "devices": self.devices(),
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
                // Ping without a raw socket, and port 80 for a server that is not root: the network namespace
                // belongs to the container alone.
                "sysctl": {
                    "net.ipv4.ping_group_range": "0 2147483647",
                    "net.ipv4.ip_unprivileged_port_start": "0",
                },
            },
        })
    }

    fn process(&self) -> Value {
        json!({
            "terminal": false,
            "user": {
                "uid": self.user.uid,
                "gid": self.user.gid,
                "additionalGids": self.user.additional_gids,
            },
            "args": self.args,
            "env": self.env,
            "cwd": self.directory,
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "noNewPrivileges": !self.privileged,
        })
    }

    fn namespaces(&self) -> Vec<Value> {
        // With the unified hierarchy a container sees its own group as the root of it, and with it its limits.
        let cgroup = self.host.unified_cgroups.then_some("cgroup");
        ["pid", "ipc", "uts", "mount", "network"]
            .into_iter()
            .chain(cgroup)
            .map(|kind| json!({"type": kind}))
            .collect()
    }

    fn mounts(&self) -> Value {
        json!([
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
            {"destination": "/etc/hosts", "type": "bind", "source": self.hosts, "options": ["rbind", "ro"]},
            {"destination": "/etc/resolv.conf", "type": "bind", "source": self.resolv_conf,
                "options": ["rbind", "ro"]},
        ])
    }

    fn resources(&self) -> Value {
        let mut devices = vec![json!({"allow": false, "access": "rwm"})];
        if self.privileged {
            devices.push(json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}));
        }
        let mut resources = json!({"devices": devices, "pids": {"limit": PROCESSES_MAX}});
        if let Some(megabytes) = self.limits.enforced_memory_mb() {
            let bytes = megabytes.saturating_mul(1 << 20);
            resources["memory"] = json!({"limit": bytes});
            if self.host.swap_limit {
                // Memory and swap together: what does not fit is not swapped out either.
                resources["memory"]["swap"] = json!(bytes);
            }
        }
        if self.limits.cpus > 0 {
            let cpus = u64::from(self.limits.cpus);
            resources["cpu"] = json!({
                "shares": cpus.saturating_mul(1024),
                "quota": cpus.saturating_mul(CPU_PERIOD),
                "period": CPU_PERIOD,
            });
        }
        resources
    }

    /// Oakestra's `privileged`: file systems in user space.
    fn devices(&self) -> Value {
        if self.privileged {
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}])
        } else {
            json!([])
        }
    }
}

/// The environment of a container: its host name, then what the image says, then what the service says. Of two entries
/// with the same name the later one counts, at the place of the first.
#[must_use]
pub fn environment(hostname: &str, image: &[String], service: &[String]) -> Vec<String> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    let mut environment = vec![format!("HOSTNAME={hostname}"), PATH.to_owned()];
    for entry in image.iter().chain(service) {
        match environment.iter_mut().find(|present| name(present) == name(entry)) {
            Some(present) => present.clone_from(entry),
            None => environment.push(entry.clone()),
        }
    }
    environment
}

/// What the container runs: the service's `command` when there is one, else what the image says.
#[must_use]
pub fn arguments(command: &[String], entrypoint: &[String], image_command: &[String]) -> Vec<String> {
    if command.is_empty() { [entrypoint, image_command].concat() } else { command.to_vec() }
}

/// What runc itself has to say in an error that came through shim and containerd; `None` when it was not runc's.
#[must_use]
pub fn runc_complaint(message: &str) -> Option<&str> {
    let (_, reason) = message
        .split_once("OCI runtime create failed: ")
        .or_else(|| message.split_once("OCI runtime start failed: "))?;
    let reason =
        reason.rsplit_once("unable to start container process: ").map_or(reason, |(_, reason)| reason);
    Some(reason.trim_end_matches(": unknown"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{Host, Plan, arguments, environment};
    use crate::assignment::Limits;
    use crate::runtime::user::User;

    fn plan() -> Plan<'static> {
        Plan {
            hostname: "instance-3".to_owned(),
            cgroup: "/hypha/node/a.b.c.d.instance.3".to_owned(),
            args: vec!["/bin/httpd".to_owned()],
            env: vec!["HOSTNAME=instance-3".to_owned()],
            directory: "/".to_owned(),
            user: User::default(),
            limits: Limits { cpus: 2, memory_mb: 64 },
            privileged: false,
            hosts: Path::new("/etc/hosts"),
            resolv_conf: Path::new("/run/resolv.conf"),
            host: Host { unified_cgroups: false, swap_limit: true },
        }
    }

    fn list(value: &Value) -> Vec<&str> {
        value.as_array().unwrap().iter().map(|entry| entry["type"].as_str().unwrap()).collect()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_container_has_namespaces_of_its_own() {
        let spec = plan().to_spec();
        assert_eq!(list(&spec["linux"]["namespaces"]), ["pid", "ipc", "uts", "mount", "network"]);
        let unified = Plan { host: Host { unified_cgroups: true, swap_limit: true }, ..plan() }.to_spec();
        assert!(list(&unified["linux"]["namespaces"]).contains(&"cgroup"));
        assert_eq!(spec["hostname"], "instance-3");
    }

    #[test]
    fn limits_are_those_of_the_service() {
        let resources = plan().to_spec()["linux"]["resources"].clone();
        assert_eq!(resources["memory"], json!({"limit": 64 << 20, "swap": 64 << 20}));
        assert_eq!(resources["cpu"]["quota"], json!(200_000));
        let without_swap =
            Plan { host: Host { unified_cgroups: false, swap_limit: false }, ..plan() }.to_spec();
        assert_eq!(without_swap["linux"]["resources"]["memory"], json!({"limit": 64 << 20}));
        let tiny = Plan { limits: Limits { cpus: 0, memory_mb: 1 }, ..plan() }.to_spec();
        assert_eq!(
            tiny["linux"]["resources"]["memory"]["limit"],
            json!(16 << 20),
            "runc itself would not start"
        );
        let unlimited = Plan { limits: Limits::default(), ..plan() }.to_spec();
        assert!(unlimited["linux"]["resources"].get("memory").is_none());
        assert!(unlimited["linux"]["resources"].get("cpu").is_none());
    }

    #[test]
    fn only_a_privileged_container_may_gain_privileges_and_has_fuse() {
        let spec = plan().to_spec();
        assert_eq!(spec["process"]["noNewPrivileges"], json!(true));
        assert_eq!(spec["linux"]["devices"], json!([]));
        assert!(!spec["process"]["capabilities"]["bounding"].to_string().contains("SYS_ADMIN"));
        let privileged = Plan { privileged: true, ..plan() }.to_spec();
        assert_eq!(privileged["process"]["noNewPrivileges"], json!(false));
        assert_eq!(privileged["linux"]["devices"][0]["path"], "/dev/fuse");
    }

    #[test]
    fn the_later_variable_counts_and_the_host_name_comes_first() {
        let image = strings(&["PATH=/opt/bin", "MODE=image", "KEPT=1"]);
        let service = strings(&["MODE=service", "NEW=a=b"]);
        assert_eq!(
            environment("instance-0", &image, &service),
            ["HOSTNAME=instance-0", "PATH=/opt/bin", "MODE=service", "KEPT=1", "NEW=a=b"]
        );
        assert!(environment("instance-0", &[], &[])[1].starts_with("PATH="));
    }

    #[test]
    fn the_service_s_command_replaces_the_image_s() {
        let (entrypoint, command) = (strings(&["/entry"]), strings(&["serve"]));
        assert_eq!(arguments(&[], &entrypoint, &command), ["/entry", "serve"]);
        assert_eq!(arguments(&strings(&["sh"]), &entrypoint, &command), ["sh"]);
    }
}
