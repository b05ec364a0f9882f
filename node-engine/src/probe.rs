//! What this machine is, and how busy it is: read from the kernel, never estimated.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sys::statvfs::statvfs;
use protocol::node::{DISK_FREE, SystemInfo};
use serde_json::{Map, Value, json};

/// The architecture by Go's name for it, which Oakestra uses.
#[must_use]
pub const fn architecture() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        b"x86" => "386",
        b"loongarch64" => "loong64",
        _ => std::env::consts::ARCH,
    }
}

/// Logical processors of the machine.
#[must_use]
pub fn cores() -> u32 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let lines = stat.lines().filter(|line| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    u32::try_from(lines.count()).unwrap_or(1).max(1)
}

/// Processor time since boot, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    pub busy: u64,
    pub total: u64,
}

impl CpuTimes {
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; the guests' time is in the user's.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|text| text.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        let total: u64 = ticks.iter().sum();
        Some(Self { busy: total - idle, total })
    }

    /// The busy part of the time between two readings, 0 to 100.
    #[must_use]
    pub fn percent_since(&self, before: &Self) -> f64 {
        let total = self.total.saturating_sub(before.total);
        let busy = self.busy.saturating_sub(before.busy);
        if total == 0 { 0.0 } else { 100.0 * ratio(busy.min(total), total) }
    }
}

/// Memory of the machine, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// What could be used without swapping.
    pub available: u64,
}

impl Memory {
    #[must_use]
    pub fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/meminfo").ok()?)
    }

    fn parse(meminfo: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self { total: field("MemTotal:")?, available: field("MemAvailable:")? })
    }

    #[must_use]
    pub fn available_mib(&self) -> u64 {
        self.available / 1024
    }

    #[must_use]
    pub fn used_percent(&self) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            100.0 * ratio(self.total.saturating_sub(self.available), self.total)
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share of two counters is shown with a few digits")]
#[must_use]
pub fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// What does not change while the machine is up, but for the uptime.
#[must_use]
pub fn system_info() -> SystemInfo {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let uptime = read("/proc/uptime");
    SystemInfo {
        kernel_version: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        architecture: architecture().to_owned(),
        os_version: os_name(&read("/etc/os-release")),
        uptime: uptime.split('.').next().unwrap_or_default().trim().to_owned(),
        extra: Map::new(),
    }
}

fn os_name(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Size and free space of the file system that holds `path`, in MB as text.
#[must_use]
pub fn disk_info(path: &Path) -> Map<String, Value> {
    let Ok(found) = statvfs(path) else { return Map::new() };
    let fragment: u64 = found.fragment_size();
    let megabytes = |blocks: u64| json!((blocks.saturating_mul(fragment) / 1_000_000).to_string());
    Map::from_iter([
        ("path".to_owned(), json!(path.display().to_string())),
        ("total_mb".to_owned(), megabytes(found.blocks())),
        (DISK_FREE.to_owned(), megabytes(found.blocks_available())),
    ])
}

/// The addresses of the machine's interfaces.
#[must_use]
pub fn network_info() -> Map<String, Value> {
    let mut interfaces = Map::new();
    for (name, address) in addresses() {
        interfaces.entry(name).or_insert_with(|| json!(address.to_string()));
    }
    interfaces
}

/// The address with which this machine reaches `peer`; when that is loopback, or cannot be said, its first other IPv4
/// address if there is one. Nothing is sent.
#[must_use]
pub fn address_towards(peer: Option<IpAddr>) -> Option<IpAddr> {
    let outgoing = peer.and_then(|peer| {
        let any: IpAddr =
            if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        // Any port will do: this only looks up the route.
        socket.connect((peer, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    match outgoing {
        Some(address) if !address.is_loopback() => Some(address),
        _ => addresses().into_iter().map(|(_, address)| address).find(IpAddr::is_ipv4).or(outgoing),
    }
}

fn addresses() -> Vec<(String, IpAddr)> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    interfaces
        .filter_map(|interface| {
            let storage = interface.address?;
            let address = storage
                .as_sockaddr_in()
                .map(|address| IpAddr::V4(address.ip()))
                .or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))?;
            (!address.is_loopback()).then_some((interface.interface_name, address))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{CpuTimes, Memory, cores, os_name};

    #[test]
    fn the_busy_share_of_the_time_between_two_readings() {
        let before = CpuTimes::parse("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1\n").unwrap();
        let after = CpuTimes::parse("cpu  130 0 120 850 0 0 0 0 30 0\n").unwrap();
        assert!((after.percent_since(&before) - 50.0).abs() < 1e-9);
        assert!(before.percent_since(&before).abs() < 1e-9);
        assert!(CpuTimes::parse("intr 5").is_none());
    }

    #[test]
    fn available_memory_is_what_counts() {
        let memory = Memory::parse("MemTotal:  4096 kB\nMemFree:  100 kB\nMemAvailable:  3072 kB\n").unwrap();
        assert_eq!(memory.available_mib(), 3);
        assert!((memory.used_percent() - 25.0).abs() < 1e-9);
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(CpuTimes::read().unwrap().total > 0);
        assert!(Memory::read().unwrap().total > 0);
        assert!(cores() > 0);
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
    }
}
