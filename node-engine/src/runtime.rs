//! Containers by containerd: the only part of node-engine that knows it.
//!
//! A container is a record in containerd (image, specification, labels), a writable snapshot on top of the image's, and
//! a task: the process under a shim of its own, which lives on when containerd or this daemon end. The log is written by
//! the shim too, so that nothing is lost meanwhile.

pub mod client;
pub mod container;
pub mod error;
pub mod events;
pub mod host;
pub mod image;
pub mod manifest;
pub mod pull;
pub mod reference;
mod rootfs;
mod signal;
pub mod spec;
pub mod task;
mod time;
mod unpack;
pub mod user;

use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::PluginsRequest;
use containerd_client::services::v1::snapshots::UsageRequest;
use containerd_client::types::Mount;
use protocol::name::InstanceName;
use tokio::sync::OnceCell;

pub use self::client::Client;
pub use self::container::Known;
pub use self::error::RuntimeError;
pub use self::events::{Events, RuntimeEvent};
pub use self::host::NameFiles;
pub use self::image::Image;
pub use self::pull::Pull;
pub use self::task::Task;

use self::manifest::{Descriptor, Platform};
use self::pull::Pulls;
use self::spec::{Host, Plan, arguments, environment};
use self::user::User;
use crate::assignment::Assignment;

/// How containers are made on this worker.
#[derive(Debug, Clone)]
pub struct Settings {
    pub socket: PathBuf,
    /// One file per instance, named like its container.
    pub log_dir: PathBuf,
    /// Where all containers of this worker stand in the control group hierarchy.
    pub cgroup_parent: String,
    pub names: NameFiles,
    pub pull: Pull,
    /// How long a program may take to end by itself.
    pub grace: Duration,
}

/// containerd, as far as instances go.
#[derive(Debug)]
pub struct Runtime {
    client: Client,
    settings: Settings,
    host: Host,
    runc_root: PathBuf,
    snapshotter: OnceCell<String>,
    pulls: Pulls,
}

impl Runtime {
    /// Does not connect yet: containerd may be started later.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let client = Client::new(&settings.socket);
        // runc's state is in a fixed place unless it is told otherwise. Beside containerd's socket, two containerds on
        // one machine do not meet, and for the usual socket it is the usual place.
        let runc_root = settings.socket.parent().unwrap_or(Path::new("/run/containerd")).join("runc");
        Self {
            client,
            settings,
            host: Host::detect(),
            runc_root,
            snapshotter: OnceCell::new(),
            pulls: Pulls::default(),
        }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        self.client.socket()
    }

    /// The file to which everything that the instance writes is appended.
    #[must_use]
    pub fn log_path(&self, name: &InstanceName) -> PathBuf {
        self.settings.log_dir.join(name.to_string())
    }

    /// Events from now on.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn events(&self) -> Result<Events, RuntimeError> {
        Events::open(&self.client).await
    }

    /// All containers that this daemon made, each with its task, if it has one.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn list(&self) -> Result<Vec<(Known, Option<Task>)>, RuntimeError> {
        let tasks = task::list(&self.client).await?;
        let containers = container::list(&self.client).await?;
        let with_task = |known: Known| {
            let id = known.assignment.name.to_string();
            let task = tasks.iter().find(|(container, _)| *container == id).map(|(_, task)| task.clone());
            (known, task)
        };
        Ok(containers.into_iter().map(with_task).collect())
    }

    /// Makes the image of `assignment` ready: finds or pulls it, and unpacks it if need be.
    ///
    /// # Errors
    /// Whatever is wrong with the reference or the image; containerd out of reach.
    pub async fn image(&self, assignment: &Assignment) -> Result<Image, RuntimeError> {
        let platform = match &assignment.platform {
            None => Platform::host(),
            Some(text) => Platform::parse(text).ok_or_else(|| RuntimeError::WrongPlatform {
                image: assignment.image.clone(),
                wanted: Platform::host().to_string(),
                offered: format!("{text:?}, which is no platform"),
            })?,
        };
        let snapshotter = self.snapshotter().await?;
        let (name, target) = match image::find(&self.client, &assignment.image).await {
            Err(error) if error.is_not_found() => {
                self.pull(&reference::normalise(&assignment.image)?, snapshotter, &platform).await?
            }
            found => found?,
        };
        image::prepare(&self.client, snapshotter, name, &target, &platform).await
    }

    async fn pull(
        &self,
        name: &str,
        snapshotter: &str,
        platform: &Platform,
    ) -> Result<(String, Descriptor), RuntimeError> {
        if self.settings.pull == Pull::Never {
            return Err(pull::missing(self.socket(), name, String::new()));
        }
        let _turn = self.pulls.turn(name).await;
        match image::find(&self.client, name).await {
            Err(error) if error.is_not_found() => {}
            found => return found,
        }
        pull::pull(self.socket(), snapshotter, name, platform).await?;
        image::find(&self.client, name).await
    }

    /// Makes container and task. Its namespaces exist then; the program waits for [`Self::start`]. Returns its process.
    /// What is left of an earlier try is replaced. Nothing is left of a failure.
    ///
    /// # Errors
    /// What containerd or runc did not like.
    pub async fn create(&self, assignment: &Assignment, image: &Image) -> Result<u32, RuntimeError> {
        let name = &assignment.name;
        self.remove(name).await?;
        let created = self.create_parts(assignment, image).await;
        if created.is_err()
            && let Err(error) = self.remove(name).await
        {
            tracing::warn!(instance = %name, %error, "half-made container is left behind");
        }
        created
    }

    async fn create_parts(&self, assignment: &Assignment, image: &Image) -> Result<u32, RuntimeError> {
        let name = &assignment.name;
        let snapshotter = self.snapshotter().await?;
        let rootfs = container::prepare_snapshot(&self.client, snapshotter, name, image).await?;
        let spec = self.plan(assignment, image, &rootfs)?.to_spec();
        container::create(&self.client, snapshotter, assignment, image, &spec, &self.runc_root).await?;
        crate::logs::create(&self.log_path(name)).map_err(|source| RuntimeError::File {
            doing: "create log",
            path: self.log_path(name),
            source,
        })?;
        task::create(&self.client, name, rootfs, &self.log_path(name))
            .await
            .map_err(|error| explain(error, assignment, image))
    }

    fn plan(
        &self,
        assignment: &Assignment,
        image: &Image,
        rootfs: &[Mount],
    ) -> Result<Plan<'_>, RuntimeError> {
        let name = &assignment.name;
        let hostname = format!("instance-{}", name.number);
        let defaults = &image.defaults;
        let args = arguments(&assignment.command, &defaults.entrypoint, &defaults.cmd);
        if args.is_empty() {
            return Err(RuntimeError::NoCommand { image: image.name.clone() });
        }
        Ok(Plan {
            env: environment(&hostname, &defaults.env, &assignment.environment),
            hostname,
            cgroup: format!("{}/{name}", self.settings.cgroup_parent),
            args,
            directory: if defaults.working_dir.is_empty() {
                "/".to_owned()
            } else {
                defaults.working_dir.clone()
            },
            user: user_of(image, rootfs)?,
            limits: assignment.limits,
            privileged: assignment.privileged,
            hosts: &self.settings.names.hosts,
            resolv_conf: &self.settings.names.resolv_conf,
            host: self.host,
        })
    }

    /// Lets the program run.
    ///
    /// # Errors
    /// When runc cannot execute it.
    pub async fn start(&self, assignment: &Assignment, image: &Image) -> Result<(), RuntimeError> {
        task::start(&self.client, &assignment.name).await.map_err(|error| explain(error, assignment, image))
    }

    /// Ends the program: by its own will within the grace period, by force after it. Idempotent.
    ///
    /// # Errors
    /// When containerd does not answer, or the process cannot be killed.
    pub async fn stop(&self, name: &InstanceName) -> Result<(), RuntimeError> {
        let signal = container::find(&self.client, name).await?.map(|known| known.stop_signal);
        let signal = signal::stop_signal(&signal.unwrap_or_default());
        task::end(&self.client, name, signal, self.settings.grace).await
    }

    /// Removes task, container and snapshot, whatever of them is there. A running program is killed. Idempotent.
    ///
    /// # Errors
    /// The first failure; the rest is tried all the same.
    pub async fn remove(&self, name: &InstanceName) -> Result<(), RuntimeError> {
        let known = container::find(&self.client, name).await?;
        let ended = match task::end(&self.client, name, signal::SIGKILL, Duration::ZERO).await {
            Ok(()) => task::delete(&self.client, name).await,
            failed => failed,
        };
        let deleted = container::delete(&self.client, name).await;
        let snapshotter = match known {
            Some(known) => known.snapshotter,
            None => self.snapshotter().await?.to_owned(),
        };
        let removed = container::remove_snapshot(&self.client, &snapshotter, name).await;
        ended.and(deleted).and(removed)
    }

    /// Bytes that the instance has written to its own layer. containerd walks the directory: not for every second.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn disk_usage(&self, name: &InstanceName) -> Result<u64, RuntimeError> {
        let request = UsageRequest {
            snapshotter: self.snapshotter().await?.to_owned(),
            key: container::snapshot_key(name),
        };
        let doing = format!("measure the root file system of {name}");
        let usage = self.client.call(doing, self.client.snapshots().usage(request)).await?;
        Ok(u64::try_from(usage.size).unwrap_or(0))
    }

    /// overlayfs where its file system allows it, else plain copies.
    async fn snapshotter(&self) -> Result<&str, RuntimeError> {
        let found = self
            .snapshotter
            .get_or_try_init(|| async {
                let request =
                    PluginsRequest { filters: vec!["type==io.containerd.snapshotter.v1".to_owned()] };
                let plugins = self
                    .client
                    .call("list snapshotters", self.client.introspection().plugins(request))
                    .await?
                    .plugins;
                let works = |name: &&str| {
                    plugins.iter().any(|plugin| plugin.id == **name && plugin.init_err.is_none())
                };
                let name = ["overlayfs", "native"]
                    .into_iter()
                    .find(|name| works(name))
                    .ok_or(RuntimeError::NoSnapshotter)?;
                if name != "overlayfs" {
                    tracing::warn!(
                        "containerd has no overlayfs here: every instance gets a whole copy of its image"
                    );
                }
                Ok::<_, RuntimeError>(name.to_owned())
            })
            .await?;
        Ok(found)
    }
}

fn user_of(image: &Image, rootfs: &[Mount]) -> Result<User, RuntimeError> {
    let text = &image.defaults.user;
    if !user::needs_files(text) {
        return Ok(User::default());
    }
    let bad = |what| RuntimeError::BadUser { user: text.clone(), image: image.name.clone(), what };
    let file = |path: &str| {
        rootfs::read(rootfs, Path::new(path))
            .map(Option::unwrap_or_default)
            .map_err(|error| bad(format!("its /{path} cannot be read: {error}")))
    };
    user::resolve(text, &file("etc/passwd")?, &file("etc/group")?).map_err(bad)
}

/// runc's complaint about the program, without the names of the layers it came through.
fn explain(error: RuntimeError, assignment: &Assignment, image: &Image) -> RuntimeError {
    let RuntimeError::Call { status, .. } = &error else { return error };
    let Some(reason) = spec::runc_complaint(status.message()) else { return error };
    let command = arguments(&assignment.command, &image.defaults.entrypoint, &image.defaults.cmd);
    RuntimeError::CannotRun {
        command: command.into_iter().next().unwrap_or_default(),
        image: image.name.clone(),
        reason: reason.to_owned(),
    }
}
