//! The archive that the machine starts from: the test program, the tools that it asks, their libraries, and the modules
//! of the kernel that have to do with networks.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::directory;
use super::kernel::Kernel;
use crate::process::{self, Process};

/// What the tests of the data plane run.
const TOOLS: [&str; 9] = ["bpftool", "ethtool", "ip", "nft", "nstat", "ping", "sysctl", "tc", "tcpdump"];

/// Names under which busybox is called.
const APPLETS: [&str; 5] = ["cat", "modprobe", "mount", "poweroff", "sh"];

/// Below the kernel's modules. Of drivers only those that are a file, such as veth, and VXLAN; the others are for hardware.
const MODULES: [&str; 5] =
    ["kernel/arch", "kernel/crypto", "kernel/lib", "kernel/net", "kernel/drivers/net/vxlan"];

/// The machine's first process. Modules are loaded by the kernel when they are needed; these ones it does not ask for.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin
# Each death takes an emulated machine some seconds.
export HYPHA_DEATHS=12
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
for module in veth bridge sch_ingress cls_bpf tun af_packet; do modprobe $module; done
echo
echo "vm: Linux $(cat /proc/sys/kernel/osrelease)"
/tests --test-threads=1 --nocapture $(cat /arguments)
echo "vm: the tests ended with $?"
poweroff -f
"#;

/// Makes the archive anew.
pub(super) fn make<'a>(
    kernel: &Kernel,
    program: &Path,
    arguments: impl Iterator<Item = &'a str>,
) -> Result<PathBuf> {
    let root = directory().join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    for name in ["bin", "dev", "proc", "run", "sbin", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    let mut programs = vec![(program.to_owned(), "tests".to_owned())];
    for tool in TOOLS.into_iter().chain(["busybox"]) {
        let found = process::find(tool).with_context(|| format!("{tool} is not there"))?;
        programs.push((found, format!("bin/{tool}")));
    }
    for library in libraries(programs.iter().map(|(program, _)| program)) {
        programs.push((library.clone(), library.display().to_string()));
    }
    for (from, to) in programs {
        copy(&from, &root.join(to.trim_start_matches('/')))?;
    }
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    // Where the kernel looks for it.
    symlink("/bin/busybox", root.join("sbin/modprobe"))?;
    copy_modules(kernel, &root)?;
    fs::write(root.join("arguments"), arguments.collect::<Vec<_>>().join(" "))?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;

    let archive = directory().join("initrd");
    let script = r#"cd "$1"; find . | busybox cpio -o -H newc >"$2""#;
    Process::new("sh").args(["-ec", script, "sh"]).arg(&root).arg(&archive).run_quietly()?;
    Ok(archive)
}

fn copy_modules(kernel: &Kernel, root: &Path) -> Result<()> {
    let to = root.join("lib/modules").join(&kernel.release);
    let drivers = to.join("kernel/drivers/net");
    fs::create_dir_all(&drivers)?;
    for below in MODULES {
        let (from, to) = (kernel.modules.join(below), to.join(below));
        Process::new("cp").arg("-rT").arg(from).arg(to).run_quietly()?;
    }
    for entry in fs::read_dir(kernel.modules.join("kernel/drivers/net"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            copy(&entry.path(), &drivers.join(entry.file_name()))?;
        }
    }
    for list in ["modules.builtin", "modules.order"] {
        copy(&kernel.modules.join(list), &to.join(list))?;
    }
    Process::new("busybox").args(["depmod", "-b"]).arg(root).arg(&kernel.release).run_quietly()
}

/// What the dynamic linker would load for these; for a static one nothing.
fn libraries<'a>(programs: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let ldd = Process::new("ldd").arg(program);
        let Ok(said) = ldd.read() else { continue };
        let words = said.split_whitespace().filter(|word| word.starts_with('/') && word.contains(".so"));
        libraries.extend(words.map(PathBuf::from));
    }
    libraries
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
