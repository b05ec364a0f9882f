//! What becomes of packets, as the programs tell it while somebody watches.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, MapData};
use netmanager_common::event::DropReason;
use netmanager_common::map::{TRACE, TRACED, TRACES};
use netmanager_common::trace::{LEASE_NS, MOST_ADDRESSES, Program, Record, Switch, Told, Verdict};
use netmanager_common::wire::{Be16, Ip};
use nix::fcntl::{Flock, FlockArg};

use super::pin::PinDir;
use super::ring::Records;
use super::tables::{from_ip, ip, monotonic, open, table};
use super::{DatapathError, FROM_CONTAINER, FROM_SLOW_PATH, FROM_UPLINK};

/// Which packets are of interest: empty lists are no condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceFilter {
    /// At most [`TraceFilter::MOST`] addresses of the sender, as it sends or as the receiver sees it.
    pub from: Vec<IpAddr>,
    /// Likewise of the receiver.
    pub to: Vec<IpAddr>,
    pub drops_only: bool,
}

impl TraceFilter {
    pub const MOST: usize = MOST_ADDRESSES;
}

/// One packet at the end of its way through a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// The program's name.
    pub program: &'static str,
    /// Where the packet came in first.
    pub ifindex: u32,
    pub verdict: Verdict,
    /// Why it was dropped, or given to netmanager.
    pub reason: Option<DropReason>,
    /// The inner packet as it came; nothing if it is no IP.
    pub came: Option<Ends>,
    /// The inner packet as it goes on, if it does.
    pub goes: Option<Ends>,
    /// The other node, as far as there are outer headers at the end of the way.
    pub node: Option<IpAddr>,
    /// Of IP.
    pub protocol: u8,
    /// Bytes of the inner IP packet.
    pub length: u32,
}

/// With port 0 where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// The switch, held on as long as it is renewed. There is one tracer at a time. Switched off when it is dropped; should it be
/// killed, the programs do so a few seconds later.
pub struct Tracer {
    switch: Array<MapData, Switch>,
    told: Array<MapData, Told>,
    records: Records,
    filter: Switch,
    /// What was not told before this one.
    untold_before: u64,
    _only_one: Flock<File>,
}

// aya's tables have no `Debug`.
impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Tracer {
    /// How often [`Self::renew`] is to be called.
    pub const RENEWAL: Duration = Duration::from_nanos(LEASE_NS / 3);

    /// Switches it on. Call within a tokio runtime.
    ///
    /// # Errors
    /// When there is no data plane, or another tracer.
    pub fn open(pin_dir: &Path, filter: &TraceFilter) -> Result<Self, DatapathError> {
        let pins = PinDir::new(pin_dir);
        let mut switch: Array<MapData, Switch> = open(&pins, TRACE)?;
        let only_one = only_one(pin_dir)?;
        let told: Array<MapData, Told> = open(&pins, TRACED)?;
        let untold_before = told.get(&0, 0).map_err(table("read", TRACED))?.untold;
        let mut records = Records::open(&pins, TRACES)?;
        // What a tracer that was killed has left: it may be on still, and was told of what it has not read.
        switch.set(0, Switch::default(), 0).map_err(table("write", TRACE))?;
        records.discard();
        let filter = filter.switch();
        let mut tracer = Self { switch, told, records, filter, untold_before, _only_one: only_one };
        tracer.renew()?;
        Ok(tracer)
    }

    /// Keeps it on.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn renew(&mut self) -> Result<(), DatapathError> {
        let until = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX).saturating_add(LEASE_NS);
        let switch = Switch { until, ..self.filter };
        self.switch.set(0, switch, 0).map_err(table("write", TRACE))
    }

    /// The next packet. Cancel safe.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub async fn next(&mut self) -> Result<Traced, DatapathError> {
        self.records.next(decode).await
    }

    /// Packets that were wanted and are not told of, since there were too many at once.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn untold(&self) -> Result<u64, DatapathError> {
        let told = self.told.get(&0, 0).map_err(table("read", TRACED))?;
        Ok(told.untold.wrapping_sub(self.untold_before))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // If that fails, it ends by itself.
        self.switch.set(0, Switch::default(), 0).ok();
    }
}

/// Of the folder, as long as the file is open.
fn only_one(pin_dir: &Path) -> Result<Flock<File>, DatapathError> {
    let path = || pin_dir.to_owned();
    let folder = File::open(pin_dir).map_err(|source| DatapathError::PinDirectory {
        action: "open",
        path: path(),
        source,
    })?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| DatapathError::TracedAlready { path: path(), source: errno.into() })
}

fn addresses(wanted: &[IpAddr]) -> [Ip; MOST_ADDRESSES] {
    let mut addresses = [Ip::NONE; MOST_ADDRESSES];
    for (place, address) in addresses.iter_mut().zip(wanted) {
        *place = ip(*address);
    }
    addresses
}

impl TraceFilter {
    /// As the programs read it; off.
    pub(crate) fn switch(&self) -> Switch {
        Switch {
            from: addresses(&self.from),
            to: addresses(&self.to),
            drops_only: self.drops_only.into(),
            ..Switch::default()
        }
    }
}

/// One of another length is none.
fn decode(bytes: &[u8]) -> Option<Traced> {
    read(bytes).and_then(|record| traced(&record))
}

/// One with numbers that are not ours is none.
pub(crate) fn traced(record: &Record) -> Option<Traced> {
    let program = match record.program {
        it if it == Program::Container as u8 => FROM_CONTAINER,
        it if it == Program::Uplink as u8 => FROM_UPLINK,
        it if it == Program::SlowPath as u8 => FROM_SLOW_PATH,
        _ => return None,
    };
    let verdicts = [Verdict::Delivered, Verdict::Sent, Verdict::Host, Verdict::Given, Verdict::Dropped];
    let ends = |source: Ip, destination: Ip| {
        let end = |address, port: Be16| SocketAddr::new(from_ip(address), port.get());
        (!source.is_none()).then(|| Ends {
            source: end(source, record.source_port),
            destination: end(destination, record.destination_port),
        })
    };
    Some(Traced {
        program,
        ifindex: record.ifindex,
        verdict: verdicts.into_iter().find(|verdict| *verdict as u8 == record.verdict)?,
        reason: DropReason::try_from(u32::from(record.reason)).ok(),
        came: ends(record.source, record.destination),
        goes: ends(record.onward_source, record.onward_destination),
        node: (!record.node.is_none()).then(|| from_ip(record.node)),
        protocol: record.protocol,
        length: record.length,
    })
}

fn read(bytes: &[u8]) -> Option<Record> {
    // SAFETY: as long as the record, which is of integers and arrays of them: any bytes are one, wherever they lie.
    (bytes.len() == size_of::<Record>()).then(|| unsafe { bytes.as_ptr().cast::<Record>().read_unaligned() })
}
