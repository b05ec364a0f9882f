//! A directory of its own in bpffs for each test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use integration::netns::require_root;
use netmanager::datapath::Datapath;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

const BPFFS: &str = "/sys/fs/bpf";

/// The directory; everything in it is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Pins(PathBuf);

impl Pins {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        require_root().unwrap();
        if statfs(BPFFS).expect("sysfs").filesystem_type() != BPF_FS_MAGIC {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).expect("mount bpffs");
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self(Path::new(BPFFS).join(format!("hypha-test-datapath-{}-{number}", std::process::id())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        Datapath::remove_all(&self.0).ok();
    }
}
