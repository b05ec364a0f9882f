//! Measuring a network between two ends, without any other tool: throughput, round trips, connections, datagrams.
//!
//! One end runs a [`Server`] (`netmanager bench serve`); the other calls the measures, which talk to it as a [`Peer`]
//! (`netmanager bench run`). Nothing in here knows what the network is made of, so the same code measures two containers
//! on the overlay, two hosts beside it, and any other network.
//!
//! Measures block the calling thread, and act in its network namespace. A server takes one measuring peer at a time.

mod awake;
mod batch;
mod bulk;
mod connect;
mod cpu;
mod datagrams;
mod distribution;
mod flows;
mod request;
mod round_trip;
mod serve;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub use self::awake::Awake;
pub use self::bulk::{Bulk, bulk};
pub use self::connect::connections;
pub use self::cpu::{busy_seconds, pin};
pub use self::datagrams::{Datagrams, datagrams};
pub use self::distribution::{Distribution, QUANTILES};
pub use self::flows::{MAX_FLOWS, flows};
pub use self::round_trip::{Transport, round_trips};
pub use self::serve::Server;

use self::request::Request;

/// The port of a server unless it is told otherwise.
pub const PORT: u16 = 50_199;

/// How long an end may be silent before a measure fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a [`Server`] listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Opens its UDP port to whoever shows it.
    token: u64,
    /// Datagrams that were to be counted, since its start.
    counted: u64,
    /// CPU time that its machine has spent since boot, in nanoseconds.
    busy: u64,
    /// Differs from machine to machine, and from boot to boot.
    machine: u64,
}

impl Peer {
    /// # Errors
    /// When there is no server, or it does not answer.
    pub fn state(self) -> io::Result<State> {
        let mut stream = self.ask(Request::State)?;
        Ok(State {
            token: read_u64(&mut stream)?,
            counted: read_u64(&mut stream)?,
            busy: read_u64(&mut stream)?,
            machine: read_u64(&mut stream)?,
        })
    }

    /// Connects and says what is wanted.
    fn ask(self, request: Request) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.0, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&request.to_bytes())?;
        Ok(stream)
    }
}

impl State {
    /// CPU seconds that this machine and the server's, if it is another one, have spent since boot.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn busy_of_both(&self) -> io::Result<f64> {
        let here = busy_seconds()?;
        let same = self.machine == cpu::machine()?;
        Ok(if same { here } else { here + Duration::from_nanos(self.busy).as_secs_f64() })
    }
}

fn read_u64(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

/// A duration as it is sent. Longer ones than 584 years are not measured.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    use super::{Peer, Server, Transport, bulk, connections, datagrams, flows, round_trips};

    const SHORT: Duration = Duration::from_millis(20);

    fn served(measure: impl FnOnce(Peer)) {
        let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), None).unwrap();
        measure(Peer(server.address()));
    }

    #[test]
    fn bytes_are_counted_by_the_receiver() {
        served(|peer| {
            let carried = bulk(peer, 2, SHORT).unwrap();
            assert!(carried.bytes > 0 && carried.seconds > 0.0, "{carried:?}");
        });
    }

    #[test]
    fn every_question_has_an_answer() {
        served(|peer| {
            for transport in [Transport::Tcp, Transport::Udp] {
                let times = round_trips(peer, transport, 64, SHORT, None).unwrap();
                assert!(times.quantile(0.5) <= times.quantile(0.99), "{transport:?}");
            }
        });
    }

    #[test]
    fn connections_end_well() {
        served(|peer| assert!(connections(peer, SHORT, None).unwrap() > 0.0));
    }

    #[test]
    fn every_flow_is_answered() {
        served(|peer| flows(peer, 100).unwrap());
    }

    #[test]
    fn only_datagrams_with_the_servers_token_are_counted() {
        served(|peer| {
            let sent = datagrams(peer, 18, SHORT, None).unwrap();
            assert!(sent.received > 0 && sent.received <= sent.sent, "{sent:?}");
            let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            stranger.set_read_timeout(Some(SHORT)).unwrap();
            stranger.send_to(&[2; 64], peer.0).unwrap();
            assert!(stranger.recv(&mut [0; 64]).is_err());
            assert_eq!(peer.state().unwrap().counted, sent.received);
        });
    }
}
