//! Which processes of the node listen on a port, so that no host port takes it away from them.
//!
//! Host ports are rules, no sockets: the kernel would not refuse one that a process has. From then on the process
//! would hear nothing more.

use std::fmt;
use std::fs;
use std::io;

use crate::ports::{HostPort, Transport};

/// Who has a port of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Name and PID. Not known of a process that this one may not look into.
    process: Option<(String, u32)>,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((name, pid)) => write!(f, "{name} (pid {pid})"),
            None => f.write_str("a process that cannot be told"),
        }
    }
}

/// The process that listens on this port in the network namespace of this process, at whichever address.
///
/// # Errors
/// When the kernel does not list its sockets.
pub fn on(port: HostPort) -> io::Result<Option<Listener>> {
    let (table, state) = match port.transport {
        Transport::Tcp => ("tcp", TCP_LISTEN),
        Transport::Udp => ("udp", UDP_UNCONNECTED),
    };
    let mut text = fs::read_to_string(format!("/proc/self/net/{table}"))?;
    // Missing where the kernel has no IPv6.
    text += &fs::read_to_string(format!("/proc/self/net/{table}6")).unwrap_or_default();
    Ok(sockets(&text, state, port.port).next().map(|inode| Listener { process: owner(inode) }))
}

/// States in the kernel's lists: TCP_LISTEN, and TCP_CLOSE, which a UDP socket has that takes datagrams from anybody.
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// The inodes of the sockets at `port` in a list like /proc/net/tcp:
/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`
fn sockets<'text>(text: &'text str, state: &str, port: u16) -> impl Iterator<Item = u64> {
    text.lines().filter_map(move |line| {
        let fields: Vec<&'text str> = line.split_whitespace().collect();
        let (local, found, inode) = (*fields.get(1)?, *fields.get(3)?, *fields.get(9)?);
        let (_, local_port) = local.rsplit_once(':')?;
        let is_it = found == state && u16::from_str_radix(local_port, 16) == Ok(port);
        is_it.then(|| inode.parse().ok()).flatten()
    })
}

/// The process that has the socket open.
fn owner(inode: u64) -> Option<(String, u32)> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end, or be closed to us, at any moment.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let has_it =
            |file: fs::DirEntry| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*wanted);
        if files.flatten().any(has_it) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((name.trim().to_owned(), pid));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::{TCP_LISTEN, on, sockets};
    use crate::ports::{HostPort, Transport};

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let text = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 22 1 0 100 0 0 10 0
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 23 1 0 100 0 0 10 0
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 24 1 0 100 0 0 10 0
";
        assert_eq!(sockets(text, TCP_LISTEN, 8080).collect::<Vec<_>>(), [21, 24]);
        assert_eq!(sockets(text, TCP_LISTEN, 80).count(), 0);
    }

    #[test]
    fn a_listener_is_named() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0"));
        let port = |transport, port| HostPort { transport, port };
        let held = on(port(Transport::Tcp, tcp.local_addr().unwrap().port())).unwrap().unwrap();
        assert!(held.to_string().ends_with(&format!("(pid {})", std::process::id())), "{held}");
        // Without IPv6 there is nothing to be found.
        if let Ok(udp) = udp {
            assert!(on(port(Transport::Udp, udp.local_addr().unwrap().port())).unwrap().is_some());
        }
    }
}
