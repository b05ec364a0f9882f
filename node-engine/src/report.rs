//! The two reports of every 2 s: the worker itself, and what each of its instances uses. Being named in the second one
//! is being alive, so an instance is named from its first moment on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::name::InstanceName;
use protocol::node::{InstanceResources, Node, ResourceReport};
use protocol::service::CONTAINER;
use serde_json::{Map, json};

use crate::cgroup::{Cgroup, Usage};
use crate::config::Config;
use crate::logs;
use crate::probe::{self, CpuTimes, Memory, ratio};

/// How much of an instance's log goes with a report.
const LOG_TAIL: usize = 1024;

/// The port that a worker names for itself. It listens on none; Oakestra shows this one for such workers.
const NOMINAL_PORT: &str = "50011";

/// A running instance, as far as reports go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    pub name: InstanceName,
    pub pid: u32,
    pub log: PathBuf,
}

/// Describes the worker. Remembers the processor times of the reading before, of which it tells the difference.
#[derive(Debug)]
pub struct NodeReporter {
    static_part: Node,
    cluster: Option<IpAddr>,
    state_dir: PathBuf,
    cpu: CpuTimes,
}

impl NodeReporter {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let extra = Map::from_iter([
            ("gpu_driver".to_owned(), json!("-")),
            ("gpu_usage".to_owned(), json!(0)),
            ("gpu_temp".to_owned(), json!(0)),
            ("vram_percent".to_owned(), json!(0)),
            ("vram".to_owned(), json!(0)),
            ("Overlay".to_owned(), json!(config.netmanager.is_some())),
            ("OverlaySocket".to_owned(), json!(config.overlay_socket())),
            ("LogDirectory".to_owned(), json!(config.log_dir)),
            ("NetManagerPort".to_owned(), json!(config.netmanager_port())),
            ("ClusterAddress".to_owned(), json!(config.cluster_host)),
        ]);
        let static_part = Node {
            host: config.hostname.clone(),
            port: NOMINAL_PORT.to_owned(),
            vcpus: probe::cores(),
            architecture: probe::architecture().to_owned(),
            virtualization: vec![CONTAINER.to_owned()],
            location: config.location,
            extra,
            ..Node::default()
        };
        Self {
            static_part,
            cluster: None,
            state_dir: config.state_dir.clone(),
            cpu: CpuTimes::read().unwrap_or_default(),
        }
    }

    /// Where the cluster was found: tells which of the worker's addresses is the one to name.
    pub fn found_cluster(&mut self, address: IpAddr) {
        self.cluster = Some(address);
    }

    /// The worker whole, for the handshake.
    pub fn introduce(&mut self) -> Node {
        Node {
            system_info: Some(probe::system_info()),
            network_info: Some(probe::network_info()),
            ..self.describe("")
        }
    }

    /// The worker now, for the report of every 2 s. Oakestra's workers blank here what does not change, and its cluster
    /// then forgets it; so it is said each time.
    pub fn describe(&mut self, id: &str) -> Node {
        let cpu = CpuTimes::read().unwrap_or(self.cpu);
        let cpu_percent = cpu.percent_since(&self.cpu);
        self.cpu = cpu;
        let memory = Memory::read().unwrap_or_default();
        let address = probe::address_towards(self.cluster);
        Node {
            id: id.to_owned(),
            ip: address.map_or_else(String::new, |address| address.to_string()),
            cpu_percent,
            memory_percent: memory.used_percent(),
            memory: memory.available_mib(),
            disk_info: Some(probe::disk_info(&self.state_dir)),
            ..self.static_part.clone()
        }
    }
}

/// Measures the instances. Remembers the reading before of each.
#[derive(Debug)]
pub struct InstanceReporter {
    cores: u32,
    groups: HashMap<InstanceName, Group>,
}

#[derive(Debug)]
struct Group {
    pid: u32,
    cgroup: Option<Cgroup>,
    before: Option<(Instant, Usage)>,
}

impl Default for InstanceReporter {
    fn default() -> Self {
        Self { cores: probe::cores(), groups: HashMap::new() }
    }
}

impl InstanceReporter {
    /// What each of `live` uses now; `disk` are the bytes that each has written, as far as they are known.
    pub fn measure(&mut self, live: &[Live], disk: &HashMap<InstanceName, u64>) -> ResourceReport {
        self.groups.retain(|name, _| live.iter().any(|instance| instance.name == *name));
        let total_memory = Memory::read().unwrap_or_default().total.saturating_mul(1024);
        let services = live
            .iter()
            .map(|instance| {
                let (cpu_percent, memory) = self.usage(instance);
                let memory_percent =
                    if total_memory == 0 { 0.0 } else { 100.0 * ratio(memory, total_memory) };
                InstanceResources {
                    cpu_percent: format!("{cpu_percent:.6}"),
                    memory_percent: format!("{memory_percent:.6}"),
                    disk: disk.get(&instance.name).copied().unwrap_or(0).to_string(),
                    logs: logs::tail(&instance.log, LOG_TAIL),
                    job_name: instance.name.service.clone(),
                    virtualization: CONTAINER.to_owned(),
                    instance: instance.name.number,
                }
            })
            .collect();
        ResourceReport { services, more: false }
    }

    /// Percent of the whole machine's processors since the reading before, and bytes of memory.
    fn usage(&mut self, instance: &Live) -> (f64, u64) {
        let group = self.groups.entry(instance.name.clone()).or_insert_with(|| Group::of(instance.pid));
        if group.pid != instance.pid {
            *group = Group::of(instance.pid);
        }
        let Some(usage) = group.cgroup.as_ref().and_then(Cgroup::usage) else { return (0.0, 0) };
        let now = Instant::now();
        let cpu_percent = group.before.map_or(0.0, |(then, before)| {
            percent(usage.cpu.saturating_sub(before.cpu), now.duration_since(then), self.cores)
        });
        group.before = Some((now, usage));
        (cpu_percent, usage.memory)
    }
}

impl Group {
    fn of(pid: u32) -> Self {
        Self { pid, cgroup: Cgroup::of(pid), before: None }
    }
}

fn percent(used: Duration, passed: Duration, cores: u32) -> f64 {
    let available = passed.as_secs_f64() * f64::from(cores);
    if available > 0.0 { 100.0 * used.as_secs_f64() / available } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::{Value, json};

    use super::{InstanceReporter, Live, NodeReporter};
    use crate::config::Config;

    /// `nodes/{id}/information` of the real Oakestra.
    fn captured_information() -> Value {
        json!({"id":"","host":"","ip":"192.0.2.32","port":"","system_info":null,"cpu_percent":25.64102564091801,"vcpus":2,
            "architecture":"","memory_percent":2.4941569655468796,"memory":23200,"disk_info":null,"network_info":null,
            "gpu_driver":"-","gpu_usage":0,"vgpus":0,"gpu_temp":0,"vram_percent":0,"vram":0,"virtualization":null,
            "supported_addons":null,"csi_drivers":null,"Overlay":false,"OverlaySocket":"","LogDirectory":"",
            "NetManagerPort":0,"ClusterAddress":""})
    }

    fn same_kind(ours: &Value, theirs: &Value) -> bool {
        use Value::{Array, Bool, Null, Number, Object, String};
        matches!(
            (ours, theirs),
            (_, Null)
                | (Array(_), Array(_))
                | (Bool(_), Bool(_))
                | (Number(_), Number(_))
                | (Object(_), Object(_))
                | (String(_), String(_))
        )
    }

    #[test]
    fn the_worker_s_report_has_oakestra_s_keys_and_types() {
        let config = Config::for_test("cluster.example");
        let mut reporter = NodeReporter::new(&config);
        let handshake = serde_json::to_value(reporter.introduce()).unwrap();
        assert!(handshake["system_info"]["kernel_version"].is_string());
        let report = serde_json::to_value(reporter.describe("6b033dc62c1f07cbdcd88440")).unwrap();
        for (key, theirs) in captured_information().as_object().unwrap() {
            if theirs.is_null() {
                continue;
            }
            let ours = report.get(key).unwrap_or_else(|| panic!("{key} is missing"));
            assert!(same_kind(ours, theirs), "{key}: {ours} instead of {theirs}");
        }
        for key in ["vcpus", "memory", "vgpus"] {
            assert!(report[key].is_u64(), "{key}: Go reads an int, got {}", report[key]);
        }
        let blank: Vec<&String> = report
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, value)| value.as_str() == Some(""))
            .map(|(key, _)| key)
            .collect();
        assert!(blank.is_empty(), "an Oakestra cluster stores blank text: {blank:?}");
        assert_eq!(report["virtualization"], json!(["docker"]));
    }

    #[test]
    fn the_instances_report_has_oakestra_s_keys_and_types() {
        let live = Live {
            name: "smp.bed.srv.bed.instance.0".parse().unwrap(),
            pid: std::process::id(),
            log: "/nonexistent".into(),
        };
        let disk = HashMap::from([(live.name.clone(), 8192)]);
        let report = InstanceReporter::default().measure(&[live], &disk);
        let service = serde_json::to_value(report).unwrap()["services"][0].clone();
        let captured = json!({"cpu_percent":"0.000000","memory_percent":"0.000031","disk":"8192","logs":"",
            "job_name":"smp.bed.srv.bed","virtualization":"docker","instance":0});
        for (key, theirs) in captured.as_object().unwrap() {
            assert!(same_kind(&service[key], theirs), "{key}: {} instead of {theirs}", service[key]);
        }
        assert_eq!(service.as_object().unwrap().len(), captured.as_object().unwrap().len());
        assert_eq!(service["disk"], "8192");
        assert_eq!(service["cpu_percent"], "0.000000");
    }
}
