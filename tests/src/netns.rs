//! Network namespaces for tests: made, entered and removed by ourselves.
//!
//! A namespace is bind-mounted under `/run/netns`, so that `ip netns exec` and `tcpdump` find it by name. Processes
//! enter the network namespace only: `ip netns exec` would also remount `/sys` and so hide `/sys/fs/bpf`, which the
//! daemons pin their data plane on.
//!
//! Names are `hypha-<pid>-<counter>-<label>`. The pid tells which run a namespace belongs to, so that the leftovers
//! of a run that was killed are recognised by the next one (see [`remove_stale`]).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process;

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "hypha-";

/// In the environment of every process that is started in a namespace: the number of the process that did it.
pub const LAB_VARIABLE: &str = "HYPHA_LAB";

/// A network namespace. Removed when it is dropped; processes that still run in it keep it alive without a name.
#[derive(Debug)]
pub struct Netns {
    name: String,
    path: PathBuf,
    handle: File,
    owned: bool,
}

impl Netns {
    /// Makes a namespace with its loopback up. `label` is the readable end of its name.
    pub fn new(label: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        let path = Path::new(DIRECTORY).join(&name);
        fs::create_dir_all(DIRECTORY).with_context(|| format!("make {DIRECTORY}"))?;
        File::create(&path).with_context(|| format!("make {}", path.display()))?;
        if let Err(error) = on_thread(|| unshare_onto(&path)) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            return Err(error).with_context(|| format!("make network namespace {name} (root is needed)"));
        }
        let handle = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let netns = Self { name, path, handle, owned: true };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The network namespace that process `pid` is in. It is not removed when the value is dropped.
    pub fn of_process(pid: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let handle =
            File::open(&path).with_context(|| format!("open the network namespace of process {pid}"))?;
        Ok(Self { name: format!("of process {pid}"), path, handle, owned: false })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace; `nsenter --net=` takes it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in the namespace, on a thread of its own, and waits for it. Sockets that `work` makes stay in the
    /// namespace wherever they are used later.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("enter network namespace {}", self.name))?;
            Ok(work())
        })
    }

    /// A command whose process will be in the namespace, and marked by [`LAB_VARIABLE`]. Nothing else of it differs
    /// from an ordinary command.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let handle = self.handle.try_clone().with_context(|| format!("duplicate {}", self.name))?;
        let mut command = Command::new(program);
        command.env(LAB_VARIABLE, std::process::id().to_string());
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe; an errno becomes an
        // `io::Error` without allocation. The descriptor lives as long as the command.
        unsafe {
            command.pre_exec(move || setns(&handle, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        }
        Ok(command)
    }

    /// Runs `ip` with these arguments (split at white space) in the namespace.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        process::output(self.command("ip")?.args(arguments.split_whitespace())).map(drop)
    }

    /// Runs a program in the namespace and gives what it wrote to its standard output.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        process::output(self.command(program)?.args(arguments))
    }

    /// The identity of the namespace: what `stat` says of its file.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.handle.metadata().with_context(|| format!("stat {}", self.name))?.ino())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.owned {
            remove(&self.path);
        }
    }
}

/// Joins two namespaces by a veth pair. An end is a namespace and the name that the link gets in it.
pub fn connect((left, left_name): (&Netns, &str), (right, right_name): (&Netns, &str)) -> Result<()> {
    // `ip` resolves a peer's `netns NAME` by the same directory; both ends are made where they belong, at once.
    left.ip(&format!(
        "link add {left_name} type veth peer name {right_name} netns {}",
        right.path().display()
    ))?;
    left.ip(&format!("link set {left_name} up"))?;
    right.ip(&format!("link set {right_name} up"))
}

/// Removes what runs that no longer live have left: ends the processes in their namespaces with all descendants, and
/// takes the namespaces away. Gives the names of the namespaces that were removed.
pub fn remove_stale() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Ok(removed) };
    for entry in entries {
        let entry = entry.with_context(|| format!("read {DIRECTORY}"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = owner_of(&name) else { continue };
        if process::is_alive(owner) {
            continue;
        }
        process::end_all_in_netns(&entry.path())?;
        remove(&entry.path());
        removed.push(name);
    }
    Ok(removed)
}

/// The process that made the namespace of this name, if it is one of ours.
fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn unshare_onto(path: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare the network namespace")?;
    bind(Path::new("/proc/thread-self/ns/net"), path)
}

fn bind(namespace: &Path, path: &Path) -> Result<()> {
    mount(Some(namespace), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("bind a network namespace to {}", path.display()))
}

/// Best effort: a namespace that is not mounted (any more) leaves only its file.
fn remove(path: &Path) {
    umount2(path, MntFlags::MNT_DETACH).ok();
    fs::remove_file(path).ok();
}

/// The network namespace belongs to the thread, so whoever changes it needs a thread that ends afterwards.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Fails with a plain reason when the process is not root: nothing here works without.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces and eBPF need root: run this as root (sudo)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::owner_of;

    #[test]
    fn a_name_tells_who_made_the_namespace() {
        assert_eq!(owner_of("hypha-4711-0-worker-1"), Some(4711));
        for foreign in ["cni-1234", "hypha-x-0", "hypha-", ""] {
            assert_eq!(owner_of(foreign), None, "{foreign}");
        }
    }
}
