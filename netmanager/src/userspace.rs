//! The data plane without BPF: the same tables and the same translation as in the kernel's programs, in threads of this
//! process.
//!
//! ```text
//!   container's veth  <--frames-->  packet socket  <-- forward -->  UDP socket  <--datagrams-->  other nodes
//! ```
//!
//! A packet socket at the host side of a veth sees what the program there would see: whole super-packets, with the
//! container's MAC and interface, before any rule or route of the host; and it puts frames straight into the container.
//! (A TUN device behind the host's routing would lose who has sent a packet, and would bring in the host's forwarding,
//! reverse path filter and firewalls, for IPv6 its global forwarding switch too.) The host's stack sees those frames
//! as well: [`guard`] drops them there.
//!
//! A super-packet is read once, translated once, cut into packets of their own, and given to the kernel as one piece
//! again (UDP GSO). What arrives merged (UDP GRO) is merged into a super-packet for the container. Payload is copied by
//! system calls only.
//!
//! It ends with the process. Read [`forward`] first, then [`engine`].

mod clamp;
mod control;
mod counts;
mod engine;
mod events;
mod flows;
mod follow;
mod forward;
mod frame;
pub mod guard;
mod health;
mod merge;
mod mmsg;
mod moment;
mod outgoing;
mod punt;
mod reader;
mod rehearsal;
mod segment;
mod socket;
mod tables;
mod trace;
mod unfinished;
mod virtio;
mod way;
mod worker;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use protocol::plan::Plan;

pub use self::control::{Control, Judgement};
pub use self::events::Events;
pub(crate) use self::punt::PuntQueue;
pub(crate) use self::reader::Reader;
pub(crate) use self::rehearsal::Rehearsal;
pub(crate) use self::socket::ContainerSocket;
use self::socket::TunnelSockets;
pub use self::trace::Watch;
pub(crate) use self::virtio::{LEN as HEADER_LEN, Offload, leave_open};
use self::worker::Workers;
use crate::datapath::{Addresses, Backend, Endpoint, Repair, Service};
use crate::plane::PlaneError;

/// Whether packet sockets are to be had here. Leaves nothing open.
///
/// # Errors
/// When they are not.
pub fn try_to_open() -> Result<(), PlaneError> {
    const LOOPBACK: u32 = 1;
    ContainerSocket::open(LOOPBACK, &Plan::default().into())
        .map(drop)
        .map_err(|source| PlaneError::PacketSocket { ifindex: LOOPBACK, source })
}

/// The data plane that lives in this process, and the only writer of its tables. Its methods act on the network
/// namespace of the calling thread, and block for some milliseconds.
#[derive(Debug)]
pub struct Datapath {
    control: Control,
    workers: Workers,
    /// Where the tunnel's sockets are bound.
    bound: Option<Addresses>,
}

impl Datapath {
    /// Starts the threads. Nothing arrives yet.
    ///
    /// # Errors
    /// When a packet socket or the guard's rules are not to be had.
    pub fn open(tunnel_port: u16, plan: Plan) -> Result<(Self, Events), PlaneError> {
        // Asked early, so that whoever chooses between data planes learns it.
        try_to_open()?;
        let (control, events) = Control::new(tunnel_port, plan);
        let workers = Workers::start(control.engine()).map_err(|source| PlaneError::Threads { source })?;
        let datapath = Self { control, workers, bound: None };
        datapath.guard()?;
        Ok((datapath, events))
    }

    /// The tables, to be read.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// As [`crate::datapath::Datapath::set_plan`].
    ///
    /// # Errors
    /// When the kernel refuses a socket's filter or the guard's rules.
    pub fn set_plan(&mut self, plan: Plan) -> Result<(), PlaneError> {
        self.control.set_plan(plan);
        for (ifindex, socket) in &self.control.engine().sockets().containers {
            let failed = |source| PlaneError::PacketSocket { ifindex: *ifindex, source };
            socket.set_ranges(&plan.into()).map_err(failed)?;
        }
        self.guard()
    }

    /// As [`crate::datapath::Datapath::set_node`].
    ///
    /// # Errors
    /// As [`Self::set_uplinks`].
    pub fn set_node(&mut self, addresses: Addresses, uplink_ifindex: u32) -> Result<(), PlaneError> {
        self.set_uplinks(addresses, uplink_ifindex, &[], &BTreeMap::new())
    }

    /// As [`crate::datapath::Datapath::set_uplinks`]. The kernel's routes say where packets leave, from the first one after a
    /// change on; what is known of the ways says only how large they may be. What comes in elsewhere the guard drops.
    ///
    /// # Errors
    /// When there is no interface `primary`, the tunnel's port is taken, or the kernel refuses the guard's rules.
    pub fn set_uplinks(
        &mut self,
        addresses: Addresses,
        primary: u32,
        others: &[u32],
        ways: &BTreeMap<IpAddr, u32>,
    ) -> Result<(), PlaneError> {
        let before = self.control.uplinks();
        self.control.set_uplinks(addresses, primary, others, ways)?;
        if self.bound == Some(addresses) {
            return if self.control.uplinks() == before { Ok(()) } else { self.guard() };
        }
        let port = self.control.tunnel_port();
        // Whoever listens on the same port would share it, so the old ones go first.
        self.bound = None;
        self.control.engine().sockets_mut().tunnels = [None, None];
        // Before anything can come in.
        self.guard()?;
        for address in addresses.each() {
            let failed = |source| PlaneError::Tunnel { address, port, source };
            let sockets = TunnelSockets::bind(address, port, self.workers.count());
            let sockets = Arc::new(sockets.map_err(failed)?);
            let place = usize::from(address.is_ipv6());
            self.control.engine().sockets_mut().tunnels[place] = Some(Arc::clone(&sockets));
            self.workers.serve_tunnel(address.is_ipv4(), sockets.all()).map_err(failed)?;
        }
        self.bound = Some(addresses);
        Ok(())
    }

    /// As [`crate::datapath::Datapath::set_egress`].
    ///
    /// # Errors
    /// When the kernel refuses the guard's rules.
    pub fn set_egress(&mut self, node: IpAddr, ifindex: Option<u32>) -> Result<(), PlaneError> {
        let before = self.control.uplinks();
        self.control.set_egress(node, ifindex);
        if self.control.uplinks() == before { Ok(()) } else { self.guard() }
    }

    /// As [`crate::datapath::Datapath::attach_endpoint`].
    ///
    /// # Errors
    /// When there is no such interface, or the kernel refuses a socket or the guard's rules.
    pub fn attach_endpoint(&mut self, endpoint: &Endpoint) -> Result<(), PlaneError> {
        let before = self.control.attach_endpoint(endpoint)?;
        self.serve(endpoint.ifindex, before)
    }

    /// As [`crate::datapath::Datapath::attach_node_itself`].
    ///
    /// # Errors
    /// As [`Self::attach_endpoint`].
    pub fn attach_node_itself(&mut self, endpoint: &Endpoint) -> Result<(), PlaneError> {
        let before = self.control.node_itself();
        if let Some(before) = before.filter(|before| before.ns_ip != endpoint.ns_ip) {
            self.detach_endpoint(before.ns_ip)?;
        }
        let before = self.control.attach_node_itself(endpoint)?;
        self.serve(endpoint.ifindex, before)
    }

    /// Takes frames from the link of an entry, which was at the interface `before` perhaps.
    fn serve(&mut self, ifindex: u32, before: Option<u32>) -> Result<(), PlaneError> {
        self.guard()?;
        if !self.control.engine().sockets().containers.contains_key(&ifindex) {
            let failed = |source| PlaneError::PacketSocket { ifindex, source };
            let socket = Arc::new(ContainerSocket::open(ifindex, &self.control.ranges()).map_err(failed)?);
            self.control.engine().sockets_mut().containers.insert(ifindex, Arc::clone(&socket));
            self.workers.serve(ifindex, std::os::fd::AsFd::as_fd(&*socket)).map_err(failed)?;
        }
        if let Some(before) = before.filter(|before| *before != ifindex) {
            self.close(before);
        }
        Ok(())
    }

    /// As [`crate::datapath::Datapath::detach_endpoint`].
    ///
    /// # Errors
    /// When the kernel refuses the guard's rules.
    pub fn detach_endpoint(&mut self, ns_ip: Ipv4Addr) -> Result<(), PlaneError> {
        if let Some(ifindex) = self.control.detach_endpoint(ns_ip) {
            self.close(ifindex);
            self.guard()?;
        }
        Ok(())
    }

    /// As [`crate::datapath::Datapath::publish`].
    ///
    /// # Errors
    /// When a table is full.
    pub fn publish(&mut self, service: &Service) -> Result<(), PlaneError> {
        let before = self.control.other_tunnels();
        self.control.publish(service)?;
        if self.control.other_tunnels() == before { Ok(()) } else { self.guard() }
    }

    /// As [`crate::datapath::Datapath::set_aside`].
    pub fn set_aside(&mut self, backend: &Backend, aside: bool) {
        self.control.set_aside(backend, aside);
    }

    /// As [`crate::datapath::Datapath::set_path_mtu`].
    pub fn set_path_mtu(&mut self, node: IpAddr, mtu: Option<u16>) {
        self.control.set_path_mtu(node, mtu);
    }

    /// As [`crate::datapath::Datapath::withdraw_service`].
    ///
    /// # Errors
    /// When the kernel refuses the guard's rules.
    pub fn withdraw_service(&mut self, service_ip: IpAddr) -> Result<(), PlaneError> {
        let before = self.control.other_tunnels();
        self.control.withdraw_service(service_ip);
        if self.control.other_tunnels() == before { Ok(()) } else { self.guard() }
    }

    /// Opens the way for what cannot be finished here. There is one.
    pub(crate) fn slow_path(&self) -> PuntQueue {
        PuntQueue::open(self.control.engine())
    }

    /// From now on what would go there is dropped, and counted.
    pub fn close_slow_path(&self) {
        self.control.engine().punts.set(None);
    }

    /// The tables once more, for another task to read.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.control.engine())
    }

    /// Writes the guard's rules again if somebody has removed them.
    pub(crate) fn repair(&self) -> Result<Option<Repair>, PlaneError> {
        let there = guard::is_there().map_err(|source| PlaneError::Guard { source })?;
        if there {
            return Ok(None);
        }
        self.guard().map(|()| Some(Repair::Guard))
    }

    fn close(&self, ifindex: u32) {
        let socket = self.control.engine().sockets_mut().containers.remove(&ifindex);
        if let Some(socket) = socket {
            self.workers.leave(ifindex, std::os::fd::AsFd::as_fd(&*socket));
        }
    }

    fn guard(&self) -> Result<(), PlaneError> {
        let node_itself = self.control.node_itself();
        let rules = guard::Rules {
            containers: &self.control.endpoints(),
            node_itself: node_itself.as_ref(),
            uplinks: &self.control.uplinks(),
            addresses: self.control.node().map(|node| node.addresses).unwrap_or_default(),
            tunnel_port: self.control.tunnel_port(),
            ranges: self.control.ranges(),
            others: &self.control.other_tunnels(),
        };
        rules.apply().map_err(|source| PlaneError::Guard { source })
    }
}
