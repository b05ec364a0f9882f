//! How much one TCP connection carries between two containers: over the overlay, and over plain routing beside it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::container::Container;
use crate::lab::Lab;
use crate::netns::connect;

const CHUNK: usize = 128 * 1024;
const LINK: &str = "plain0";

/// Sends as fast as it goes from `client` to `target` for `duration`, to whichever of the `servers` is chosen on the
/// way. Gives Gbit/s as they were received.
pub fn measure(
    client: &Container,
    servers: &[&Container],
    target: SocketAddrV4,
    duration: Duration,
) -> Result<f64> {
    let listeners = servers
        .iter()
        .map(|server| {
            let listener = server
                .netns
                .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, target.port())))?
                .with_context(|| format!("listen on port {} in {}", target.port(), server.id))?;
            listener.set_nonblocking(true).context("make a listener wait for nobody")?;
            Ok(listener)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut sender = client
        .netns
        .run(|| TcpStream::connect_timeout(&SocketAddr::V4(target), Duration::from_secs(5)))?
        .with_context(|| format!("connect {} to {target}", client.id))?;
    let receiver = accepted(&listeners).with_context(|| format!("take the connection to {target}"))?;
    thread::scope(|scope| {
        let received = scope.spawn(|| drain(receiver));
        let chunk = vec![0; CHUNK];
        let start = Instant::now();
        while start.elapsed() < duration {
            sender.write_all(&chunk).context("send")?;
        }
        drop(sender);
        let (bytes, seconds) =
            received.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("receive")?;
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
        let bits = bytes as f64 * 8.0;
        Ok(bits / seconds / 1e9)
    })
}

/// The connection that arrives at one of the listeners.
fn accepted(listeners: &[TcpListener]) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        for listener in listeners {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).context("make a connection wait")?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("accept"),
            }
        }
        ensure!(start.elapsed() < Duration::from_secs(5), "it arrived nowhere");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads to the end: how much, and in how many seconds from the first byte on.
fn drain(mut stream: TcpStream) -> Result<(u64, f64)> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).context("bound the wait for data")?;
    let mut buffer = vec![0; CHUNK];
    let mut bytes = stream.read(&mut buffer)? as u64;
    let start = Instant::now();
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok((bytes, start.elapsed().as_secs_f64())),
            count => bytes += count as u64,
        }
    }
}

/// A second way between two containers of different workers, without the overlay: a veth pair each, and routes over
/// the same underlay. Taken away when it is dropped.
#[derive(Debug)]
pub struct PlainRoute<'lab> {
    lab: &'lab Lab,
    ends: [End<'lab>; 2],
}

#[derive(Debug)]
struct End<'lab> {
    worker: usize,
    container: &'lab Container,
    address: Ipv4Addr,
}

impl<'lab> PlainRoute<'lab> {
    /// The container in `from` reaches the one in `to` at [`Self::target`]. Both come with the number of their worker.
    pub fn make(
        lab: &'lab Lab,
        from: (usize, &'lab Container),
        to: (usize, &'lab Container),
    ) -> Result<Self> {
        ensure!(from.0 != to.0, "{} and {} are on one worker: nothing to route", from.1.id, to.1.id);
        let end =
            |(worker, container), host| End { worker, container, address: Ipv4Addr::new(198, 51, 100, host) };
        let route = Self { lab, ends: [end(from, 1), end(to, 2)] };
        for (own, other) in [(0, 1), (1, 0)] {
            let (own, other) = (&route.ends[own], &route.ends[other]);
            let node = &lab.workers[own.worker].netns;
            let next_hop = lab.workers[other.worker].address;
            connect((node, LINK), (&own.container.netns, LINK))?;
            node.ip(&format!("addr add 198.51.100.254/32 dev {LINK}"))?;
            node.ip(&format!("route add {} dev {LINK}", own.address))?;
            node.ip(&format!("route add {} via {next_hop}", other.address))?;
            node.output("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?;
            let inside = &own.container.netns;
            inside.ip(&format!("addr add {}/32 dev {LINK}", own.address))?;
            inside.ip(&format!("route add 198.51.100.254 dev {LINK}"))?;
            inside.ip(&format!("route add {} via 198.51.100.254 src {}", other.address, own.address))?;
        }
        Ok(route)
    }

    #[must_use]
    pub fn target(&self) -> Ipv4Addr {
        self.ends[1].address
    }
}

impl Drop for PlainRoute<'_> {
    fn drop(&mut self) {
        for [own, other] in [[0, 1], [1, 0]].map(|pair| pair.map(|end| &self.ends[end])) {
            own.container.netns.ip(&format!("link del {LINK}")).ok();
            self.lab.workers[own.worker].netns.ip(&format!("route del {}", other.address)).ok();
        }
    }
}
