//! Many flows, of one question and one answer each.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::ops::Range;

use super::request::Datagram;
use super::{PATIENCE, Peer};

/// Where flows come from: all but the ports of the system.
const PORTS: Range<u16> = 1024..u16::MAX;
const TRIES: u32 = 5;

/// The most that [`flows`] can begin.
pub const MAX_FLOWS: usize = PORTS.end as usize - PORTS.start as usize;

/// Begins so many UDP flows (at most [`MAX_FLOWS`]), one after the other, each from another port. What is on the way
/// remembers them; the ends do not.
///
/// # Errors
/// When a port is taken, or an answer does not come.
pub fn flows(peer: Peer, count: usize) -> io::Result<()> {
    let question = Datagram::Echo.header(peer.state()?.token);
    let any: IpAddr =
        if peer.0.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    for port in PORTS.take(count) {
        let socket = UdpSocket::bind((any, port))?;
        socket.connect(peer.0)?;
        socket.set_read_timeout(Some(PATIENCE / TRIES))?;
        ask(&socket, &question)?;
    }
    Ok(())
}

fn ask(socket: &UdpSocket, question: &[u8]) -> io::Result<()> {
    let mut answer = [0; Datagram::HEADER];
    for _ in 0..TRIES {
        socket.send(question)?;
        match socket.recv(&mut answer) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::TimedOut.into())
}
