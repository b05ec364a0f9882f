//! What is to be done with a frame of the slow path. Pure: the tables are looked at through [`View`].

use std::net::IpAddr;

use netmanager_common::event::DropReason;
use netmanager_common::punt::Origin;

use super::answer::{self, Refusal};
use super::frame::{Frame, Packet};
use super::icmp_error::IcmpError;
use crate::datapath::{Arrival, Backend, Datagram};
use crate::ipam::next_hop;

/// The tables, as far as decisions need them. What cannot be read is not there.
pub(super) trait View {
    /// The instances behind a service address, or the node itself behind its NsIP; nothing if it is not known.
    fn service(&self, address: IpAddr) -> Option<Vec<Backend>>;
    /// Whether an address is in the range of containers.
    fn is_container(&self, address: IpAddr) -> bool;
    /// The instance on another node that has this address.
    fn host_of(&self, address: IpAddr) -> Option<Backend>;
    fn knows_peer(&self, node: IpAddr) -> bool;
    /// Of a container of this node: its instance address, if it has one.
    fn instance_ip(&self, ns_ip: IpAddr) -> Option<Option<IpAddr>>;
    /// See [`crate::datapath::Tables::dialled`].
    fn dialled(&self, arrival: &Arrival) -> Option<IpAddr>;
    /// See [`crate::datapath::Tables::translation`].
    fn translation(&self, ifindex: u32, sent: &Arrival) -> Option<(IpAddr, Backend)>;
    /// See [`crate::datapath::Tables::mtu`].
    fn mtu(&self, ifindex: u32, sent: &Arrival) -> Option<u16>;
    /// Whether the programs know the ports of this datagram: its first fragment has come.
    fn has_begun(&self, datagram: &Datagram) -> bool;
}

/// An instance's own word that it does not take the datagrams that a container here has sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untaken {
    /// The instance's address, as the answers come from it.
    pub instance: IpAddr,
    /// Where to.
    pub port: u16,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// What was missing is there: it begins anew where it came from.
    Again,
    /// Until this address is known.
    Hold(IpAddr),
    /// Until the first fragment of this datagram has come.
    HoldFragment(Datagram),
    /// This packet goes to whom it is for, instead of the frame: an answer to the sender.
    Answer(Vec<u8>),
    /// This packet goes to whom it is for: the frame's, translated.
    Translated { packet: Vec<u8>, untaken: Option<Untaken> },
    /// There is nothing to be done.
    Drop,
}

pub(super) fn decide(frame: &Frame, view: &impl View) -> Decision {
    let (Some(reason), Some(packet)) = (frame.reason(), frame.packet()) else { return Decision::Drop };
    match (frame.origin(), reason) {
        (Origin::Container, DropReason::UnsupportedProtocol) => match IcmpError::read(packet.bytes) {
            Some(error) => leaving(error, frame.ifindex(), view),
            None => refuse(&packet, Refusal::Protocol),
        },
        (Origin::Uplink, DropReason::UnsupportedProtocol) => {
            let truly = |host: Backend| Some(host.node.ip()) == frame.peer();
            match IcmpError::read(packet.bytes) {
                Some(error) if view.host_of(packet.source).is_some_and(truly) => arriving(error, view),
                _ => Decision::Drop,
            }
        }
        (Origin::Container | Origin::Uplink, DropReason::Fragment) => {
            match packet.datagram(frame.ifindex()) {
                // It came while this one was on its way here.
                Some(datagram) if view.has_begun(&datagram) => Decision::Again,
                Some(datagram) => Decision::HoldFragment(datagram),
                None => Decision::Drop,
            }
        }
        (Origin::Container, reason) => sent(&packet, reason, frame.ifindex(), view),
        (Origin::Uplink, DropReason::UnknownPeer) => match frame.peer() {
            Some(peer) if view.knows_peer(peer) => Decision::Again,
            // The cluster has said where it is, and it is not there.
            Some(_) if view.service(packet.source).is_some() => Decision::Drop,
            Some(_) => Decision::Hold(packet.source),
            None => Decision::Drop,
        },
        (Origin::Uplink | Origin::Netmanager, _) => Decision::Drop,
    }
}

/// Of a packet that has waited for nothing.
pub(super) fn give_up(frame: &Frame) -> Decision {
    match (frame.origin(), frame.packet()) {
        (Origin::Container, Some(packet)) => refuse(&packet, Refusal::Unreachable),
        _ => Decision::Drop,
    }
}

/// What a container has sent and could not go on.
fn sent(packet: &Packet<'_>, reason: DropReason, ifindex: u32, view: &impl View) -> Decision {
    match reason {
        DropReason::ServiceUnknown if view.service(packet.destination).is_some() => Decision::Again,
        DropReason::ServiceUnknown => Decision::Hold(packet.destination),
        DropReason::NoInstanceAddress => match view.instance_ip(packet.source) {
            Some(Some(_)) => Decision::Again,
            Some(None) => Decision::Hold(packet.source),
            None => Decision::Drop,
        },
        // Maybe an answer to the processes of another node itself: the cluster says where that is.
        DropReason::NoEndpoint if view.is_container(packet.destination) => match view
            .service(packet.destination)
        {
            Some(known) if known.is_empty() => refuse(packet, Refusal::Unreachable),
            Some(_) => Decision::Again,
            None if view.instance_ip(packet.destination).is_some() => refuse(packet, Refusal::Unreachable),
            None => Decision::Hold(packet.destination),
        },
        DropReason::NoBackend | DropReason::NoEndpoint => refuse(packet, Refusal::Unreachable),
        DropReason::BackendGone => refuse(packet, Refusal::Gone),
        DropReason::TtlExpired => refuse(packet, Refusal::TtlExpired),
        // Also without "do not fragment": Linux splits its next datagrams accordingly, and splitting in its stead would
        // cost the receiver as much for each one. So one datagram is lost, and no way is slow.
        DropReason::TooBig => {
            let mtu = packet.flow().and_then(|flow| view.mtu(ifindex, &flow));
            mtu.map_or(Decision::Drop, |mtu| refuse(packet, Refusal::TooBig(mtu)))
        }
        _ => Decision::Drop,
    }
}

fn refuse(packet: &Packet<'_>, refusal: Refusal) -> Decision {
    answer::to(packet, refusal, next_hop(packet.source)).map_or(Decision::Drop, Decision::Answer)
}

/// An error that a container of this node says about a packet that came to it. It goes the way of an answer to that
/// packet: the flow's, if there is one; else, since the container has never answered, straight to the instance.
fn leaving(mut error: IcmpError, ifindex: u32, view: &impl View) -> Decision {
    let (container, dialled) = (error.source(), error.destination());
    let (own, backend) = match view.translation(ifindex, &error.answer()) {
        Some(translation) => translation,
        None => {
            let Some(Some(own)) = view.instance_ip(container) else { return Decision::Drop };
            match view.service(dialled).as_deref() {
                None => return Decision::Hold(dialled),
                Some([only]) => (own, *only),
                Some(_) => return Decision::Drop,
            }
        }
    };
    let Some(ns_ip) = like(container, backend) else { return Decision::Drop };
    error.readdress(own, ns_ip, own);
    if view.instance_ip(ns_ip).is_some() {
        return arriving(error, view);
    }
    Decision::Translated { packet: error.into_bytes(), untaken: None }
}

/// An error for a container of this node. Shown as about what the container had dialled.
fn arriving(mut error: IcmpError, view: &impl View) -> Decision {
    let Some(dialled) = view.dialled(&error.answer()) else { return Decision::Drop };
    let (reporter, container) = (error.source(), error.destination());
    let answer = error.answer();
    let is_of_peer = reporter == answer.source;
    let is_untaken = is_of_peer && error.is_about_udp() && error.says_untaken();
    let untaken = is_untaken.then_some(Untaken { instance: answer.source, port: answer.source_port });
    error.readdress(if is_of_peer { dialled } else { reporter }, container, dialled);
    Decision::Translated { packet: error.into_bytes(), untaken }
}

/// The instance's NsIP in the family of `address`.
fn like(address: IpAddr, backend: Backend) -> Option<IpAddr> {
    match address {
        IpAddr::V4(_) => Some(backend.ns_ip.into()),
        IpAddr::V6(_) => backend.ns_ip6.map(IpAddr::from),
    }
}
