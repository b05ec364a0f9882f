//! How many UDP packets a second.

use std::io::{self, ErrorKind};
use std::thread;
use std::time::{Duration, Instant};

use super::Peer;
use super::batch::Sender;
use super::request::Datagram;
use super::round_trip::connected;

/// What became of datagrams that were sent as fast as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagrams {
    pub sent: u64,
    /// By the application, not only by the interface.
    pub received: u64,
    pub elapsed: Duration,
}

impl Datagrams {
    /// Received datagrams a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
    pub fn rate(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends datagrams with payloads of `size` bytes (at least 9), for as long. The thread stays on `cpu`, if one is given.
///
/// # Errors
/// When the peer does not answer, or sending fails other than by full queues.
pub fn datagrams(peer: Peer, size: usize, duration: Duration, cpu: Option<usize>) -> io::Result<Datagrams> {
    super::cpu::on(cpu, || {
        let before = peer.state()?;
        let socket = connected(peer)?;
        let mut datagram = Datagram::Count.header(before.token).to_vec();
        datagram.resize(datagram.len().max(size), 0);
        let mut sender = Sender::new(datagram);
        let mut sent = 0;
        let start = Instant::now();
        while start.elapsed() < duration {
            match sender.send(&socket) {
                Ok(count) => sent += count as u64,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
        let elapsed = start.elapsed();
        let received = settled(peer, before.counted)?;
        Ok(Datagrams { sent, received, elapsed })
    })
}

/// What the peer has counted since, once no more arrives.
fn settled(peer: Peer, before: u64) -> io::Result<u64> {
    let mut last = peer.state()?.counted;
    loop {
        thread::sleep(Duration::from_millis(20));
        let now = peer.state()?.counted;
        if now == last {
            return Ok(now - before);
        }
        last = now;
    }
}
