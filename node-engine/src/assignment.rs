//! What a worker was told to run: the deploy message, read once and checked.

use std::fmt;

use protocol::lenient::null_as_default;
use protocol::name::{InstanceName, ServiceName};
use protocol::service::CONTAINER;
use serde::{Deserialize, Serialize};

/// One instance to run. It is also the record of the desired state in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub name: InstanceName,
    /// As the SLA has it; resolved by the runtime.
    pub image: String,
    /// Replaces the image's entry point and arguments, when it is not empty.
    #[serde(default)]
    pub command: Vec<String>,
    /// `KEY=VALUE` each.
    #[serde(default)]
    pub environment: Vec<String>,
    /// Host ports, in the notation of the SLA; only netmanager reads it.
    #[serde(default)]
    pub ports: String,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub one_shot: bool,
    #[serde(default)]
    pub privileged: bool,
    /// `os/architecture[/variant]`, when the SLA insists on one.
    #[serde(default)]
    pub platform: Option<String>,
}

/// What an instance may use at most. Zero is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub cpus: u32,
    pub memory_mb: u64,
}

/// Why a deploy message cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum InvalidOrder {
    /// Nobody can be told: it is not clear which instance is meant.
    #[error("it does not say which instance is meant")]
    Anonymous(#[source] serde_json::Error),
    /// It is clear which instance is meant: it has failed.
    #[error("{reason}")]
    Refused { name: InstanceName, reason: String },
}

/// The keys of the deploy message that matter here. The message carries the whole service with the histories of its
/// instances; reading no more than is needed keeps an oddity elsewhere from failing a deployment.
#[derive(Deserialize)]
struct Order {
    #[serde(default, deserialize_with = "null_as_default")]
    image: String,
    #[serde(default, deserialize_with = "null_as_default")]
    code: String,
    #[serde(default, deserialize_with = "null_as_default")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    environment: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    port: String,
    #[serde(default, deserialize_with = "null_as_default")]
    virtualization: String,
    #[serde(default, deserialize_with = "null_as_default")]
    vcpus: u32,
    #[serde(default, deserialize_with = "null_as_default")]
    memory: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    one_shot: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    privileged: bool,
    #[serde(default, deserialize_with = "null_as_default")]
    platform: String,
}

#[derive(Deserialize)]
struct Addressee {
    job_name: ServiceName,
    instance_number: u32,
}

impl Assignment {
    /// Reads a deploy message.
    ///
    /// # Errors
    /// See [`InvalidOrder`].
    pub fn parse(message: &[u8]) -> Result<Self, InvalidOrder> {
        let addressee: Addressee = serde_json::from_slice(message).map_err(InvalidOrder::Anonymous)?;
        let name = InstanceName { service: addressee.job_name, number: addressee.instance_number };
        let refused = |reason: String| InvalidOrder::Refused { name: name.clone(), reason };
        let order: Order =
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(message))
                .map_err(|error| refused(format!("the deploy message cannot be read: {error}")))?;

        if !runs_as_container(&order.virtualization) {
            return Err(refused(format!(
                "this worker runs containers only, not virtualization {:?}",
                order.virtualization
            )));
        }
        let image = [order.image, order.code].into_iter().find(|image| !image.trim().is_empty());
        let Some(image) = image.map(|image| image.trim().to_owned()) else {
            return Err(refused("the service names no image: its field `code` is empty".to_owned()));
        };
        if let Some(entry) = order.environment.iter().find(|entry| !is_valid_variable(entry)) {
            return Err(refused(format!("environment entry {entry:?} is not of the form NAME=VALUE")));
        }
        if order.cmd.iter().any(|argument| argument.contains('\0')) {
            return Err(refused("an argument in `cmd` contains a NUL byte".to_owned()));
        }
        Ok(Self {
            name: name.clone(),
            image,
            command: order.cmd,
            environment: order.environment,
            ports: order.port,
            limits: Limits { cpus: order.vcpus, memory_mb: order.memory },
            one_shot: order.one_shot,
            privileged: order.privileged,
            platform: Some(order.platform).filter(|platform| !platform.is_empty()),
        })
    }
}

/// Empty is what 0.4.2 clusters may send; `container` is the SLA's word, `docker` the stored one.
fn runs_as_container(virtualization: &str) -> bool {
    ["", "container", CONTAINER].contains(&virtualization)
}

fn is_valid_variable(entry: &str) -> bool {
    entry.split_once('=').is_some_and(|(name, _)| !name.is_empty()) && !entry.contains('\0')
}

/// runc's first process needs this much before the program is even loaded: it holds a copy of runc in memory that is
/// charged to the container, 11 MB with runc 1.1. Under a lower limit it is killed, and nothing can start at all.
const MEMORY_FLOOR_MB: u64 = 16;

impl Limits {
    /// The limit on memory that is set, in MB.
    #[must_use]
    pub fn enforced_memory_mb(&self) -> Option<u64> {
        (self.memory_mb > 0).then(|| self.memory_mb.max(MEMORY_FLOOR_MB))
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cpus, self.memory_mb) {
            (0, 0) => f.write_str("unlimited"),
            (cpus, 0) => write!(f, "{cpus} cpus"),
            (0, memory) => write!(f, "{memory} MB"),
            (cpus, memory) => write!(f, "{cpus} cpus, {memory} MB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Assignment, InvalidOrder, Limits};

    /// The message as the real Oakestra sends it, shortened only in the instance list.
    fn captured() -> Value {
        json!({"_id": "6b033dd4d683569b0801fa18", "job_name": "smp.bed.srv.bed", "microserviceID": "6b033dd4d683569b0801fa18",
            "microservice_name": "srv", "microservice_namespace": "bed", "virtualization": "docker",
            "code": "docker.io/library/bed:1", "cmd": ["/bin/httpd", "-f", "-p", "80", "-h", "/www"], "memory": 10, "vcpus": 1,
            "vgpus": 0, "vtpus": 0, "bandwidth_in": 0, "bandwidth_out": 0, "storage": 0, "port": "", "state": "",
            "added_files": [], "addresses": {"rr_ip": "10.30.109.1"}, "constraints": [],
            "applicationID": "6b033dd4d683569b0801fa17", "app_name": "smp", "app_ns": "bed", "service_name": "srv",
            "service_ns": "bed", "image": "docker.io/library/bed:1", "next_instance_progressive_number": 1,
            "instance_list": [{"instance_number": 0, "status": "NODE_SCHEDULED", "cpu_percent": null}],
            "RR_ip": "10.30.109.1", "RR_ip_v6": null, "status": "NODE_SCHEDULED",
            "status_detail": "Waiting for scheduling decision", "instance_number": 0})
    }

    fn parse(message: &Value) -> Result<Assignment, InvalidOrder> {
        Assignment::parse(message.to_string().as_bytes())
    }

    fn reason(message: &Value) -> String {
        match parse(message) {
            Err(InvalidOrder::Refused { name, reason }) => {
                assert_eq!(name.to_string(), "smp.bed.srv.bed.instance.0");
                reason
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn with(key: &str, value: Value) -> Value {
        let mut message = captured();
        message[key] = value;
        message
    }

    #[test]
    fn oakestras_own_message_is_read() {
        let assignment = parse(&captured()).unwrap();
        assert_eq!(assignment.name.to_string(), "smp.bed.srv.bed.instance.0");
        assert_eq!(assignment.image, "docker.io/library/bed:1");
        assert_eq!(assignment.command[0], "/bin/httpd");
        assert_eq!(assignment.limits, Limits { cpus: 1, memory_mb: 10 });
        assert!(!assignment.one_shot && !assignment.privileged);
    }

    #[test]
    fn nulls_and_missing_keys_are_defaults() {
        let message =
            json!({"job_name": "a.b.c.d", "instance_number": 3, "code": "x", "cmd": null, "memory": null});
        let assignment = parse(&message).unwrap();
        assert_eq!(assignment.limits, Limits::default());
        assert!(assignment.command.is_empty());
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_a_reason() {
        let unikernel = reason(&with("virtualization", json!("unikernel")));
        assert!(unikernel.contains("containers only") && unikernel.contains("unikernel"), "{unikernel}");
        let mut no_image = with("image", json!(""));
        no_image["code"] = json!(" ");
        assert!(reason(&no_image).contains("names no image"));
        assert!(reason(&with("environment", json!(["PATH"]))).contains("NAME=VALUE"));
        let wrong_type = reason(&with("cmd", json!("not a list")));
        assert!(wrong_type.contains("cannot be read: cmd: "), "{wrong_type}");
    }

    #[test]
    fn a_message_without_an_addressee_is_anonymous() {
        for message in
            [json!({}), json!([1]), with("job_name", json!("../../etc")), with("instance_number", json!(-1))]
        {
            assert!(matches!(parse(&message), Err(InvalidOrder::Anonymous(_))), "{message}");
        }
    }
}
