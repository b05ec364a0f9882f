//! A real etcd of a test's own, on loopback.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// In the line by which it says so.
const READY: &str = "serving client traffic";

/// Killed when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    _data: TempDir,
    port: u16,
}

impl Server {
    /// Starts it and waits until it can be asked.
    pub(crate) fn start(more: &[&str]) -> Self {
        // Whoever has a certificate for it speaks with its clients in secret.
        let scheme = if more.contains(&"--cert-file") { "https" } else { "http" };
        let data = tempfile::tempdir().expect("make a data directory");
        let [port, peers] = free_ports();
        let (clients, peers) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
        let mut child = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path().join("etcd"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args([
                "--initial-cluster",
                &format!("default={peers}"),
                "--logger",
                "zap",
                "--log-outputs",
                "stderr",
            ])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start etcd (cargo xtask setup installs it)");
        let log = BufReader::new(child.stderr.take().expect("a pipe"));
        // From here on the process ends with the test, however that ends.
        let server = Self { child, _data: data, port };
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // Read to its end, so that it never waits for a reader.
            for _ in log.lines().map_while(Result::ok).filter(|line| line.contains(READY)) {
                tell.send(()).ok();
            }
        });
        told.recv_timeout(START_TIMEOUT).expect("an etcd that serves");
        server
    }

    /// `SIGSTOP`: it answers nothing, though it is there, until `SIGCONT`.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().try_into().expect("a process id"));
        kill(id, signal).expect("signal etcd");
    }

    /// As `--store` has it.
    pub(crate) fn location(&self, prefix: &str) -> String {
        format!("etcd://127.0.0.1:{}/{prefix}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("stop etcd");
        self.child.wait().expect("wait for etcd");
    }
}

/// Two at a time, so that they are not the same.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}
