//! How long an answer takes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::request::{Datagram, Request};
use super::{Distribution, PATIENCE, Peer};

/// What carries the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// Asks for as long, one question after the other, each of `size` bytes (at least 9) and answered by as many. The thread
/// stays on `cpu`, if one is given.
///
/// # Errors
/// When the peer does not answer any more.
pub fn round_trips(
    peer: Peer,
    transport: Transport,
    size: u32,
    duration: Duration,
    cpu: Option<usize>,
) -> io::Result<Distribution> {
    super::cpu::on(cpu, || match transport {
        Transport::Tcp => by_tcp(peer, size, duration),
        Transport::Udp => by_udp(peer, size, duration),
    })
}

fn by_tcp(peer: Peer, size: u32, duration: Duration) -> io::Result<Distribution> {
    let mut stream = peer.ask(Request::Echo { size })?;
    let mut buffer = vec![0; size as usize];
    repeat(duration, || {
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        Ok(true)
    })
}

fn by_udp(peer: Peer, size: u32, duration: Duration) -> io::Result<Distribution> {
    let socket = connected(peer)?;
    socket.set_read_timeout(Some(PATIENCE / 10))?;
    let mut question = Datagram::Echo.header(peer.state()?.token).to_vec();
    question.resize(question.len().max(size as usize), 0);
    let mut answer = vec![0; question.len()];
    let mut lost = 0;
    repeat(duration, || {
        socket.send(&question)?;
        match socket.recv(&mut answer) {
            Ok(_) => Ok(true),
            // One lost datagram is no answer to be counted, many are no network to be measured.
            Err(error) if error.kind() == ErrorKind::WouldBlock && lost < 5 => {
                lost += 1;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    })
}

pub(super) fn connected(peer: Peer) -> io::Result<UdpSocket> {
    let any: SocketAddr = match peer.0 {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer.0)?;
    Ok(socket)
}

/// Even where an exchange takes as long as all of them should.
const AT_LEAST: usize = 10;

/// Times `exchange`, which says whether it was one. The first tenth of the duration warms up and does not count.
fn repeat(duration: Duration, mut exchange: impl FnMut() -> io::Result<bool>) -> io::Result<Distribution> {
    let mut times = Vec::with_capacity(1 << 16);
    let start = Instant::now();
    let mut before = start;
    while before - start < duration || times.len() < AT_LEAST {
        let counts = exchange()?;
        let now = Instant::now();
        if counts && before - start >= duration / 10 {
            times.push(now - before);
        }
        before = now;
    }
    Distribution::of(times).ok_or_else(|| ErrorKind::TimedOut.into())
}
