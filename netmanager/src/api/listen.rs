//! The sockets of the API, and who may use them.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::unix::SocketAddr;
use tokio::net::{TcpListener, UnixListener, UnixStream};

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "another netmanager (pid {pid}) serves the socket {path}; stop it first, or give this one a --socket of its own"
    )]
    SocketTaken { path: PathBuf, pid: String },
    #[error("listen on the socket {path}")]
    Socket { path: PathBuf, source: io::Error },
    #[error("listen on 127.0.0.1:{port}: another program has this port; choose another with -p")]
    PortTaken { port: u16 },
    #[error("listen on 127.0.0.1:{port}")]
    Port { port: u16, source: io::Error },
    #[error("serve metrics on {address} (is it this machine's, and the port free?)")]
    Metrics { address: std::net::SocketAddr, source: io::Error },
}

/// The UNIX socket: of each peer the kernel tells the user, who must be root or the daemon's own. The file is
/// removed when this value is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    own_uid: u32,
}

impl Socket {
    /// The pid of the process that serves this socket file, if there is one.
    pub async fn server(path: &Path) -> Option<String> {
        let server = UnixStream::connect(path).await.ok()?;
        let pid = server.peer_cred().ok().and_then(|server| server.pid());
        Some(pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()))
    }

    /// Takes the place of a socket file that nobody serves any more.
    ///
    /// # Errors
    /// When another process serves it, or the file cannot be made.
    pub async fn bind(path: &Path) -> Result<Self, ListenError> {
        if let Some(pid) = Self::server(path).await {
            return Err(ListenError::SocketTaken { path: path.to_owned(), pid });
        }
        let fail = |source| ListenError::Socket { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(fail)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(fail)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fail)?;
        Ok(Self { listener, path: path.to_owned(), own_uid: nix::unistd::geteuid().as_raw() })
    }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == self.own_uid => return (stream, address),
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid(), pid = peer.pid(), "refused a user who is not root")
                }
                Err(error) => tracing::warn!(%error, "refused a peer that cannot be told"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A file that is left is recognised as stale by the next start.
        fs::remove_file(&self.path).ok();
    }
}

/// Listens where metrics are asked for.
///
/// # Errors
/// When the address is not this machine's, or its port is taken.
pub async fn bind_metrics(address: std::net::SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Metrics { address, source })
}

/// The TCP port of Oakestra's older node engines. Never reachable from other machines.
///
/// # Errors
/// When the port is taken or not allowed.
pub async fn bind_loopback(port: u16) -> Result<TcpListener, ListenError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortTaken { port },
        _ => ListenError::Port { port, source },
    })
}
