//! Asking, at the link of the node's own processes. It is listened to only while a question is under way: whatever the
//! processes are sent is seen, too.

use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;
use nix::unistd::{read, write};
use rand::Rng as _;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Crossing;
use super::judge::Ask;
use super::question::{Asker, Form, Question, Segment};
use crate::datapath::Ranges;
use crate::net::OWN_LINK;
use crate::userspace::{ContainerSocket, HEADER_LEN};

/// Whence it is asked. Hardly any client has a lower port (RFC 6335, 6).
pub(super) const PORTS: RangeInclusive<u16> = 1..=1023;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is read of a frame: all headers of an answer.
const LARGEST: usize = 256;

/// The questions to one instance.
pub(super) struct Questions {
    socket: AsyncFd<ContainerSocket>,
    from: Asker,
    instance: Ipv4Addr,
    /// Of the next one.
    port: u16,
}

impl Questions {
    /// In the network namespace of the calling thread, which must be in a tokio runtime.
    pub(super) fn open(from: Asker, ranges: &Ranges, instance: Ipv4Addr) -> io::Result<Self> {
        let socket = ContainerSocket::open(if_nametoindex(OWN_LINK)?, ranges)?;
        fcntl(socket.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // SAFETY: the descriptor is the socket's own, which stays open, the same one, as long as this value lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let port = rand::rng().random_range(PORTS);
        Ok(Self { socket: socket.map_err(io::Error::from)?, from, instance, port })
    }

    async fn wait_for_answer(&self, question: &Question) -> io::Result<Crossing> {
        let mut buffer = [0; LARGEST];
        let mut crossing = Crossing::Whole;
        loop {
            let read = self.socket.async_io(Interest::READABLE, |socket| Ok(read(socket, &mut buffer)?));
            let length = match read.await {
                // A frame for which the kernel's header has no words.
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => continue,
                read => read?,
            };
            match question.answered_by(buffer.get(HEADER_LEN..length).unwrap_or_default()) {
                Some(Segment::Last) => return Ok(crossing),
                Some(Segment::Other) => crossing = Crossing::Cut,
                None => {}
            }
        }
    }
}

impl Ask for Questions {
    async fn ask(&mut self, form: Form) -> io::Result<Option<Crossing>> {
        // Each on a flow of its own.
        self.port = if PORTS.end() == &self.port { *PORTS.start() } else { self.port + 1 };
        let Self { from, instance, port, .. } = *self;
        let question = Question { form, from, instance, port, first: rand::random() };
        for packet in question.packets() {
            write(self.socket.get_ref(), &packet)?;
        }
        match tokio::time::timeout(PATIENCE, self.wait_for_answer(&question)).await {
            Ok(answered) => answered.map(Some),
            Err(_elapsed) => Ok(None),
        }
    }
}
