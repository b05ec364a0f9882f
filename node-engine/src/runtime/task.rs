//! The running side of a container: its task, from creation to the last signal.

use std::path::Path;
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::{
    CreateTaskRequest, DeleteTaskRequest, KillRequest, ListTasksRequest, StartRequest, WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::Status;
use protocol::name::InstanceName;

use super::client::Client;
use super::error::{RuntimeError, or_absent};
use super::signal::{SIGKILL, acts_on};
use super::time::from_timestamp;

/// A killed process is gone when the kernel has closed its files; a stuck disk may make that long.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Made, but its program was never started.
    Created {
        pid: u32,
    },
    Running {
        pid: u32,
    },
    Stopped {
        pid: u32,
        code: u32,
        at: SystemTime,
    },
}

/// Makes the task of container `name`: its namespaces exist, its program does not run yet. Returns its process.
pub(super) async fn create(
    client: &Client,
    name: &InstanceName,
    rootfs: Vec<Mount>,
    log: &Path,
) -> Result<u32, RuntimeError> {
    let log = file_uri(log);
    let request = CreateTaskRequest {
        container_id: name.to_string(),
        rootfs,
        stdout: log.clone(),
        stderr: log,
        ..CreateTaskRequest::default()
    };
    Ok(client.call(format!("create the task of {name}"), client.tasks().create(request)).await?.pid)
}

pub(super) async fn start(client: &Client, name: &InstanceName) -> Result<(), RuntimeError> {
    let request = StartRequest { container_id: name.to_string(), exec_id: String::new() };
    client.call(format!("start the task of {name}"), client.tasks().start(request)).await?;
    Ok(())
}

/// Every task of the namespace, by its container's id.
pub(super) async fn list(client: &Client) -> Result<Vec<(String, Task)>, RuntimeError> {
    let request = ListTasksRequest { filter: String::new() };
    let tasks = client.call("list tasks", client.tasks().list(request)).await?.tasks;
    let task = |process: &containerd_client::types::v1::Process| match process.status() {
        Status::Created => Task::Created { pid: process.pid },
        Status::Stopped => Task::Stopped {
            pid: process.pid,
            code: process.exit_status,
            at: from_timestamp(process.exited_at.as_ref()).unwrap_or_else(SystemTime::now),
        },
        Status::Running | Status::Paused | Status::Pausing | Status::Unknown => {
            Task::Running { pid: process.pid }
        }
    };
    // containerd names the container in `id` here, and leaves `container_id` empty.
    Ok(tasks.iter().map(|process| (process.id.clone(), task(process))).collect())
}

async fn find(client: &Client, name: &InstanceName) -> Result<Option<Task>, RuntimeError> {
    let id = name.to_string();
    Ok(list(client).await?.into_iter().find(|(container, _)| *container == id).map(|(_, task)| task))
}

/// Ends the program of a task, whatever the task's state. A task that is not there is ended.
///
/// The program first gets `signal` and `grace` to end by itself. A program that would not notice the signal does not
/// get the time: the kernel drops what a namespace's first process neither handles nor blocks, so that waiting could
/// only make the stop slow.
pub(super) async fn end(
    client: &Client,
    name: &InstanceName,
    signal: u32,
    grace: Duration,
) -> Result<(), RuntimeError> {
    match find(client, name).await? {
        None => return Ok(()),
        Some(Task::Stopped { .. }) => {}
        Some(Task::Created { .. }) => kill_and_wait(client, name).await?,
        Some(Task::Running { pid }) => {
            let asked = acts_on(pid, signal) && !grace.is_zero();
            if !(asked && ended_within(client, name, signal, grace).await?) {
                kill_and_wait(client, name).await?;
            }
        }
    }
    Ok(())
}

/// Deletes a task that has ended.
pub(super) async fn delete(client: &Client, name: &InstanceName) -> Result<(), RuntimeError> {
    let request = DeleteTaskRequest { container_id: name.to_string() };
    let deleted = client.call(format!("delete the task of {name}"), client.tasks().delete(request)).await;
    or_absent(deleted.map(|_| ()))
}

async fn ended_within(
    client: &Client,
    name: &InstanceName,
    signal: u32,
    grace: Duration,
) -> Result<bool, RuntimeError> {
    or_absent(kill(client, name, signal).await)?;
    match wait(client, name, grace).await {
        Ok(()) => Ok(true),
        Err(RuntimeError::Timeout { .. }) => {
            tracing::info!(instance = %name, grace_s = grace.as_secs(), "not ended within its grace period: killed");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn kill_and_wait(client: &Client, name: &InstanceName) -> Result<(), RuntimeError> {
    or_absent(kill(client, name, SIGKILL).await)?;
    wait(client, name, KILL_DEADLINE).await
}

async fn kill(client: &Client, name: &InstanceName, signal: u32) -> Result<(), RuntimeError> {
    let request = KillRequest { container_id: name.to_string(), signal, ..KillRequest::default() };
    client.call(format!("send signal {signal} to {name}"), client.tasks().kill(request)).await?;
    Ok(())
}

async fn wait(client: &Client, name: &InstanceName, deadline: Duration) -> Result<(), RuntimeError> {
    let request = WaitRequest { container_id: name.to_string(), exec_id: String::new() };
    let ended = client.call_within(deadline, format!("see {name} end"), client.tasks().wait(request)).await;
    or_absent(ended.map(|_| ()))
}

/// The form in which a shim is told to append to a file. It reads a URL, so what is special there is escaped.
fn file_uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file://");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::file_uri;

    #[test]
    fn a_log_path_is_escaped_as_a_url() {
        assert_eq!(
            file_uri(Path::new("/var/log/hypha/a.b.c.d.instance.0")),
            "file:///var/log/hypha/a.b.c.d.instance.0"
        );
        assert_eq!(file_uri(Path::new("/logs of 100%/x?")), "file:///logs%20of%20100%25/x%3F");
    }
}
