//! What a container gets from the host it runs on: control groups, host names, name servers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::error::RuntimeError;
use super::spec::Host;

impl Host {
    /// Looks at the running kernel.
    #[must_use]
    pub fn detect() -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let unified_cgroups = statfs(root).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let swap_limit = unified_cgroups || root.join("memory/memory.memsw.limit_in_bytes").exists();
        Self { unified_cgroups, swap_limit }
    }
}

/// The files that are bound into every container, read-only.
#[derive(Debug, Clone)]
pub struct NameFiles {
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
}

impl NameFiles {
    /// The host's own files where they make sense inside a container, else ones of our own in `directory`.
    ///
    /// # Errors
    /// When such a file cannot be written.
    pub fn prepare(directory: &Path) -> Result<Self, RuntimeError> {
        let hosts = match fs::metadata("/etc/hosts") {
            Ok(file) if file.is_file() => PathBuf::from("/etc/hosts"),
            _ => written(&directory.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?,
        };
        let resolv_conf = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"]
            .into_iter()
            .map(Path::new)
            .find(|path| fs::read_to_string(path).is_ok_and(|text| has_reachable_server(&text)));
        let resolv_conf = match resolv_conf {
            Some(path) => path.to_path_buf(),
            None => written(&directory.join("resolv.conf"), "nameserver 8.8.8.8\n")?,
        };
        Ok(Self { hosts, resolv_conf })
    }
}

/// Whether a name server is named that can be reached from another network namespace: the host's loopback cannot.
fn has_reachable_server(resolv_conf: &str) -> bool {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse::<std::net::IpAddr>().ok())
        .any(|address| !address.is_loopback())
}

fn written(path: &Path, text: &str) -> Result<PathBuf, RuntimeError> {
    let failed = |source: io::Error| RuntimeError::File { doing: "write", path: path.to_path_buf(), source };
    fs::write(path, text).map_err(failed)?;
    Ok(path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::has_reachable_server;

    #[test]
    fn a_stub_resolver_on_loopback_is_of_no_use_in_a_container() {
        assert!(has_reachable_server("search lan\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n"));
        assert!(has_reachable_server("nameserver fe80::1"));
        assert!(!has_reachable_server("nameserver 127.0.0.53\noptions edns0\n"));
        assert!(!has_reachable_server("# nameserver 192.0.2.1\n"));
    }
}
