//! Traffic that shows each lost packet and each reset: numbered datagrams there and back, and one busy connection.

use std::collections::HashSet;
use std::io::Read;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use integration::{Netns, eventually};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use serde_json::Value;

use integration::cluster::WEB_ADDRESS;

const PORT: u16 = 9000;
const BULK_PORT: u16 = 9001;
/// Between two datagrams.
const PACE: Duration = Duration::from_millis(2);
/// Room for what arrives while a busy machine lets nobody read.
const BUFFER: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Datagrams with numbers from a client to a service, which sends each back.
#[derive(Debug)]
pub(crate) struct Numbered {
    sent: Arc<AtomicU64>,
    returned: Arc<Mutex<HashSet<u64>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Numbered {
    pub(crate) fn start(client: &Netns, server: &Netns) -> Result<Self> {
        let echo = socket(server, PORT)?;
        let sender = socket(client, 0)?;
        sender.connect((WEB_ADDRESS, PORT)).context("connect to the service")?;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let returned = Arc::new(Mutex::new(HashSet::new()));
        let receiver = sender.try_clone()?;
        let threads = vec![
            until(&stop, {
                let mut buffer = [0; 64];
                move || {
                    let (length, peer) = echo.recv_from(&mut buffer)?;
                    echo.send_to(&buffer[..length], peer).map(drop)
                }
            }),
            until(&stop, {
                let returned = Arc::clone(&returned);
                let mut number = [0; 8];
                move || {
                    receiver.recv(&mut number)?;
                    returned
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(u64::from_be_bytes(number));
                    Ok(())
                }
            }),
            until(&stop, {
                let sent = Arc::clone(&sent);
                move || {
                    sender.send(&sent.load(Ordering::Relaxed).to_be_bytes())?;
                    sent.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PACE);
                    Ok(())
                }
            }),
        ];
        Ok(Self { sent, returned, stop, threads })
    }

    /// All that were sent until now come back.
    pub(crate) fn expect_none_lost(&self) -> Result<()> {
        let sent = self.sent.load(Ordering::Relaxed);
        eventually(PATIENCE, "every datagram to come back", || {
            let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
            let lost: Vec<_> = (0..sent).filter(|number| !returned.contains(number)).collect();
            if lost.is_empty() { Ok(()) } else { Err(anyhow!("{} of {sent} lost: {lost:?}", lost.len())) }
        })
    }

    /// Of those that are sent from now on each comes back.
    pub(crate) fn expect_to_go_on(&self) -> Result<()> {
        let from = self.sent.load(Ordering::Relaxed);
        eventually(PATIENCE, "a hundred datagrams to come back", || {
            let returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
            let lost: Vec<_> = (from..from + 100).filter(|number| !returned.contains(number)).collect();
            if lost.is_empty() { Ok(()) } else { Err(anyhow!("not yet or lost: {lost:?}")) }
        })
    }

    /// Gives how many there were.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.expect_none_lost()?;
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_panic| anyhow!("a thread panicked"))?.context("send or receive")?;
        }
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn socket(netns: &Netns, port: u16) -> Result<UdpSocket> {
    let socket = netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?.context("bind")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).context("make room for datagrams")?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    Ok(socket)
}

/// A thread that does the same again until it is to stop. Nothing to read is no failure.
fn until(
    stop: &Arc<AtomicBool>,
    mut step: impl FnMut() -> std::io::Result<()> + Send + 'static,
) -> JoinHandle<std::io::Result<()>> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match step() {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                result => result?,
            }
        }
        Ok(())
    })
}

/// One connection of iperf3, at a pace that leaves the machine to others.
#[derive(Debug)]
pub(crate) struct Bulk {
    // In the order of their end.
    client: Ended,
    _server: Ended,
}

impl Bulk {
    pub(crate) fn start(client: &Netns, server: &Netns) -> Result<Self> {
        let port = BULK_PORT.to_string();
        let sockets = |netns: &Netns, state: &str, end: &str, count: usize| {
            eventually(PATIENCE, &format!("{count} sockets of iperf3 to be {state}"), || {
                let found = netns.output("ss", &["-Htn", "state", state, end, "=", &format!(":{port}")])?;
                ensure!(found.lines().count() == count, "{found:?}");
                Ok(())
            })
        };
        let listening =
            server.command("iperf3")?.args(["-s", "-1", "-p", &port]).stdout(Stdio::null()).spawn();
        let listening = Ended(listening.context("start iperf3")?);
        sockets(server, "listening", "sport", 1)?;
        let sending = client
            .command("iperf3")?
            .args(["-c", &WEB_ADDRESS.to_string(), "-p", &port, "-t", "3600", "-b", "50M", "-J"])
            .stdout(Stdio::piped())
            .spawn();
        let mut bulk = Self { client: Ended(sending.context("start iperf3")?), _server: listening };
        // One that controls and one that carries.
        let connected = sockets(client, "established", "dport", 2);
        bulk.expect_running()?;
        connected.map(|()| bulk)
    }

    /// A reset, or silence for long, ends it.
    pub(crate) fn expect_running(&mut self) -> Result<()> {
        match self.client.0.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let mut said = String::new();
                self.client.0.stdout.take().context("its output")?.read_to_string(&mut said)?;
                let said: Value = serde_json::from_str(&said).unwrap_or_default();
                Err(anyhow!("iperf3 ended, {status}: {}", said["error"]))
            }
        }
    }

    /// Ends it and gives how many bytes it has sent.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.expect_running()?;
        kill(Pid::from_raw(i32::try_from(self.client.0.id())?), Signal::SIGINT)?;
        let mut said = String::new();
        self.client.0.stdout.take().context("its output")?.read_to_string(&mut said)?;
        let said: Value = serde_json::from_str(&said).with_context(|| format!("read {said}"))?;
        let bytes = said["end"]["sum_sent"]["bytes"].as_u64();
        let bytes = bytes.with_context(|| format!("no bytes in what iperf3 says: {said}"))?;
        ensure!(bytes > 0, "iperf3 has sent nothing");
        Ok(bytes)
    }
}

/// A process that ends with this.
#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
