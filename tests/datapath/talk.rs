//! Servers and clients in containers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use crate::nodes::{Container, Family, kernel_has_ipv6};

pub(crate) const PORT: u16 = 9000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Who answered, and who had asked as the server saw it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) by: IpAddr,
    pub(crate) asked_by: IpAddr,
}

impl Answer {
    pub(crate) fn of(server: &Container, client: &Container) -> Self {
        Self::over(Family::V4, server, client)
    }

    pub(crate) fn over(family: Family, server: &Container, client: &Container) -> Self {
        Self { by: server.backend.ns_ip.into(), asked_by: client.instance_ip(family) }
    }

    fn parse(text: &str) -> Self {
        let mut words = text.split_whitespace().map(|word| word.parse().expect("an address"));
        Self { by: words.next().unwrap(), asked_by: words.next().unwrap() }
    }
}

/// Where a server of all families of this kernel listens.
fn any() -> IpAddr {
    if kernel_has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// Answers each TCP connection and each UDP datagram with who it seemed to come from.
pub(crate) fn serve(container: &Container) {
    let name = container.backend.ns_ip;
    let any = (any(), PORT);
    let bind = || (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
    let (listener, socket) = container.netns.run(bind).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if let Ok(peer) = stream.peer_addr() {
                writeln!(stream, "{name} {}", peer.ip().to_canonical()).ok();
            }
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer).ok();
        }
    });
}

/// Sends back what it receives, on each TCP connection.
pub(crate) fn echo(container: &Container) {
    let any = (any(), PORT);
    let listener = container.netns.run(|| TcpListener::bind(any).unwrap()).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = stream.try_clone()?;
                let mut writer = stream;
                io::copy(&mut reader, &mut writer)
            });
        }
    });
}

pub(crate) fn connect(client: &Container, address: impl Into<IpAddr>) -> TcpStream {
    let target = SocketAddr::new(address.into(), PORT);
    let stream = client.netns.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    let stream = stream.unwrap_or_else(|error| panic!("connect {client:?} to {target}: {error}"));
    assert_eq!(stream.peer_addr().unwrap(), target);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Connects and gives what [`serve`] says.
pub(crate) fn ask(client: &Container, address: impl Into<IpAddr>) -> Answer {
    let mut text = String::new();
    connect(client, address).read_to_string(&mut text).unwrap();
    Answer::parse(&text)
}

/// Asks by one UDP datagram, from a port that nobody had before: one that comes again belongs to the flow of whoever had
/// it, and to its backend.
pub(crate) fn ask_by_datagram(client: &Container, address: impl Into<IpAddr>) -> io::Result<Answer> {
    static PORTS: AtomicU16 = AtomicU16::new(20_000);
    let port = PORTS.fetch_add(1, Ordering::Relaxed);
    let target = SocketAddr::new(address.into(), PORT);
    let any = match target {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = client.netns.run(|| UdpSocket::bind((any, port)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    // A connected socket takes answers from nobody but whom it asked.
    socket.connect(target)?;
    socket.send(b"who?")?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer)?;
    Ok(Answer::parse(std::str::from_utf8(&buffer[..length]).expect("text")))
}

/// Sends `rounds` different blocks to an [`echo`] server and checks that each comes back as it was.
pub(crate) fn exchange(stream: &mut TcpStream, rounds: u8) {
    let mut back = vec![0; 64 * 1024];
    for round in 0..rounds {
        let sent: Vec<u8> = (0..back.len()).map(|n| u8::try_from(n % 251).unwrap() ^ round).collect();
        stream.write_all(&sent).unwrap();
        stream.read_exact(&mut back).unwrap();
        assert!(back == sent, "round {round} came back changed");
    }
}

pub(crate) fn ping(client: &Container, address: impl Into<IpAddr>) {
    let address = address.into();
    client.netns.output("ping", &["-n", "-c", "3", "-i", "0.1", "-W", "2", &address.to_string()]).unwrap();
}

/// Whether an [`echo`] server still answers on this connection.
pub(crate) fn still_echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").and_then(|()| stream.read_exact(&mut back)).is_ok()
}
