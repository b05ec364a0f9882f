//! What would become of a packet: a second copy of the programs, run on it alone.
//!
//! The copy reads the very tables that the attached programs read, and writes into tables of its own, which begin with
//! copies of the entries that matter to the packet. No interface has the copy. So it changes nothing that anybody else
//! can see, whatever the packet.

mod object;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use netmanager_common::budget::Budget;
use netmanager_common::event::DropReason;
use netmanager_common::map::{self, FlowKey};
use netmanager_common::wire::Ip;

use super::events::decode;
use super::pin::PinDir;
use super::tables::lookup::Arrival;
use super::tables::{by_reason, found, ip, open, table};
use super::{DatapathError, Event, Miss, Tables, load};

/// The tables that the copy shares with the attached programs: those that programs only read.
const SHARED: [&str; 8] = [
    map::NODE,
    map::PLAN,
    map::ENDPOINTS,
    map::SERVICES,
    map::BACKENDS,
    map::HOSTS,
    map::PEERS,
    map::SLOW_PATH,
];

/// What a program says of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To the host's own IP stack.
    ToHost,
    /// To another interface, a container or the slow path: the frame shows which.
    Redirected,
    Dropped,
    /// A number that our programs do not give.
    Other(i32),
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// As it leaves the program.
    pub frame: Vec<u8>,
    /// Why it was dropped.
    pub dropped: Option<DropReason>,
    /// Why it was given to netmanager.
    pub given: Option<DropReason>,
    /// Addresses that netmanager would have been told of.
    pub misses: Vec<Miss>,
}

/// The copy. One is used for one question: what its packets leave behind is there for the next of them.
pub struct Rehearsal {
    live: Tables,
    programs: Ebpf,
    flows: Copied<HashMap<MapData, FlowKey, map::Flow>>,
    assured: Copied<HashMap<MapData, FlowKey, map::Flow>>,
    budgets: Copied<Array<MapData, Budget>>,
    new_flows: Copied<Array<MapData, Budget>>,
    loads: Copied<Array<MapData, u32>>,
    turns: HashMap<MapData, Ip, u32>,
    drops: PerCpuArray<MapData, u64>,
    punts: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
}

/// A table of the copy beside the one that it is filled from.
struct Copied<T> {
    name: &'static str,
    live: T,
    own: T,
}

impl<T: TryFrom<Map, Error = MapError>> Copied<T> {
    fn open(pins: &PinDir, programs: &mut Ebpf, name: &'static str) -> Result<Self, DatapathError> {
        Ok(Self { name, live: open(pins, name)?, own: take(programs, name)? })
    }
}

impl Copied<HashMap<MapData, FlowKey, map::Flow>> {
    fn copy(&mut self, key: &FlowKey) -> Result<(), DatapathError> {
        match found(&self.live, key, self.name)? {
            Some(flow) => self.own.insert(key, flow, 0).map_err(table("write a copy of", self.name)),
            None => Ok(()),
        }
    }
}

impl<T: Pod> Copied<Array<MapData, T>> {
    fn copy(&mut self, index: u32) -> Result<(), DatapathError> {
        let left = self.live.get(&index, 0).map_err(table("read", self.name))?;
        self.own.set(index, left, 0).map_err(table("write a copy of", self.name))
    }
}

// aya's tables have no `Debug`.
impl std::fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rehearsal").finish_non_exhaustive()
    }
}

impl Rehearsal {
    /// Loads the programs that this binary was built with, on the tables pinned under `pin_dir`.
    pub fn open(pin_dir: &std::path::Path) -> Result<Self, DatapathError> {
        Self::beside(Tables::open(pin_dir)?)
    }

    /// Loads them on these tables. (aya would make and pin a table that is not there.)
    pub(super) fn beside(live: Tables) -> Result<Self, DatapathError> {
        let pins = live.pins.clone();
        let object = object::without_pins(load::OBJECT)?;
        let mut loader = EbpfLoader::new();
        for name in SHARED {
            loader.map_pin_path(name, pins.tables().join(name));
        }
        let mut programs = loader.load(&object).map_err(load::refused)?;
        load::all(&mut programs)?;
        Ok(Self {
            live,
            flows: Copied::open(&pins, &mut programs, map::FLOWS)?,
            assured: Copied::open(&pins, &mut programs, map::ASSURED)?,
            budgets: Copied::open(&pins, &mut programs, map::BUDGETS)?,
            new_flows: Copied::open(&pins, &mut programs, map::NEW_FLOWS)?,
            loads: Copied::open(&pins, &mut programs, map::LOADS)?,
            turns: take(&mut programs, map::TURNS)?,
            drops: take(&mut programs, map::DROPS)?,
            punts: take(&mut programs, map::PUNTS)?,
            events: take(&mut programs, map::EVENTS)?,
            programs,
        })
    }

    /// The tables that are in use.
    #[must_use]
    pub fn live(&self) -> &Tables {
        &self.live
    }

    /// The kernel's hash of a program, to be held against that of an attached one.
    pub fn tag(&mut self, name: &'static str) -> Result<u64, DatapathError> {
        let info = load::program(&mut self.programs, name)?.info();
        let failed =
            |source| DatapathError::Look { interface: format!("program {name}"), source: Box::new(source) };
        info.map(|info| info.tag()).map_err(failed)
    }

    /// Copies what the attached programs know of packets with these ends that come in at `ifindex`: their flow, those that
    /// might have their ports, whose turn it is, how many flows each backend has, and what is left of the sender's share of the slow path.
    pub fn prepare(&mut self, ifindex: u32, sent: &Arrival) -> Result<(), DatapathError> {
        let backends =
            self.live.service(sent.destination)?.map(|service| service.backends).unwrap_or_default();
        let own = self.live.instance_ip(sent.source)?.flatten();
        for backend in &backends {
            if let Some(number) = self.live.number_of(backend)? {
                self.loads.copy(number)?;
            }
        }
        for key in sent.kin(ifindex, own, &backends) {
            self.flows.copy(&key)?;
            self.assured.copy(&key)?;
        }
        let turns = self.live.turns_taken(sent.destination)?;
        self.turns.insert(ip(sent.destination), turns, 0).map_err(table("write a copy of", map::TURNS))?;
        if let Some(endpoint) = self.live.endpoint(ip(sent.source))? {
            let slot = endpoint.veth.slot;
            self.budgets.copy(slot)?;
            self.budgets.copy(slot + map::MAX_ENDPOINTS)?;
            self.new_flows.copy(slot)?;
        }
        Ok(())
    }

    /// Runs a program on a frame that comes in at an interface of the calling thread's network namespace.
    pub fn run(&mut self, name: &'static str, ifindex: u32, frame: &[u8]) -> Result<Outcome, DatapathError> {
        let (drops, punts) = (self.drops()?, self.punts()?);
        let context = context(ifindex);
        // Room for outer headers.
        let mut out = vec![0; frame.len() + 256];
        let program: &mut SchedClassifier = load::program(&mut self.programs, name)?;
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
            .map_err(|source| DatapathError::Run { program: name, ifindex, source: Box::new(source) })?;
        out.truncate(usize::try_from(result.data_size_out).unwrap_or(out.len()));
        let mut misses = Vec::new();
        while let Some(record) = self.events.next() {
            if let Some(Event::Miss(miss)) = decode(&record) {
                misses.push(miss);
            }
        }
        Ok(Outcome {
            verdict: match result.return_value.cast_signed() {
                0 | -1 => Verdict::ToHost,
                2 => Verdict::Dropped,
                7 => Verdict::Redirected,
                other => Verdict::Other(other),
            },
            frame: out,
            dropped: added(&drops, &self.drops()?),
            given: added(&punts, &self.punts()?),
            misses,
        })
    }

    fn drops(&self) -> Result<Vec<(DropReason, u64)>, DatapathError> {
        by_reason(&self.drops, map::DROPS)
    }

    fn punts(&self) -> Result<Vec<(DropReason, u64)>, DatapathError> {
        by_reason(&self.punts, map::PUNTS)
    }
}

/// Whether the kernel takes the programs: loads them on tables of their own, and lets go of both.
pub fn try_to_load() -> Result<(), DatapathError> {
    let object = object::without_pins(load::OBJECT)?;
    let mut programs = EbpfLoader::new().load(&object).map_err(load::refused)?;
    load::all(&mut programs)
}

/// `struct __sk_buff` of linux/bpf.h as far as the interface: nothing before it may be set.
fn context(ifindex: u32) -> [u8; 44] {
    let mut context = [0; 44];
    context[40..].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

fn added(before: &[(DropReason, u64)], after: &[(DropReason, u64)]) -> Option<DropReason> {
    let counted = |reason| before.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count);
    after.iter().find(|(reason, count)| *count > counted(*reason)).map(|(reason, _)| *reason)
}

fn take<T>(programs: &mut Ebpf, name: &'static str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = programs.take_map(name).ok_or(DatapathError::NoTable { table: name })?;
    T::try_from(map).map_err(table("open", name))
}

#[cfg(test)]
mod tests {
    use netmanager_common::map;

    use super::{SHARED, object};
    use crate::datapath::OBJECT;

    /// The tables that it has for itself: all that programs write.
    const OWN: [&str; 20] = [
        map::FLOWS,
        map::ASSURED,
        map::NEW_FLOWS,
        map::HEALTH,
        map::LOADS,
        map::SENDERS,
        map::FRAGMENTS,
        map::TURNS,
        map::TURN_LOCKS,
        map::MISSES,
        map::EVENTS,
        map::DROPS,
        map::TRAFFIC,
        map::BUDGETS,
        map::EARLY,
        map::PUNTS,
        map::TRACE,
        map::TRACED,
        map::TRACES,
        "SCRATCH",
    ];

    /// A table that programs write and that is shared would be changed; one that they only read and that is not shared
    /// would be empty.
    #[test]
    fn each_table_of_the_object_is_either_shared_or_the_copys_own() {
        let mut named: Vec<_> = SHARED.iter().chain(&OWN).map(|name| (*name).to_owned()).collect();
        let mut found = object::tables(OBJECT).unwrap();
        named.sort();
        found.sort();
        assert_eq!(found, named);
    }
}
