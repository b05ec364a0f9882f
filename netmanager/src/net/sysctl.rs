//! The kernel settings that containers need. `/proc/sys/net` is that of the calling thread's network namespace.
//!
//! It is forwarding, and one more for containers with host ports. Reverse path filtering, however strict, lets our packets
//! pass: what a container sends to the world comes in over the very link that its /32 route names, and what the data plane delivers never passes the filter. Proxy ARP
//! is not needed either, since both sides of a link know each other by permanent neighbour entries.

use std::fs;
use std::path::Path;

use super::NetError;

/// Lets the kernel forward what a container sends to the world outside the overlay, and the answers.
///
/// # Errors
/// When the setting cannot be written.
pub fn enable_forwarding() -> Result<(), NetError> {
    set("net/ipv4/ip_forward", "1")
}

/// Whether this namespace has IPv6.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// The same of IPv6. A node that forwards does not listen to routers any more, unless told to (`accept_ra` 2): without
/// that it would lose its own default route.
///
/// # Errors
/// As [`enable_forwarding`].
pub fn enable_forwarding6() -> Result<(), NetError> {
    const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
    let is = |name: &str, value: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(name)).is_ok_and(|current| current.trim() == value)
    };
    if is(FORWARDING, "1") {
        return Ok(());
    }
    for interface in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let name = format!("net/ipv6/conf/{}/accept_ra", interface.file_name().to_string_lossy());
        if is(&name, "1") {
            set(&name, "2")?;
        }
    }
    set(FORWARDING, "1")
}

/// Lets what a process of the node sends to 127.0.0.1 go out over this link, when a rule leads it there, and the answer
/// come in. Only over this one: nobody on the node's other links can reach what listens on 127.0.0.1. From this one
/// nobody does either: what a container sends there is dropped by `from_container`.
///
/// # Errors
/// When the setting cannot be written.
pub fn let_loopback_out(link: &str) -> Result<(), NetError> {
    set(&format!("net/ipv4/conf/{link}/route_localnet"), "1")
}

/// Writes a setting unless it has the value already: some systems mount `/proc/sys` read-only with it preset.
fn set(name: &str, value: &str) -> Result<(), NetError> {
    let path = Path::new("/proc/sys").join(name);
    if fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value)
        .map_err(|error| NetError::new(format!("set {} to {value}", name.replace('/', ".")), error.into()))
}
