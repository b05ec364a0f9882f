//! Where the programs send what they cannot finish.

use netmanager_common::map;

use super::tables::table;
use super::{Datapath, DatapathError, FROM_SLOW_PATH, Rehearsal, Tables};

pub use super::tables::lookup::{Arrival, Datagram, FlowAge, gateway_of};

impl Datapath {
    /// Names the TAP device for what the programs cannot finish, and attaches the program for what comes back; `None`:
    /// there is none, such packets are dropped and counted.
    pub fn set_slow_path(&mut self, device: Option<u32>) -> Result<(), DatapathError> {
        if let Some(ifindex) = device {
            self.attach(FROM_SLOW_PATH, ifindex)?;
        }
        self.tables.set_slow_path(device.unwrap_or(0))?;
        match std::mem::replace(&mut self.slow_path, device) {
            Some(before) if Some(before) != device => self.detach(before),
            _ => Ok(()),
        }
    }

    /// The tables once more, for another task to read.
    pub fn reader(&self) -> Result<Tables, DatapathError> {
        Tables::of(&self.pins)
    }
}

impl Tables {
    /// A second copy of the programs on these tables.
    pub fn rehearse(&self) -> Result<Rehearsal, DatapathError> {
        Rehearsal::beside(Self::of(&self.pins)?)
    }

    pub(super) fn set_slow_path(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.slow_path.set(0, ifindex, 0).map_err(table("write", map::SLOW_PATH))
    }
}
