//! An upgrade to another ABI version: the new tables are filled while the old programs go on with the old tables, and
//! only then are the programs replaced.
//!
//! What the old tables hold is taken over if their rows are as ours: of an older version we know since when they are
//! ([`ROUTING_SINCE`]), a newer one says so by a marker beside its tables. Else they are never looked at: the caller fills
//! the new ones from what it has stored, and flows begin anew.

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use netmanager_common::ABI_VERSION;
use netmanager_common::map::{self, FlowKey, ROUTING_SINCE};
use netmanager_common::wire::Ip;

use super::attach::xdp;
use super::pin::PinDir;
use super::tables::{Tables, rows, table};
use super::{Datapath, DatapathError};

/// The tables of an older version whose rows are as ours.
pub(super) struct Older {
    backends: Array<MapData, map::Backend>,
    hosts: HashMap<MapData, Ip, u32>,
    peers: HashMap<MapData, map::Peer, u32>,
    turns: HashMap<MapData, Ip, u32>,
    services: HashMap<MapData, Ip, map::Service>,
    flows: HashMap<MapData, FlowKey, map::Flow>,
    assured: HashMap<MapData, FlowKey, map::Flow>,
}

// As for `Tables`.
impl std::fmt::Debug for Older {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Older").finish_non_exhaustive()
    }
}

/// How far a data plane is that finds another version's tables.
#[derive(Debug, Default)]
pub(super) enum Takeover {
    /// There are none, or everything is done.
    #[default]
    Done,
    /// Old programs run; ours wait until the tables are full.
    Filling(Option<Box<Older>>),
}

impl Takeover {
    /// To be called before our own tables are made: those that an earlier attempt has left half full are no help.
    pub(super) fn begin(pins: &PinDir) -> Result<Self, DatapathError> {
        let versions = pins.other_versions()?;
        if versions.is_empty() {
            return Ok(Self::Done);
        }
        pins.remove_own_tables()?;
        let is_as_ours = |version: u32| match version < ABI_VERSION {
            true => version >= ROUTING_SINCE,
            false => pins.rows_since(version).is_some_and(|since| since <= ABI_VERSION),
        };
        let known = versions.iter().copied().filter(|version| is_as_ours(*version)).max();
        let older = known.and_then(|version| match Older::open(pins, version) {
            Ok(older) => Some(Box::new(older)),
            Err(error) => {
                tracing::warn!(
                    version,
                    error = crate::error::chain(&error),
                    "its tables cannot be taken over"
                );
                None
            }
        });
        tracing::info!(
            found = ?versions, ours = ABI_VERSION, taken_over = older.is_some(),
            "the data plane is of another version; its programs go on until ours have all they need"
        );
        Ok(Self::Filling(older))
    }
}

impl Older {
    fn open(pins: &PinDir, version: u32) -> Result<Self, DatapathError> {
        Ok(Self {
            backends: open(pins, version, map::BACKENDS)?,
            hosts: open(pins, version, map::HOSTS)?,
            peers: open(pins, version, map::PEERS)?,
            turns: open(pins, version, map::TURNS)?,
            services: open(pins, version, map::SERVICES)?,
            flows: open(pins, version, map::FLOWS)?,
            assured: open(pins, version, map::ASSURED)?,
        })
    }

    /// Everything but the flows. First what others refer to.
    pub(super) fn copy_services(&self, to: &mut Tables) -> Result<(), DatapathError> {
        for number in 0..self.backends.len() {
            let row = self.backends.get(&number, 0).map_err(table("read", map::BACKENDS))?;
            if row.generation == 0 {
                // As in `Tables::held`.
                break;
            }
            to.backends.set(number, row, 0).map_err(table("write", map::BACKENDS))?;
        }
        copy(&self.peers, &mut to.peers, map::PEERS)?;
        copy(&self.hosts, &mut to.hosts, map::HOSTS)?;
        copy(&self.turns, &mut to.turns, map::TURNS)?;
        copy(&self.services, &mut to.services, map::SERVICES)
    }

    /// The flows of the endpoints that the new tables have by now, counted for their new slots. Those that the new
    /// programs have entered themselves stay.
    fn copy_flows(&self, to: &mut Tables) -> Result<(), DatapathError> {
        let endpoints = rows(&to.endpoints, map::ENDPOINTS)?;
        let slot_of = |key: &FlowKey| {
            let sends = |veth: &map::Veth| key.ifindex != 0 && veth.ifindex == key.ifindex;
            let receives = |ns_ip: &Ip| key.ifindex == 0 && *ns_ip == key.destination;
            let found = endpoints.iter().find(|(ns_ip, row)| sends(&row.veth) || receives(ns_ip));
            found.map(|(_, row)| row.veth.slot)
        };
        let assured = (&self.assured, &mut to.assured, map::ASSURED);
        for (from, to, name) in [assured, (&self.flows, &mut to.flows, map::FLOWS)] {
            // One that falls out of the old table meanwhile may end the reading early: another pass follows.
            for row in from.iter() {
                let (key, flow) = row.map_err(table("read", name))?;
                let Some(slot) = slot_of(&key) else { continue };
                match to.insert(key, map::Flow { slot, ..flow }, BPF_NOEXIST) {
                    Err(MapError::SyscallError(error))
                        if error.io_error.raw_os_error() == Some(libc::EEXIST) => {}
                    inserted => inserted.map_err(table("write", name))?,
                }
            }
        }
        Ok(())
    }
}

impl Datapath {
    /// The new tables are full: our programs take over. Flows are copied before, so that no packet misses its own, and
    /// once more after, for those that have begun meanwhile.
    pub(super) fn finish_takeover(&mut self) -> Result<(), DatapathError> {
        let Takeover::Filling(older) = std::mem::take(&mut self.takeover) else { return Ok(()) };
        if let Some(older) = &older {
            older.copy_flows(&mut self.tables)?;
        }
        // Ours do not understand what another version's leave with a packet, nor the other way round. Until there is one of
        // ours again, packets arrive as they were sent.
        for ifindex in self.pins.xdp_interfaces()? {
            xdp::detach(&self.pins, ifindex)?;
        }
        self.replace_programs()?;
        older.map_or(Ok(()), |older| older.copy_flows(&mut self.tables))
    }
}

/// Update flag: only if there is no such entry.
const BPF_NOEXIST: u64 = 1;

fn copy<K: Pod, V: Pod>(
    from: &HashMap<MapData, K, V>,
    to: &mut HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<(), DatapathError> {
    rows(from, name)?
        .into_iter()
        .try_for_each(|(key, row)| to.insert(key, row, 0).map_err(table("write", name)))
}

/// Refuses a table whose keys or values have another size.
fn open<T>(pins: &PinDir, version: u32, name: &'static str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let path = pins.tables_of(version).join(name);
    let pinned = MapData::from_pin(&path).and_then(Map::from_map_data).and_then(T::try_from);
    pinned.map_err(table("open the older", name))
}
