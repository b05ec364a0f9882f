//! What the choice between backends needs of a data plane: of the one that a node has, or of the kernel's by itself.

use std::net::IpAddr;

use super::{Plane, PlaneError};
use crate::datapath::{Backend, Datapath, Endpoint, Flow, Reading, Service, Suspect};

/// See [`Datapath`] for what the verbs do.
#[expect(clippy::missing_errors_doc, reason = "as there")]
pub trait Backends {
    fn aside(&self) -> Vec<Backend>;
    fn knows(&self, backend: &Backend) -> bool;
    fn suspect(&self, suspect: Suspect) -> Option<Backend>;
    fn reading(&self, backend: &Backend) -> Result<Option<Reading>, PlaneError>;
    fn endpoints(&self) -> Result<Vec<Endpoint>, PlaneError>;
    fn flows(&self) -> Result<Vec<Flow>, PlaneError>;
    fn publish(&mut self, service: &Service) -> Result<(), PlaneError>;
    fn withdraw_service(&mut self, service_ip: IpAddr) -> Result<(), PlaneError>;
    fn set_aside(&mut self, backend: &Backend, aside: bool) -> Result<(), PlaneError>;
    fn set_load(&mut self, backend: &Backend, flows: u32) -> Result<(), PlaneError>;
}

impl Backends for Datapath {
    fn aside(&self) -> Vec<Backend> {
        self.aside().collect()
    }

    fn knows(&self, backend: &Backend) -> bool {
        self.knows(backend)
    }

    fn suspect(&self, suspect: Suspect) -> Option<Backend> {
        self.suspect(suspect)
    }

    fn reading(&self, backend: &Backend) -> Result<Option<Reading>, PlaneError> {
        Ok(self.reading(backend)?)
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, PlaneError> {
        Ok(self.endpoints()?)
    }

    fn flows(&self) -> Result<Vec<Flow>, PlaneError> {
        Ok(self.flows()?)
    }

    fn publish(&mut self, service: &Service) -> Result<(), PlaneError> {
        Ok(self.publish(service)?)
    }

    fn withdraw_service(&mut self, service_ip: IpAddr) -> Result<(), PlaneError> {
        Ok(self.withdraw_service(service_ip)?)
    }

    fn set_aside(&mut self, backend: &Backend, aside: bool) -> Result<(), PlaneError> {
        Ok(self.set_aside(backend, aside)?)
    }

    fn set_load(&mut self, backend: &Backend, flows: u32) -> Result<(), PlaneError> {
        Ok(self.set_load(backend, flows)?)
    }
}

impl Backends for Plane {
    fn aside(&self) -> Vec<Backend> {
        match self {
            Self::Ebpf(datapath) => datapath.aside().collect(),
            Self::Userspace(datapath) => datapath.control().aside(),
        }
    }

    fn knows(&self, backend: &Backend) -> bool {
        match self {
            Self::Ebpf(datapath) => datapath.knows(backend),
            Self::Userspace(datapath) => datapath.control().knows(backend),
        }
    }

    fn suspect(&self, suspect: Suspect) -> Option<Backend> {
        match self {
            Self::Ebpf(datapath) => datapath.suspect(suspect),
            Self::Userspace(datapath) => datapath.control().suspect(suspect),
        }
    }

    fn reading(&self, backend: &Backend) -> Result<Option<Reading>, PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.reading(backend)?),
            Self::Userspace(datapath) => Ok(datapath.control().reading(backend)),
        }
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, PlaneError> {
        self.endpoints()
    }

    fn flows(&self) -> Result<Vec<Flow>, PlaneError> {
        self.flows()
    }

    fn publish(&mut self, service: &Service) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.publish(service)?),
            Self::Userspace(datapath) => datapath.publish(service),
        }
    }

    fn withdraw_service(&mut self, service_ip: IpAddr) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.withdraw_service(service_ip)?),
            Self::Userspace(datapath) => datapath.withdraw_service(service_ip),
        }
    }

    fn set_aside(&mut self, backend: &Backend, aside: bool) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.set_aside(backend, aside)?),
            Self::Userspace(datapath) => {
                datapath.set_aside(backend, aside);
                Ok(())
            }
        }
    }

    fn set_load(&mut self, backend: &Backend, flows: u32) -> Result<(), PlaneError> {
        match self {
            Self::Ebpf(datapath) => Ok(datapath.set_load(backend, flows)?),
            Self::Userspace(datapath) => {
                datapath.control().set_load(backend, flows);
                Ok(())
            }
        }
    }
}
