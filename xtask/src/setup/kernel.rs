//! What the kernel must offer where programs are loaded and containers run.

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::progress::say;
use crate::rights;

/// The oldest that is supported. From 5.11 on the memory of maps is charged to the memory cgroup, so that
/// RLIMIT_MEMLOCK, often 8 MiB, does not matter, nor does CAP_SYS_RESOURCE, by which one would raise it.
const OLDEST: (u32, u32) = (5, 15);

const BTF: &str = "/sys/kernel/btf/vmlinux";
const CGROUPS: &str = "/sys/fs/cgroup";
const BPFFS: &str = "/sys/fs/bpf";

/// Checks the kernel, and mounts the BPF file system if nobody has yet.
pub(crate) fn prepare() -> Result<()> {
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    let release = release.trim();
    if version(release).is_some_and(|version| version < OLDEST) {
        bail!("kernel {release} is too old: {}.{} is the oldest supported", OLDEST.0, OLDEST.1);
    }
    if !std::path::Path::new(BTF).exists() {
        bail!(
            "kernel {release} has no {BTF}: it was built without CONFIG_DEBUG_INFO_BTF; distributions' kernels have it"
        );
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read the table of mounts")?;
    if !is_mounted(&mounts, CGROUPS) {
        bail!(
            "no control groups at {CGROUPS}: containers cannot be limited; systemd mounts them, else `mount -t cgroup2 none {CGROUPS}`"
        );
    }
    if is_mounted(&mounts, BPFFS) {
        return Ok(());
    }
    if !rights::is_root() {
        bail!(
            "no BPF file system at {BPFFS}, where maps and programs outlive a daemon; as root: `mount -t bpf bpf {BPFFS}`"
        );
    }
    say(format_args!("mounting the BPF file system at {BPFFS}, where maps and programs outlive a daemon"));
    Process::new("mount").args(["-t", "bpf", "bpf", BPFFS]).run_quietly()
}

fn is_mounted(mounts: &str, at: &str) -> bool {
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(at))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::{is_mounted, version};

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(version("6.1.0-25-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.0-119-generic"), Some((5, 15)));
        assert_eq!(version("custom"), None);
    }

    #[test]
    fn a_mount_is_found_by_its_place() {
        let mounts = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert!(is_mounted(mounts, "/sys/fs/bpf"));
        assert!(!is_mounted(mounts, "/sys/fs"));
    }
}
