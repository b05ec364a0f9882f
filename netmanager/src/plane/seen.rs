//! What the commands look at in a data plane: in the kernel's tables, pinned, or in those of a daemon that forwards packets
//! itself, which only that daemon has.

use std::net::IpAddr;
use std::time::Duration;

use crate::datapath::{Backend, DatapathError, Endpoint, Flow, Ranges, Rehearsal, Service, Tables};
use crate::offload::is_question;
use crate::userspace;
use crate::why::Trial;

/// See [`Tables`] for what is read.
pub(crate) trait Seen {
    type Rehearsal: Trial;

    /// To try packets without changing anything.
    fn rehearse(&self) -> Result<Self::Rehearsal, DatapathError>;
    fn ranges(&self) -> Result<Ranges, DatapathError>;
    fn endpoints(&self) -> Result<Vec<Endpoint>, DatapathError>;
    fn services(&self) -> Result<Vec<Service>, DatapathError>;
    /// Without netmanager's own questions.
    fn flows(&self) -> Result<Vec<Flow>, DatapathError>;
    fn turns_taken(&self, service_ip: IpAddr) -> Result<u32, DatapathError>;
    fn round_trip(&self, backend: &Backend) -> Result<Option<Duration>, DatapathError>;
}

impl Seen for Tables {
    type Rehearsal = Rehearsal;

    fn rehearse(&self) -> Result<Rehearsal, DatapathError> {
        self.rehearse()
    }

    fn ranges(&self) -> Result<Ranges, DatapathError> {
        self.ranges()
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, DatapathError> {
        self.endpoints()
    }

    fn services(&self) -> Result<Vec<Service>, DatapathError> {
        self.services()
    }

    fn flows(&self) -> Result<Vec<Flow>, DatapathError> {
        let mut flows = self.flows()?;
        flows.retain(|flow| !is_question(flow));
        Ok(flows)
    }

    fn turns_taken(&self, service_ip: IpAddr) -> Result<u32, DatapathError> {
        self.turns_taken(service_ip)
    }

    fn round_trip(&self, backend: &Backend) -> Result<Option<Duration>, DatapathError> {
        self.round_trip(backend)
    }
}

impl Seen for userspace::Reader {
    type Rehearsal = userspace::Rehearsal;

    fn rehearse(&self) -> Result<userspace::Rehearsal, DatapathError> {
        Ok(self.rehearse())
    }

    fn ranges(&self) -> Result<Ranges, DatapathError> {
        Ok(self.ranges())
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, DatapathError> {
        Ok(self.endpoints())
    }

    fn services(&self) -> Result<Vec<Service>, DatapathError> {
        Ok(self.services())
    }

    fn flows(&self) -> Result<Vec<Flow>, DatapathError> {
        Ok(self.flows())
    }

    fn turns_taken(&self, service_ip: IpAddr) -> Result<u32, DatapathError> {
        Ok(self.turns_taken(service_ip))
    }

    fn round_trip(&self, backend: &Backend) -> Result<Option<Duration>, DatapathError> {
        Ok(self.round_trip(backend))
    }
}
