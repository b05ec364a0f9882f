//! What the made packet is tried on: a data plane, of which it changes nothing.

use std::net::{IpAddr, SocketAddr};

use crate::datapath::{
    Arrival, Backend, DatapathError, Endpoint, FROM_CONTAINER, FROM_UPLINK, FlowAge, Node, Outcome, Ranges,
    Rehearsal, Service,
};

/// See [`crate::datapath::Tables`] for what is read. What a packet leaves behind is there for the next one of the trial
/// only.
pub(crate) trait Trial {
    /// Before the first packet with these ends, which comes in at `ifindex`.
    fn prepare(&mut self, ifindex: u32, sent: &Arrival) -> Result<(), DatapathError>;
    /// A frame that comes out of the container at `ifindex`.
    fn sends(&mut self, ifindex: u32, frame: &[u8]) -> Result<Outcome, DatapathError>;
    /// A frame of the tunnel that arrives at the uplink.
    fn arrives(&mut self, uplink_ifindex: u32, frame: &[u8]) -> Result<Outcome, DatapathError>;
    /// The kernel's hash of the program that was asked; nothing where there is none.
    fn program(&mut self) -> Result<Option<u64>, DatapathError>;
    fn ranges(&self) -> Result<Ranges, DatapathError>;
    fn node(&self) -> Result<Option<Node>, DatapathError>;
    fn peers(&self) -> Result<Vec<SocketAddr>, DatapathError>;
    fn endpoints(&self) -> Result<Vec<Endpoint>, DatapathError>;
    fn service(&self, address: IpAddr) -> Result<Option<Service>, DatapathError>;
    fn host_of(&self, address: IpAddr) -> Result<Option<Backend>, DatapathError>;
    fn instance_ip(&self, ns_ip: IpAddr) -> Result<Option<Option<IpAddr>>, DatapathError>;
    fn age(&self, ifindex: u32, sent: &Arrival) -> Result<Option<FlowAge>, DatapathError>;
}

impl Trial for Rehearsal {
    fn prepare(&mut self, ifindex: u32, sent: &Arrival) -> Result<(), DatapathError> {
        self.prepare(ifindex, sent)
    }

    fn sends(&mut self, ifindex: u32, frame: &[u8]) -> Result<Outcome, DatapathError> {
        self.run(FROM_CONTAINER, ifindex, frame)
    }

    fn arrives(&mut self, uplink_ifindex: u32, frame: &[u8]) -> Result<Outcome, DatapathError> {
        self.run(FROM_UPLINK, uplink_ifindex, frame)
    }

    fn program(&mut self) -> Result<Option<u64>, DatapathError> {
        self.tag(FROM_CONTAINER).map(Some)
    }

    fn ranges(&self) -> Result<Ranges, DatapathError> {
        self.live().ranges()
    }

    fn node(&self) -> Result<Option<Node>, DatapathError> {
        self.live().node()
    }

    fn peers(&self) -> Result<Vec<SocketAddr>, DatapathError> {
        self.live().peers()
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, DatapathError> {
        self.live().endpoints()
    }

    fn service(&self, address: IpAddr) -> Result<Option<Service>, DatapathError> {
        self.live().service(address)
    }

    fn host_of(&self, address: IpAddr) -> Result<Option<Backend>, DatapathError> {
        self.live().host_of(address)
    }

    fn instance_ip(&self, ns_ip: IpAddr) -> Result<Option<Option<IpAddr>>, DatapathError> {
        self.live().instance_ip(ns_ip)
    }

    fn age(&self, ifindex: u32, sent: &Arrival) -> Result<Option<FlowAge>, DatapathError> {
        self.live().age(ifindex, sent)
    }
}
