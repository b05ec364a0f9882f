//! Putting back what others took away: pins that went with an unmounted file system, programs that were detached.

use std::fmt;

use super::attach::Hook;
use super::interface;
use super::load;
use super::{Datapath, DatapathError};

/// What was missing, and is there again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// The tables had lost their names in the BPF file system.
    Pins,
    /// A program was not at its interface.
    Attachment { program: &'static str, interface: String },
    /// Of the data plane in user space: the rules that keep containers from what is not theirs.
    Guard,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard => f.write_str("the rules of the data plane were removed; written again"),
            Self::Pins => f.write_str("the tables had lost their pins; pinned again"),
            Self::Attachment { program, interface } => {
                write!(f, "program {program} was not attached to {interface}; attached again")
            }
        }
    }
}

impl Datapath {
    /// Pins and attaches again what is not where [`Datapath`] put it. The interfaces that are gone are left to
    /// [`Datapath::detach_endpoint`] and [`Datapath::set_node`].
    pub fn repair(&mut self) -> Result<Vec<Repair>, DatapathError> {
        let mut repairs = Vec::new();
        if !self.pins.has_tables() {
            self.pin_tables()?;
            repairs.push(Repair::Pins);
        }
        for (ifindex, program) in self.attached()? {
            let Ok(interface) = interface::name(ifindex) else { continue };
            let loaded = load::program(&mut self.ebpf, program)?;
            if self.hook.is_attached(&self.pins, loaded, ifindex)? {
                continue;
            }
            self.attach(program, ifindex)?;
            if self.hook == Hook::Tcx {
                repairs.push(Repair::Attachment { program, interface });
            }
        }
        Ok(repairs)
    }

    /// The tables live on in this process and in the programs; only their names are gone.
    fn pin_tables(&self) -> Result<(), DatapathError> {
        self.pins.create()?;
        for (name, map) in self.ebpf.maps() {
            // What begins with a dot are the programs' constants, which have no name and cannot be given one.
            let path = self.pins.tables().join(name);
            if name.starts_with('.') || path.exists() {
                continue;
            }
            map.pin(path).map_err(|source| DatapathError::PinTable {
                table: name.to_owned(),
                source: Box::new(source),
            })?;
        }
        Ok(())
    }
}
