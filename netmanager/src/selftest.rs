//! Whether packets come out of the programs right on this kernel, tried before anybody's depend on it: in a network
//! namespace that exists for the moment, with the programs and tables that containers will have, only under another name.
//!
//! ```text
//!   packet socket - hynode0 ===== hynode1 [from_container]  ->  tap-trial - this process
//!   packet socket - hynode0 ===== hynode1  <-  [from_uplink] tap-trial - this process
//! ```
//!
//! What goes in is one super-packet whose checksum is left open, as a container's kernel hands it over. A TAP device takes
//! neither, so that the kernel has to cut it into segments, and to complete the checksums, behind the tunnel's headers that
//! the program has put before it. What comes out must be as if each segment had been sent by itself.

mod frames;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use protocol::plan::Plan;
use tun_tap::{Iface, Mode};

use self::frames::{Received, SEGMENTS, SERVER, SERVICE, TUNNEL_PORT};
use crate::datapath::{Datapath, DatapathError, DropReason, Options, Policy};
use crate::net::{Connected, Links, NetError, OWN_LINK, OwnWiring};
use crate::userspace::ContainerSocket;

/// The interface that stands for the uplink.
const UPLINK: &str = "tap-trial";
/// On an idle machine it is over in some milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);
/// Of both links: nothing is too large.
const MTU: u16 = 1500;
const LARGEST: usize = 65_536;

/// Why it did not come out right, or could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error("a packet that goes through the programs comes out wrong: {0}")]
    Wrong(String),
    #[error("a packet that goes through the programs does not come out: {what}{}", dropped(.drops))]
    Silent { what: &'static str, drops: Vec<(DropReason, u64)> },
    #[error("{doing} for a trial of the programs")]
    Bed { doing: &'static str, source: io::Error },
    #[error("links for a trial of the programs")]
    Links(#[source] NetError),
    #[error("programs for a trial")]
    Datapath(#[source] DatapathError),
}

impl SelfTestError {
    /// Whether it was tried, and packets would suffer.
    #[must_use]
    pub fn is_about_packets(&self) -> bool {
        matches!(self, Self::Wrong(_) | Self::Silent { .. })
    }
}

/// Tries it, with pins beside `pin_dir`, which must be in a BPF file system. Leaves nothing. Takes as long as the programs
/// take to load.
///
/// # Errors
/// When packets do not come out right, or it cannot be tried.
pub fn run(pin_dir: &Path) -> Result<(), SelfTestError> {
    let pins = trial_pins(pin_dir);
    // A namespace belongs to a thread, and ends with it and with what is open in it.
    let thread = std::thread::Builder::new().name("selftest".to_owned());
    let spawned = thread.spawn(move || in_a_namespace(&pins));
    let thread = spawned.map_err(|source| SelfTestError::Bed { doing: "start a thread", source })?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Of this process; those of processes that have ended meanwhile are taken away.
fn trial_pins(pin_dir: &Path) -> PathBuf {
    let name = pin_dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let prefix = format!("{name}-trial-");
    let parent = pin_dir.parent().unwrap_or(pin_dir);
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Of programs at interfaces that are gone: the pins are all that is left.
            Datapath::remove_all(&entry.path()).ok();
        }
    }
    parent.join(format!("{prefix}{}", std::process::id()))
}

fn in_a_namespace(pins: &Path) -> Result<(), SelfTestError> {
    let bed = |doing| move |source: io::Error| SelfTestError::Bed { doing, source };
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| bed("make a network namespace")(errno.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(bed("start a runtime"))?;
    let tried = runtime.block_on(Trial::set_up(pins)).and_then(|mut trial| trial.run());
    let removed = Datapath::remove_all(pins).map_err(SelfTestError::Datapath);
    tried.and(removed)
}

/// Everything that is needed, in the namespace of the calling thread.
struct Trial {
    wiring: OwnWiring,
    tap: Iface,
    tap_mac: [u8; 6],
    client: ContainerSocket,
    // The links go with it.
    _links: Links,
    datapath: Datapath,
}

impl Trial {
    async fn set_up(pins: &Path) -> Result<Self, SelfTestError> {
        let bed = |doing| move |source: io::Error| SelfTestError::Bed { doing, source };
        let tap = Iface::without_packet_info(UPLINK, Mode::Tap).map_err(bed("make a TAP device"))?;
        tap.set_non_blocking().map_err(bed("make a TAP device"))?;
        let links = Links::open().map_err(SelfTestError::Links)?;
        let ends = (frames::NODE, frames::PEER, frames::PEER_MAC);
        let (uplink, tap_mac) = links.lead_to(UPLINK, ends).await.map_err(SelfTestError::Links)?;
        let wiring = OwnWiring::new(frames::NS_IP, None, MTU, Plan::default().service_network());
        let connected = links.connect_itself(&wiring).await.map_err(SelfTestError::Links)?;
        let Connected { ifindex, .. } = connected;
        let near = if_nametoindex(OWN_LINK).map_err(|errno| bed("look for a link")(errno.into()))?;
        let client =
            ContainerSocket::open(near, &Plan::default().into()).map_err(bed("open a packet socket"))?;

        let options = Options { pin_dir: pins.to_owned(), tunnel_port: TUNNEL_PORT, plan: Plan::default() };
        let mut datapath = Datapath::open(options).map_err(SelfTestError::Datapath)?;
        let endpoint = frames::client(ifindex, wiring.mac, wiring.gateway_mac);
        let filled = datapath
            .set_node(frames::node(), uplink)
            .and_then(|()| datapath.attach_node_itself(&endpoint))
            .and_then(|()| datapath.publish_service(SERVICE, Policy::RoundRobin, &[SERVER]));
        filled.map_err(SelfTestError::Datapath)?;
        Ok(Self { wiring, tap, tap_mac, client, _links: links, datapath })
    }

    fn run(&mut self) -> Result<(), SelfTestError> {
        let bed = |doing| move |errno: Errno| SelfTestError::Bed { doing, source: errno.into() };
        let frame = frames::super_packet(self.wiring.mac, self.wiring.gateway_mac);
        nix::unistd::write(&self.client, &frame).map_err(bed("send a packet"))?;
        let mut received = Received::default();
        // SAFETY: the descriptor is the device's own, which stays open as long as it is borrowed.
        let tap = unsafe { BorrowedFd::borrow_raw(self.tap.as_raw_fd()) };
        until(tap, |frame| received.add(frame))?
            .ok_or_else(|| self.silent("one towards another node, to be cut into segments on the way"))?;
        let answer = frames::answer(self.tap_mac);
        self.tap.send(&answer).map_err(|source| SelfTestError::Bed { doing: "send an answer", source })?;
        let delivered = until(self.client.as_fd(), |bytes| {
            // The kernel's header is before it.
            frames::is_answer(bytes.get(crate::userspace::HEADER_LEN..).unwrap_or_default())
        })?;
        delivered.ok_or_else(|| self.silent("an answer from another node"))
    }

    fn silent(&self, what: &'static str) -> SelfTestError {
        SelfTestError::Silent { what, drops: self.datapath.counters().unwrap_or_default().drops }
    }
}

fn dropped(drops: &[(DropReason, u64)]) -> String {
    let reasons: Vec<_> = drops.iter().map(|(reason, _)| reason.name()).collect();
    if reasons.is_empty() { String::new() } else { format!(" (dropped: {})", reasons.join(", ")) }
}

/// Reads frames until one is the last; nothing if none is in time.
fn until(
    from: BorrowedFd<'_>,
    mut look: impl FnMut(&[u8]) -> Result<bool, String>,
) -> Result<Option<()>, SelfTestError> {
    let bed = |errno: Errno| SelfTestError::Bed { doing: "wait for a packet", source: errno.into() };
    let end = Instant::now() + DEADLINE;
    let mut buffer = vec![0; LARGEST];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(from, PollFlags::POLLIN)], left) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(bed(errno)),
        }
        match nix::unistd::read(from, &mut buffer) {
            Ok(length) => {
                if look(&buffer[..length]).map_err(SelfTestError::Wrong)? {
                    return Ok(Some(()));
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(bed(errno)),
        }
    }
}

/// What is shown of one that went well.
#[must_use]
pub fn evidence() -> String {
    format!("a trial packet of {SEGMENTS} segments, and an answer, come out of the programs right")
}
