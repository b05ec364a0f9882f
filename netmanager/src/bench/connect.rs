//! How many connections a second, one after the other: made, a request, an answer, closed.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::Peer;
use super::request::{LENGTH, Request};

/// Gives connections a second. The thread stays on `cpu`, if one is given. The server closes first, so that the waiting
/// for late packets (TIME-WAIT) does not use up the client's ports.
///
/// # Errors
/// When a connection fails.
pub fn connections(peer: Peer, duration: Duration, cpu: Option<usize>) -> io::Result<f64> {
    super::cpu::on(cpu, || {
        let start = Instant::now();
        let mut count = 0_u32;
        while start.elapsed() < duration {
            let mut stream = peer.ask(Request::Connection)?;
            let mut answer = [0; LENGTH];
            stream.read_exact(&mut answer)?;
            if stream.read(&mut answer)? != 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            count += 1;
        }
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    })
}
