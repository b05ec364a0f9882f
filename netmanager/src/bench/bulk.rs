//! How much TCP carries.

use std::io::{self, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use super::request::Request;
use super::{Peer, read_u64};

const CHUNK: usize = 256 * 1024;

/// What has arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bulk {
    pub bytes: u64,
    /// From the first byte to the last, as the receiver saw them.
    pub seconds: f64,
    /// CPU time that all machines in it spent meanwhile, whatever else they did.
    pub busy_seconds: f64,
}

impl Bulk {
    /// Gbit/s of payload.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
    pub fn gigabits(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds / 1e9
    }

    /// CPU seconds for 10^9 bytes of payload.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
    pub fn cpu_per_gigabyte(&self) -> f64 {
        self.busy_seconds / (self.bytes as f64 / 1e9)
    }
}

/// Sends as fast as it goes on that many connections, for as long.
///
/// # Errors
/// When a connection cannot be made, or breaks.
pub fn bulk(peer: Peer, streams: usize, duration: Duration) -> io::Result<Bulk> {
    let before = peer.state()?.busy_of_both()?;
    let results: Vec<io::Result<(u64, u64)>> = thread::scope(|scope| {
        let sending: Vec<_> = (0..streams).map(|_| scope.spawn(move || send(peer, duration))).collect();
        let joined = sending.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    let busy_seconds = peer.state()?.busy_of_both()? - before;
    let results = results.into_iter().collect::<io::Result<Vec<_>>>()?;
    let longest = results.iter().map(|(_, nanoseconds)| *nanoseconds).max().unwrap_or(0).max(1);
    Ok(Bulk {
        bytes: results.iter().map(|(bytes, _)| *bytes).sum(),
        seconds: Duration::from_nanos(longest).as_secs_f64(),
        busy_seconds,
    })
}

fn send(peer: Peer, duration: Duration) -> io::Result<(u64, u64)> {
    let mut stream = peer.ask(Request::Bulk)?;
    let chunk = vec![0x5a; CHUNK];
    let start = Instant::now();
    while start.elapsed() < duration {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok((read_u64(&mut stream)?, read_u64(&mut stream)?))
}
