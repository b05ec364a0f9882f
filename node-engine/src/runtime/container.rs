//! Containers as containerd has them: what we write into them, and what we read back.

use std::collections::HashMap;
use std::path::Path;

use containerd_client::services::v1::container::Runtime as RuntimeInfo;
use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, ListContainersRequest,
};
use containerd_client::types::Mount;
use prost::Message;
use prost_types::Any;
use protocol::name::InstanceName;
use serde_json::Value;

use super::client::Client;
use super::error::{RuntimeError, or_absent};
use super::image::Image;
use crate::assignment::{Assignment, Limits};

/// What a container says of the instance it is, so that it can be adopted without any other record.
mod label {
    pub(super) const SERVICE: &str = "hypha.service";
    pub(super) const NUMBER: &str = "hypha.instance";
    pub(super) const ONE_SHOT: &str = "hypha.one-shot";
    pub(super) const CPUS: &str = "hypha.cpus";
    pub(super) const MEMORY_MB: &str = "hypha.memory-mb";
    pub(super) const STOP_SIGNAL: &str = "hypha.stop-signal";
}

const RUNC: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// `containerd.runc.v1.Options`, of which only one field is ours to set.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    /// Where runc keeps its state.
    #[prost(string, tag = "7")]
    root: String,
}

/// A container that an earlier run of this daemon made, or a part of one.
#[derive(Debug, Clone)]
pub struct Known {
    pub assignment: Assignment,
    pub snapshotter: String,
    pub stop_signal: String,
}

/// The key of a container's own, writable snapshot.
pub(super) fn snapshot_key(name: &InstanceName) -> String {
    format!("{name}-snapshotter")
}

/// Makes the writable layer of an instance, on top of the image's.
pub(super) async fn prepare_snapshot(
    client: &Client,
    snapshotter: &str,
    name: &InstanceName,
    image: &Image,
) -> Result<Vec<Mount>, RuntimeError> {
    let request = PrepareSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: snapshot_key(name),
        parent: image.chain_id.clone(),
        // Garbage collection must not come between this and the container that will refer to it.
        labels: HashMap::from([("containerd.io/gc.root".to_owned(), "hypha".to_owned())]),
    };
    let doing = format!("make the root file system of {name}");
    Ok(client.call(doing, client.snapshots().prepare(request)).await?.mounts)
}

pub(super) async fn remove_snapshot(
    client: &Client,
    snapshotter: &str,
    name: &InstanceName,
) -> Result<(), RuntimeError> {
    let request = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: snapshot_key(name) };
    let removed = client
        .call(format!("remove the root file system of {name}"), client.snapshots().remove(request))
        .await;
    or_absent(removed.map(|_| ()))
}

/// Records the container. `runc_root` is where runc keeps its state for this containerd.
pub(super) async fn create(
    client: &Client,
    snapshotter: &str,
    assignment: &Assignment,
    image: &Image,
    spec: &Value,
    runc_root: &Path,
) -> Result<(), RuntimeError> {
    let options = RuncOptions { root: runc_root.display().to_string() };
    let name = &assignment.name;
    let container = Container {
        id: name.to_string(),
        image: image.name.clone(),
        runtime: Some(RuntimeInfo {
            name: RUNC.to_owned(),
            options: Some(Any {
                type_url: "containerd.runc.v1.Options".to_owned(),
                value: options.encode_to_vec(),
            }),
        }),
        spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value: spec.to_string().into_bytes() }),
        snapshotter: snapshotter.to_owned(),
        snapshot_key: snapshot_key(name),
        labels: labels(assignment, &image.defaults.stop_signal),
        ..Container::default()
    };
    let request = CreateContainerRequest { container: Some(container) };
    client.call(format!("create container {name}"), client.containers().create(request)).await?;
    Ok(())
}

pub(super) async fn delete(client: &Client, name: &InstanceName) -> Result<(), RuntimeError> {
    let request = DeleteContainerRequest { id: name.to_string() };
    let deleted = client.call(format!("delete container {name}"), client.containers().delete(request)).await;
    or_absent(deleted.map(|_| ()))
}

/// All containers of ours; others in the namespace are left alone.
pub(super) async fn list(client: &Client) -> Result<Vec<Known>, RuntimeError> {
    list_where(client, format!("labels.\"{}\"", label::SERVICE)).await
}

pub(super) async fn find(client: &Client, name: &InstanceName) -> Result<Option<Known>, RuntimeError> {
    Ok(list_where(client, format!("id==\"{name}\"")).await?.pop())
}

async fn list_where(client: &Client, filter: String) -> Result<Vec<Known>, RuntimeError> {
    let request = ListContainersRequest { filters: vec![filter] };
    let answer = client.call("list containers", client.containers().list(request)).await?;
    Ok(answer.containers.iter().filter_map(known).collect())
}

fn labels(assignment: &Assignment, stop_signal: &str) -> HashMap<String, String> {
    let Limits { cpus, memory_mb } = assignment.limits;
    [
        (label::SERVICE, assignment.name.service.to_string()),
        (label::NUMBER, assignment.name.number.to_string()),
        (label::ONE_SHOT, assignment.one_shot.to_string()),
        (label::CPUS, cpus.to_string()),
        (label::MEMORY_MB, memory_mb.to_string()),
        (label::STOP_SIGNAL, stop_signal.to_owned()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

fn known(container: &Container) -> Option<Known> {
    let label = |key| container.labels.get(key).map(String::as_str);
    let number = |key| label(key).and_then(|text| text.parse().ok());
    Some(Known {
        assignment: Assignment {
            name: InstanceName {
                service: label(label::SERVICE)?.parse().ok()?,
                number: label(label::NUMBER)?.parse().ok()?,
            },
            image: container.image.clone(),
            command: Vec::new(),
            environment: Vec::new(),
            ports: String::new(),
            limits: Limits {
                cpus: number(label::CPUS).and_then(|cpus: u64| cpus.try_into().ok()).unwrap_or(0),
                memory_mb: number(label::MEMORY_MB).unwrap_or(0),
            },
            one_shot: label(label::ONE_SHOT) == Some("true"),
            privileged: false,
            platform: None,
        },
        snapshotter: container.snapshotter.clone(),
        stop_signal: label(label::STOP_SIGNAL).unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use containerd_client::services::v1::Container;

    use super::{known, labels};
    use crate::assignment::{Assignment, Limits};

    #[test]
    fn a_container_says_which_instance_it_is() {
        let assignment = Assignment {
            name: "a.b.c.d.instance.7".parse().unwrap(),
            image: "docker.io/library/x:1".to_owned(),
            command: Vec::new(),
            environment: Vec::new(),
            ports: String::new(),
            limits: Limits { cpus: 2, memory_mb: 64 },
            one_shot: true,
            privileged: false,
            platform: None,
        };
        let mut container = Container {
            image: assignment.image.clone(),
            labels: labels(&assignment, "SIGINT"),
            ..Container::default()
        };
        let read = known(&container).unwrap();
        assert_eq!(read.assignment, assignment);
        assert_eq!(read.stop_signal, "SIGINT");
        container.labels.clear();
        assert!(known(&container).is_none());
    }
}
