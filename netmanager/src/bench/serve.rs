//! The end that answers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::batch::Receiver;
use super::request::{Datagram, LENGTH, Request};
use super::{PATIENCE, cpu, nanoseconds};

/// How long a thread may not notice that the server has been dropped.
const PAUSE: Duration = Duration::from_millis(100);
const CHUNK: usize = 256 * 1024;
/// Peers that may send at the same time; more wait.
const MAX_CONNECTIONS: usize = 256;

/// Answers peers on a TCP and a UDP port of the same number until it is dropped. Its threads live in the network
/// namespace of the thread that started it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    token: u64,
    counted: AtomicU64,
    connections: AtomicU64,
    cpu: Option<usize>,
}

impl Server {
    /// Listens. What answers single packets stays on `cpu`, if one is given; what takes bulk goes where the scheduler
    /// likes.
    ///
    /// # Errors
    /// When the address is not free.
    pub fn start(address: SocketAddr, cpu: Option<usize>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let socket = UdpSocket::bind(address)?;
        let pause = TimeVal::milliseconds(PAUSE.as_millis().try_into().unwrap_or(100));
        setsockopt(&listener.as_fd(), sockopt::ReceiveTimeout, &pause)?;
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &pause)?;
        // Best effort: what the limit of the machine allows.
        setsockopt(&socket.as_fd(), sockopt::RcvBuf, &(8 << 20)).ok();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            token: random()?,
            counted: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            cpu,
        });
        let mut server = Self { address, shared, threads: Vec::new() };
        let (accepting, receiving) = (Arc::clone(&server.shared), Arc::clone(&server.shared));
        server.spawn("bench-tcp", move || accept(&listener, &accepting))?;
        server.spawn("bench-udp", move || receive(&socket, &receiving))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic there has been printed.
            thread.join().ok();
        }
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

/// Takes connections. Those that ask for one answer only are served right here: a thread for each would cost more than
/// the connection.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    cpu::pin_if(shared.cpu);
    while !shared.stop.load(Ordering::Relaxed) {
        // A connection that fails is the peer's to complain about; there is nobody here to tell.
        if let Ok((stream, _)) = listener.accept() {
            first(stream, shared).ok();
        }
    }
}

fn first(mut stream: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; LENGTH];
    stream.read_exact(&mut request)?;
    match Request::read(&request).ok_or(ErrorKind::InvalidData)? {
        Request::Connection => stream.write_all(&request),
        Request::State => {
            let counted = shared.counted.load(Ordering::Relaxed);
            let busy = nanoseconds(Duration::from_secs_f64(cpu::busy_seconds()?));
            let numbers = [shared.token, counted, busy, cpu::machine()?];
            stream.write_all(numbers.map(u64::to_be_bytes).as_flattened())
        }
        Request::Bulk => apart(shared, move |_| drain(stream)),
        Request::Echo { size } => apart(shared, move |shared| echo(stream, size as usize, shared)),
    }
}

/// On a thread of its own.
fn apart(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    if shared.connections.load(Ordering::Relaxed) >= MAX_CONNECTIONS as u64 {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    let shared = Arc::clone(shared);
    shared.connections.fetch_add(1, Ordering::Relaxed);
    thread::Builder::new().name("bench-peer".to_owned()).spawn(move || {
        work(&shared).ok();
        shared.connections.fetch_sub(1, Ordering::Relaxed);
    })?;
    Ok(())
}

fn drain(mut stream: TcpStream) -> io::Result<()> {
    // The thread that accepts is pinned, and its children begin where it is.
    cpu::unpin();
    let mut buffer = vec![0; CHUNK];
    let mut bytes = stream.read(&mut buffer)? as u64;
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    let numbers = [bytes, nanoseconds(start.elapsed())];
    stream.write_all(numbers.map(u64::to_be_bytes).as_flattened())
}

fn echo(mut stream: TcpStream, size: usize, shared: &Shared) -> io::Result<()> {
    cpu::pin_if(shared.cpu);
    let mut buffer = vec![0; size];
    loop {
        stream.read_exact(&mut buffer)?;
        stream.write_all(&buffer)?;
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    cpu::pin_if(shared.cpu);
    let mut receiver = Receiver::new();
    while !shared.stop.load(Ordering::Relaxed) {
        // A time-out is the usual error; after others, such as ICMP's, the socket goes on as well.
        let Ok(received) = receiver.receive(socket) else { continue };
        let mut counted = 0;
        for (datagram, sender) in received {
            match Datagram::read(datagram, shared.token) {
                Some(Datagram::Count) => counted += 1,
                Some(Datagram::Echo) => {
                    if let Some(sender) = sender {
                        socket.send_to(datagram, sender).ok();
                    }
                }
                None => {}
            }
        }
        shared.counted.fetch_add(counted, Ordering::Relaxed);
    }
}
