//! The threads that move packets: each waits for its sockets, takes what has arrived in one call, and sends what comes
//! of it in few.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use std::os::fd::AsFd;

use super::engine::Engine;
use super::mmsg::Inbox;
use super::outgoing::Outgoing;
use super::virtio;

/// Messages that are taken in one call.
const MESSAGES: usize = 32;
/// The largest frame with the kernel's header before it, and more than the largest datagram.
const BYTES: usize = virtio::LEN + 14 + 65_536;
/// Batches of one socket before others have their turn.
const TURNS: usize = 4;
/// More threads than this share too little.
const MOST: usize = 8;

/// Whose event it is, as a number beside the socket.
const STOP: u64 = 0;
const TUNNEL_V4: u64 = 1;
const TUNNEL_V6: u64 = 2;
/// From here on of a container, by the index of its link.
const CONTAINERS: u64 = 1 << 32;

/// All of them. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Handle>,
}

#[derive(Debug)]
struct Handle {
    epoll: Arc<Epoll>,
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// As many as there are CPUs, within reason.
    pub(super) fn start(engine: &Arc<Engine>) -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let workers = (0..count).map(|number| Handle::start(engine, number));
        workers.collect::<io::Result<_>>().map(|workers| Self { workers })
    }

    pub(super) fn count(&self) -> usize {
        self.workers.len()
    }

    /// Lets one of them serve a container. The socket must stay open until [`Self::leave`].
    pub(super) fn serve(&self, ifindex: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.of(ifindex).add(socket, CONTAINERS + u64::from(ifindex))
    }

    pub(super) fn leave(&self, ifindex: u32, socket: BorrowedFd<'_>) {
        self.of(ifindex).epoll.delete(socket).ok();
    }

    /// Lets each of them serve one end of the tunnel.
    pub(super) fn serve_tunnel<'a>(
        &self,
        is_v4: bool,
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<()> {
        let number = if is_v4 { TUNNEL_V4 } else { TUNNEL_V6 };
        self.workers.iter().zip(sockets).try_for_each(|(worker, socket)| worker.add(socket, number))
    }

    fn of(&self, ifindex: u32) -> &Handle {
        // There is at least one.
        &self.workers[ifindex as usize % self.workers.len()]
    }
}

impl Handle {
    fn start(engine: &Arc<Engine>, number: usize) -> io::Result<Self> {
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(stop.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let worker = Worker {
            number,
            engine: Arc::clone(engine),
            epoll: Arc::clone(&epoll),
            inbox: Inbox::new(MESSAGES, BYTES),
            out: Outgoing::default(),
        };
        let thread = std::thread::Builder::new().name(format!("datapath-{number}"));
        let thread = thread.spawn(move || worker.run())?;
        Ok(Self { epoll, stop, thread: Some(thread) })
    }

    fn add(&self, socket: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        match self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number)) {
            Err(Errno::EEXIST) => Ok(()),
            result => result.map_err(io::Error::from),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.stop.write(1).ok();
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the data plane has panicked");
            }
        }
    }
}

struct Worker {
    number: usize,
    engine: Arc<Engine>,
    epoll: Arc<Epoll>,
    inbox: Inbox,
    out: Outgoing,
}

impl Worker {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 16];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "a thread of the data plane cannot wait for packets and ends");
                    return;
                }
            };
            for event in &events[..count] {
                match event.data() {
                    STOP => return,
                    TUNNEL_V4 => self.tunnel(true),
                    TUNNEL_V6 => self.tunnel(false),
                    number => self.container(u32::try_from(number - CONTAINERS).unwrap_or_default()),
                }
            }
        }
    }

    fn container(&mut self, ifindex: u32) {
        // Not there: the last event of a socket that was closed meanwhile.
        let Some(socket) = self.engine.sockets().containers.get(&ifindex).cloned() else { return };
        for _ in 0..TURNS {
            // An error is that the link is down or gone, and told once; or that nothing is there.
            if self.inbox.receive(socket.as_fd()).is_err() {
                return;
            }
            self.out.clear();
            self.engine.sent(&mut self.inbox, ifindex, &mut self.out);
            self.engine.flush(&self.out, Some(&self.inbox), self.number);
            if !self.inbox.is_full() {
                return;
            }
        }
    }

    fn tunnel(&mut self, is_v4: bool) {
        let Some(sockets) = self.engine.sockets().tunnel(is_v4) else { return };
        let Some(socket) = sockets.get(self.number) else { return };
        for _ in 0..TURNS {
            // An error is what an ICMP error says about something sent earlier, and told once; or that nothing is there.
            if self.inbox.receive(socket).is_err() {
                return;
            }
            self.out.clear();
            self.engine.arrived(&mut self.inbox, &mut self.out);
            self.engine.flush(&self.out, Some(&self.inbox), self.number);
            if !self.inbox.is_full() {
                return;
            }
        }
    }
}
