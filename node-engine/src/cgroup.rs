//! What an instance uses, from its control group: without asking containerd, so it costs little and works while
//! containerd is away. Reads the unified hierarchy (v2) and the separate ones (v1), wherever they are mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The files of one control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    Unified { directory: PathBuf },
    Separate { cpu: PathBuf, memory: PathBuf },
}

/// What a group has used and uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the group was made.
    pub cpu: Duration,
    /// Bytes, without the page cache that the kernel would give back at once.
    pub memory: u64,
}

impl Cgroup {
    /// The group of process `pid`.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::locate(&membership, &mounts)
    }

    /// `membership` is `/proc/<pid>/cgroup`, `mounts` is `/proc/self/mountinfo`.
    fn locate(membership: &str, mounts: &str) -> Option<Self> {
        let separate = |controller: &str| {
            let path = membership.lines().find_map(|line| {
                let (_, line) = line.split_once(':')?;
                let (controllers, path) = line.split_once(':')?;
                controllers.split(',').any(|name| name == controller).then_some(path)
            })?;
            let mount = mounts.lines().filter_map(Mount::parse).find(|mount| {
                mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller)
            })?;
            mount.directory_of(path)
        };
        if let (Some(cpu), Some(memory)) = (separate("cpuacct"), separate("memory")) {
            return Some(Self::Separate { cpu, memory });
        }
        let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
        let mount = mounts.lines().filter_map(Mount::parse).find(|mount| mount.kind == "cgroup2")?;
        Some(Self::Unified { directory: mount.directory_of(path)? })
    }

    /// The present values; `None` when the group is gone.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        match self {
            Self::Unified { directory } => Some(Usage {
                cpu: Duration::from_micros(field(&directory.join("cpu.stat"), "usage_usec")?),
                memory: number(&directory.join("memory.current"))
                    .unwrap_or(0)
                    .saturating_sub(field(&directory.join("memory.stat"), "inactive_file").unwrap_or(0)),
            }),
            Self::Separate { cpu, memory } => Some(Usage {
                cpu: Duration::from_nanos(number(&cpu.join("cpuacct.usage"))?),
                memory: number(&memory.join("memory.usage_in_bytes"))?
                    .saturating_sub(field(&memory.join("memory.stat"), "total_inactive_file").unwrap_or(0)),
            }),
        }
    }
}

/// Removes group `path` from every hierarchy where nothing is in it any more, and the groups above it likewise. runc
/// makes them on the way to a container's group and leaves them.
pub fn remove_empty(path: &str) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.lines().filter_map(Mount::parse);
    for mount in mounts.filter(|mount| mount.kind.starts_with("cgroup")) {
        let groups = Path::new(path).ancestors().filter_map(Path::to_str).filter(|group| *group != "/");
        for directory in groups.filter_map(|group| mount.directory_of(group)) {
            // The kernel removes an empty group only.
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A line `name value` of a file of such lines.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
}

/// A line of mountinfo: `36 35 98:0 /root /mount/point rw,… [optional] - type source super,options`.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Self {
            root: before.next()?,
            point: before.next()?,
            kind: after.next()?,
            options: after.nth(1)?,
        })
    }

    /// Where the group `path` is seen; a mount may show only a part of the hierarchy.
    fn directory_of(&self, path: &str) -> Option<PathBuf> {
        let below = if self.root == "/" { path } else { path.strip_prefix(self.root)? };
        Some(Path::new(self.point).join(below.trim_start_matches('/')))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::{Cgroup, Usage};

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:5 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn the_group_is_found_in_either_hierarchy() {
        let hybrid = "4:memory:/hypha/x\n3:cpu,cpuacct:/hypha/x\n0::/\n";
        assert_eq!(
            Cgroup::locate(hybrid, HYBRID),
            Some(Cgroup::Separate {
                cpu: PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/hypha/x"),
                memory: PathBuf::from("/sys/fs/cgroup/memory/hypha/x"),
            })
        );
        let unified = "30 25 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            Cgroup::locate("0::/hypha/x\n", unified),
            Some(Cgroup::Unified { directory: PathBuf::from("/sys/fs/cgroup/hypha/x") })
        );
        let inside = "30 25 0:26 /docker/y /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            Cgroup::locate("0::/docker/y/hypha/x\n", inside),
            Some(Cgroup::Unified { directory: PathBuf::from("/sys/fs/cgroup/hypha/x") })
        );
        assert_eq!(Cgroup::locate("0::/x\n", ""), None);
    }

    #[test]
    fn usage_leaves_out_what_the_kernel_would_give_back() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let group = Cgroup::Unified { directory: directory.path().to_path_buf() };
        assert_eq!(group.usage(), None);
        write("cpu.stat", "usage_usec 1500000\nuser_usec 1\n");
        write("memory.current", "5000\n");
        write("memory.stat", "anon 1\ninactive_file 2000\n");
        assert_eq!(group.usage(), Some(Usage { cpu: Duration::from_millis(1500), memory: 3000 }));
        write("cpuacct.usage", "2000000\n");
        write("memory.usage_in_bytes", "700\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 200\n");
        let path = directory.path().to_path_buf();
        let group = Cgroup::Separate { cpu: path.clone(), memory: path };
        assert_eq!(group.usage(), Some(Usage { cpu: Duration::from_millis(2), memory: 500 }));
    }

    #[test]
    fn the_group_of_this_process_is_found() {
        assert!(Cgroup::of(std::process::id()).is_some());
    }
}
