//! Debian's kernel for clouds, with its modules: unpacked from its package, not installed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::directory;
use crate::process::Process;

/// Stands for the package of the newest build.
pub(crate) const PACKAGE: &str = "linux-image-cloud-amd64";

pub(crate) struct Kernel {
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

/// The kernel, if it has been fetched.
pub(crate) fn find() -> Option<Kernel> {
    let root = directory().join("kernel");
    let names =
        fs::read_dir(root.join("boot")).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let release = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned())).max()?;
    let image = root.join(format!("boot/vmlinuz-{release}"));
    let modules = root.join("lib/modules").join(&release);
    modules.is_dir().then_some(Kernel { release, image, modules })
}

/// Fetches it by apt, which checks whose it is.
pub(crate) fn fetch() -> Result<()> {
    let directory = directory();
    let root = directory.join("kernel");
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let depends = Process::new("apt-cache").args(["depends", PACKAGE]).read()?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let package = package.with_context(|| format!("{PACKAGE} depends on no kernel"))?;
    let package = format!("linux-image-{package}");
    let inside = |script: &str| {
        Process::new("sh").args(["-ec", script, "sh"]).arg(&directory).arg(&package).run_quietly()
    };
    inside(r#"cd "$1"; apt-get download "$2""#)?;
    inside(r#"cd "$1"; dpkg-deb --extract "$2"_*.deb kernel; rm "$2"_*.deb"#)
}
