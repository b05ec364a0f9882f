//! Network namespaces of containers, entered on threads of their own.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{CONTAINER_LINK, LeftToNic, Links, NetError, Reason};

/// A network namespace, kept alive by this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    inode: u64,
    name: String,
}

impl Netns {
    /// The namespace of a process, which must not be the node's own.
    ///
    /// # Errors
    /// When there is no such process, or it has no namespace of its own.
    pub fn of_process(pid: i32) -> Result<Self, NetError> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")), format!("of process {pid}"))
    }

    /// The namespace that this file stands for, as `ip netns add` makes them. It must not be the node's own.
    ///
    /// # Errors
    /// When there is no such file, or it stands for the namespace of the calling thread.
    pub fn at(path: &Path) -> Result<Self, NetError> {
        Self::open(path, path.display().to_string())
    }

    fn open(path: &Path, name: String) -> Result<Self, NetError> {
        let fail = |reason| NetError::new(format!("open the network namespace {name}"), reason);
        let open = |path: &Path| -> io::Result<(File, u64)> {
            let file = File::open(path)?;
            let inode = file.metadata()?.ino();
            Ok((file, inode))
        };
        let (file, inode) = open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => fail(Reason::NoProcess),
            _ => fail(error.into()),
        })?;
        let (_, own) = open(Path::new("/proc/thread-self/ns/net")).map_err(|error| fail(error.into()))?;
        if inode == own {
            return Err(fail(Reason::SharedNamespace));
        }
        Ok(Self { file, inode, name })
    }

    /// What tells it from other namespaces, for as long as it lives.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// As [`Links::leave_to_nic`], of the container's link.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn leave_to_nic(&self, left: LeftToNic) -> Result<(), NetError> {
        self.links().await?.leave_to_nic(CONTAINER_LINK, left).await
    }

    /// A netlink socket in the namespace. A namespace belongs to a thread, so the socket is opened by one that ends
    /// right afterwards; no thread of the runtime ever leaves the node's namespace.
    pub(super) async fn links(&self) -> Result<Links, NetError> {
        let doing = || format!("open a netlink socket in the network namespace {}", self.name);
        let file = self.file.try_clone().map_err(|error| NetError::new(doing(), error.into()))?;
        let (give, take) = oneshot::channel();
        let runtime = Handle::current();
        let open = move || {
            let _in_runtime = runtime.enter();
            let links = match setns(&file, CloneFlags::CLONE_NEWNET) {
                Ok(()) => Links::open(),
                Err(errno) => Err(NetError::new("enter a network namespace", io::Error::from(errno).into())),
            };
            // Nobody waits any more only if the whole operation was given up.
            drop(give.send(links));
        };
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(open)
            .map_err(|error| NetError::new(doing(), error.into()))?;
        let ended = || NetError::new(doing(), io::Error::other("the thread ended without an answer").into());
        take.await.map_err(|_closed| ended())?
    }
}
