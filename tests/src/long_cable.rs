//! A cable that takes its time: frames between two links of a namespace, each kept for a while. For kernels without netem.

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{read, write};

use crate::netns::Netns;

/// The largest super-packet, with what the kernel says of it before it.
const LARGEST: usize = 66_000;
/// How often it is looked whether the cable is to be taken away.
const LOOK: Duration = Duration::from_millis(100);

/// Removed when it is dropped.
#[derive(Debug)]
pub struct LongCable {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl LongCable {
    /// What comes in on one of the links leaves by the other after `delay`. Super-packets and open checksums stay what they are.
    pub fn join(netns: &Netns, links: [&str; 2], delay: Duration) -> Result<Self> {
        let open = || links.map(|link| tap(link).with_context(|| format!("listen on {link}")));
        let [one, other] = netns.run(open)?;
        let (one, other) = (Arc::new(one?), Arc::new(other?));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (from, to) in [(Arc::clone(&one), Arc::clone(&other)), (other, one)] {
            let (sender, receiver) = mpsc::channel();
            let (reading, writing) = (Arc::clone(&stop), Arc::clone(&stop));
            threads.push(thread::spawn(move || take(&from, &sender, delay, &reading)));
            threads.push(thread::spawn(move || give(&to, &receiver, &writing)));
        }
        Ok(Self { stop, threads })
    }

    /// Takes it away, and reports whether it has carried everything.
    pub fn remove(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let carried = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            carried.context("carry frames")?;
        }
        Ok(())
    }
}

impl Drop for LongCable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn take(
    from: &OwnedFd,
    to: &Sender<(Instant, Vec<u8>)>,
    delay: Duration,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; LARGEST];
    while !stop.load(Ordering::Relaxed) {
        match read(from, &mut buffer) {
            Ok(length) => {
                if to.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                    return Ok(());
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // The link is down for now.
            Err(Errno::ENETDOWN) => thread::sleep(LOOK),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn give(to: &OwnedFd, from: &Receiver<(Instant, Vec<u8>)>, stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let (due, frame) = match from.recv_timeout(LOOK) {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        match write(to, &frame) {
            // A cable loses what the link does not take.
            Ok(_) | Err(Errno::ENOBUFS | Errno::ENETDOWN | Errno::EMSGSIZE | Errno::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A packet socket at a link that hears what comes in there, and speaks of each frame as the kernel does.
fn tap(link: &str) -> Result<OwnedFd> {
    let tap = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    set(&tap, libc::PACKET_VNET_HDR, &1_i32).context("ask for what is still to be done with a frame")?;
    set(&tap, libc::PACKET_IGNORE_OUTGOING, &1_i32).context("leave out what goes out")?;
    setsockopt(&tap, ReceiveTimeout, &TimeVal::milliseconds(100))?;
    // SAFETY: all zeros are an address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    address.sll_ifindex = if_nametoindex(link)?.try_into()?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: the pointer is valid for the length beside it, and the kernel only reads there.
    let bound = unsafe { libc::bind(tap.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    if bound != 0 {
        return Err(io::Error::last_os_error()).context("bind to the link");
    }
    Ok(tap)
}

fn set(socket: &OwnedFd, name: libc::c_int, value: &i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    // SAFETY: as above.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
