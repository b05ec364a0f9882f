//! What becomes of a packet: the paths of `netmanager-ebpf`, on the same tables, with the same headers, keys and checks
//! of `netmanager-common`. Time is an argument, and nothing is sent here. A test feeds both with the same frames
//! and compares verdicts and bytes.

#![expect(clippy::wrong_self_convention, reason = "these are ways of packets, not conversions")]

use netmanager_common::event::DropReason;
use netmanager_common::flow;
use netmanager_common::header::Header;
use netmanager_common::life::{self, State};
use netmanager_common::map::{self, Backend, FlowKey, MAX_ASSURED, MAX_FLOWS, Veth};
use netmanager_common::packet::Packet;
use netmanager_common::wire::{
    Be16, ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, Ip, Ipv4, Ipv6,
    TCP, TCP_SYN, UDP,
};

use super::clamp::clamp;
use super::counts::Counts;
use super::events::Reporter;
use super::flows::{Flows, Fragments};
use super::frame::Frame;
use super::moment::Moment;
use super::tables::{Chosen, Tables};

/// What packets themselves leave behind.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) flows: Flows,
    /// Those in which both ends take part, which must not be lost when `flows` has no room for them.
    pub(super) assured: Flows,
    pub(super) fragments: Fragments,
    pub(super) counts: Counts,
    pub(super) events: Reporter,
}

impl Memory {
    pub(super) fn new(events: Reporter) -> Self {
        Self {
            flows: Flows::new(MAX_FLOWS),
            assured: Flows::new(MAX_ASSURED),
            fragments: Fragments::default(),
            counts: Counts::default(),
            events,
        }
    }
}

/// Where a packet goes. Its headers are rewritten by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Into this container, as a whole frame.
    Deliver(Veth),
    /// To another node: what is behind the Ethernet header.
    Send { node: Ip, port: Be16 },
    /// It is not the overlay's. The host has it already.
    Host,
}

/// The tables as they are now, for one packet or a few.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forward<'a> {
    pub(super) tables: &'a Tables,
    pub(super) memory: &'a Memory,
    pub(super) now: Moment,
}

/// The translation of one packet.
struct Choice<'a> {
    source: Ip,
    backend: &'a Backend,
    slot: u32,
}

enum Lookup<'a> {
    Warm(Choice<'a>),
    /// A backend must be chosen.
    New {
        replaces: bool,
    },
}

impl<'a> Forward<'a> {
    /// A frame that has come out of a container.
    pub(super) fn from_container(&self, frame: &mut Frame<'_>) -> Result<Verdict, DropReason> {
        let ethernet: Ethernet = frame.load(0).ok_or(DropReason::Malformed)?;
        match ethernet.ethertype {
            ETHERTYPE_IPV4 => self.sent::<Ipv4>(frame, &ethernet),
            ETHERTYPE_IPV6 => self.sent::<Ipv6>(frame, &ethernet),
            ETHERTYPE_ARP => Ok(Verdict::Host),
            _ => Err(DropReason::NotIp),
        }
    }

    /// A packet that has come out of the tunnel from `peer`. In `frame` it has room for an Ethernet header before it.
    pub(super) fn from_uplink(&self, frame: &mut Frame<'_>, peer: Ip) -> Result<Verdict, DropReason> {
        if frame.available() < IPV4_LEN.into() {
            return Err(DropReason::Malformed);
        }
        let [first]: [u8; 1] = frame.load(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
        match first >> 4 {
            4 => self.arrived::<Ipv4>(frame, peer),
            6 => self.arrived::<Ipv6>(frame, peer),
            _ => Err(DropReason::ForeignTunnel),
        }
    }

    /// What netmanager has made or translated: to be delivered by its destination, as it is.
    pub(super) fn from_netmanager(&self, frame: &mut Frame<'_>) -> Result<Verdict, DropReason> {
        let ethernet: Ethernet = frame.load(0).ok_or(DropReason::Malformed)?;
        match ethernet.ethertype {
            ETHERTYPE_IPV4 => self.by_destination::<Ipv4>(frame),
            ETHERTYPE_IPV6 => self.by_destination::<Ipv6>(frame),
            _ => Err(DropReason::NotIp),
        }
    }

    fn by_destination<H: Header>(&self, frame: &mut Frame<'_>) -> Result<Verdict, DropReason> {
        let ip: H = frame.load(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
        let destination = ip.destination();
        let packet = Packet::opaque(ip);
        if let Some(receiver) = self.tables.veth(&destination) {
            return self.to_container(frame, &packet, receiver);
        }
        self.to_node(frame, &packet, self.tables.host_of(&destination)?)
    }

    fn sent<H: Header>(&self, frame: &mut Frame<'_>, ethernet: &Ethernet) -> Result<Verdict, DropReason> {
        let ip: H = frame.load(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
        if !ip.is_of_its_family() {
            return Err(DropReason::Malformed);
        }
        if self.tables.plan.is_service(ip.destination()) {
            return self.to_service(frame, ip, ethernet);
        }
        if ip.source().is_of_link() {
            return Ok(Verdict::Host);
        }
        let sender = self.check_sender(frame, &ip, ethernet)?;
        // The gateway is the host itself.
        if self.tables.plan.is_container(ip.destination()) && ip.destination() != ip.source().gateway() {
            self.to_ns_ip(frame, ip, sender)
        } else {
            Ok(Verdict::Host)
        }
    }

    /// To a service address: both addresses are translated.
    fn to_service<H: Header>(
        &self,
        frame: &mut Frame<'_>,
        ip: H,
        ethernet: &Ethernet,
    ) -> Result<Verdict, DropReason> {
        let mut packet = Packet::parse(frame, ip, ETHERNET_LEN, frame.available())?;
        let (source, destination) = (packet.ip.source(), packet.ip.destination());
        let key = flow::forward_key(frame.ifindex, source, destination, packet.ports, packet.protocol());
        let Choice { source, backend, slot } = match self.lookup(&key, &packet)? {
            Lookup::Warm(choice) => choice,
            Lookup::New { replaces } => {
                let slot = self.check_sender(frame, &packet.ip, ethernet)?.slot;
                self.begin(key, slot, replaces, packet.tcp_flags)?
            }
        };
        packet.ip.hop()?;
        let ns_ip = backend.ns_ip_like(source);
        packet.set_source(source);
        packet.set_destination(ns_ip);
        let verdict = if let Some(receiver) = self.tables.veth(&ns_ip) {
            self.show_as_dialled(&mut packet, &receiver);
            self.to_container(frame, &packet, receiver)
        } else {
            self.to_node(frame, &packet, backend)
        }?;
        self.memory.counts.sent(slot, packet.ip.length());
        Ok(verdict)
    }

    /// To another container by its NsIP: nothing is translated, so that any protocol may pass. To the node itself go only
    /// answers to what its processes have asked a service.
    fn to_ns_ip<H: Header>(&self, frame: &mut Frame<'_>, ip: H, sender: Veth) -> Result<Verdict, DropReason> {
        let destination = ip.destination();
        let mut packet = match Packet::parse(frame, ip, ETHERNET_LEN, frame.available()) {
            Err(reason) if Packet::<H>::may_be_opaque(reason) => Packet::opaque(ip),
            parsed => parsed?,
        };
        let receiver = self.tables.veth(&destination);
        let backend = if receiver.is_none() { Some(self.tables.host_of(&destination)?) } else { None };
        if let Some(receiver) = &receiver
            && receiver.is_node_itself()
            && (packet.is_opaque() || !self.show_as_dialled(&mut packet, receiver))
        {
            return Err(DropReason::NoEndpoint);
        }
        packet.ip.hop()?;
        let verdict = match (receiver, backend) {
            (Some(receiver), _) => self.to_container(frame, &packet, receiver),
            (None, Some(backend)) => self.to_node(frame, &packet, backend),
            (None, None) => Err(DropReason::NoEndpoint),
        }?;
        self.memory.counts.sent(sender.slot, packet.ip.length());
        Ok(verdict)
    }

    /// Checks the inner packet and puts it into the container that it is for.
    fn arrived<H: Header>(&self, frame: &mut Frame<'_>, peer: Ip) -> Result<Verdict, DropReason> {
        let ip: H = frame.load(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
        if !ip.is_of_its_family() || ip.length() != frame.available() {
            return Err(DropReason::Malformed);
        }
        let receiver = self.tables.veth(&ip.destination()).ok_or(DropReason::NoEndpoint)?;
        let sender = self.check_peer(peer, &ip)?;
        let mut packet = match Packet::parse(frame, ip, ETHERNET_LEN, frame.available()) {
            // By NsIP, so that nothing is to be translated.
            Err(reason)
                if Packet::<H>::may_be_opaque(reason) && self.tables.plan.is_container(ip.source()) =>
            {
                Packet::opaque(ip)
            }
            parsed => parsed?,
        };
        let is_answer = !packet.is_opaque() && self.show_as_dialled(&mut packet, &receiver);
        if receiver.is_node_itself() && !is_answer {
            return Err(DropReason::NoEndpoint);
        }
        if let Some(sender) = sender {
            clamp(frame, &packet, sender.mtu)?;
        }
        self.to_container(frame, &packet, receiver)
    }

    /// The container that the frame came from, if it says so truly.
    pub(super) fn check_sender<H: Header>(
        &self,
        frame: &Frame<'_>,
        ip: &H,
        ethernet: &Ethernet,
    ) -> Result<Veth, DropReason> {
        match self.tables.veth(&ip.source()) {
            Some(sender) if sender.ifindex == frame.ifindex && sender.mac == ethernet.source => Ok(sender),
            _ => Err(DropReason::SpoofedSource),
        }
    }

    /// Whether the node at `peer` may send a packet with this inner source: see `netmanager-ebpf`, `uplink.rs`. Gives the
    /// instance that has the source, if it is known.
    fn check_peer<H: Header>(&self, peer: Ip, ip: &H) -> Result<Option<&'a Backend>, DropReason> {
        let source = ip.source();
        if let Some(backend) = self.tables.owner(&source) {
            let mut owners = [Some(backend), self.tables.left_behind(&source)].into_iter().flatten();
            let right = owners.find(|it| it.node == peer && it.in_use() && it.owns(source));
            return right.map(Some).ok_or(DropReason::ForeignSource);
        }
        let (known, is_service) = (self.tables.knows_peer(peer), self.tables.plan.is_service(source));
        if !is_service && !self.tables.plan.is_container(source) {
            return Err(DropReason::ForeignSource);
        }
        if known && !is_service {
            return Ok(None);
        }
        if self.memory.counts.may_be_new(&peer, known, self.now.0) {
            if is_service {
                self.memory.events.miss(&source, &ip.destination(), self.now.0);
            }
        } else if !known {
            return Err(DropReason::OverBudget);
        }
        if known { Ok(None) } else { Err(DropReason::UnknownPeer) }
    }

    /// What a flow says, if its backend is still there.
    fn choice(&self, flow: &map::Flow) -> Option<Choice<'a>> {
        let backend = self.tables.backend(flow.backend)?;
        let live = backend.generation == flow.generation && backend.in_use();
        live.then_some(Choice { source: flow.source, backend, slot: flow.slot })
    }

    fn lookup<H: Header>(&self, key: &FlowKey, packet: &Packet<H>) -> Result<Lookup<'a>, DropReason> {
        let now = self.now.seconds();
        let (protocol, flags) = (packet.protocol(), packet.tcp_flags);
        let found = self.memory.flows.with(key, |entry| {
            let (state, idle) = (State::of(entry.state), flow::idle(now, entry.last_seen));
            if life::begins_anew(protocol, flags, state, idle) {
                return Ok((Lookup::New { replaces: true }, None));
            }
            match self.choice(entry) {
                Some(choice) => {
                    let aside = choice.backend.aside != 0 && entry.chosen != 0;
                    if aside && life::may_move(protocol, flags, state) {
                        return Ok((Lookup::New { replaces: true }, None));
                    }
                    let before = std::mem::replace(&mut entry.last_seen, now);
                    let is_news = before != now || life::is_last(flags);
                    Ok((Lookup::Warm(choice), is_news.then_some((*entry, before))))
                }
                None if life::is_first(protocol, flags) => Ok((Lookup::New { replaces: true }, None)),
                None => Err(DropReason::BackendGone),
            }
        });
        let (lookup, news) = found.unwrap_or(Ok((Lookup::New { replaces: false }, None)))?;
        if let Some((flow, before)) = news {
            self.follow_sent(key, &flow, flags, before);
        }
        Ok(lookup)
    }

    /// Chooses a backend for a new flow of the container that has `slot`, and enters both directions.
    fn begin(
        &self,
        key: FlowKey,
        slot: u32,
        mut replaces: bool,
        tcp_flags: u8,
    ) -> Result<Choice<'a>, DropReason> {
        let protocol = u8::try_from(key.protocol).unwrap_or_default();
        if !replaces
            && tcp_flags & TCP_SYN == 0
            && let Some(remembered) = self.recall(&key)
        {
            match self.choice(&remembered) {
                Some(choice) => return Ok(choice),
                None if !life::is_first(protocol, tcp_flags) => return Err(DropReason::BackendGone),
                None => replaces = true,
            }
        }
        if !self.memory.counts.may_begin(slot, self.now.0) {
            return Err(DropReason::TooManyFlows);
        }
        let Some(chosen) = self.tables.choose(&key.destination) else {
            self.memory.events.miss(&key.destination, &key.source, self.now.0);
            return Err(DropReason::ServiceUnknown);
        };
        let Chosen { number, backend, chosen } = chosen?;
        let instance_ip = self.tables.instance_ip(&key.source);
        if instance_ip.is_none() {
            return Err(DropReason::NoInstanceAddress);
        }
        let answers_from = backend.answers_from(key.source, instance_ip);
        if answers_from.is_none() {
            return Err(DropReason::NoBackend);
        }
        let now = self.now.seconds();
        let flows = &self.memory.flows;
        let reply = flow::reply_key(&key, answers_from);
        if let Some(other) = flows.get(&reply)
            && other.source != key.destination
            && !State::of(other.state).is_ending()
        {
            // Packets may go in one direction only.
            let sent = flows.get(&flow::answered_key(&reply, key.ifindex, other.source));
            let sent = sent.map_or(u32::MAX, |sent| flow::idle(now, sent.last_seen));
            if sent.min(flow::idle(now, other.last_seen)) <= life::CLASH_LIFETIME {
                return Err(DropReason::PortClash);
            }
        }
        let is_timed = protocol != UDP && (protocol != TCP || tcp_flags & TCP_SYN != 0);
        let arrival = map::Flow {
            source: key.destination,
            backend: number,
            generation: backend.generation,
            slot,
            last_seen: now,
            began: if is_timed { self.now.microseconds() } else { 0 },
            state: State::New as u8,
            chosen: chosen.into(),
            _pad: 0,
        };
        let forward = map::Flow { source: instance_ip, ..arrival };
        // First the entry for the answers: once a packet is on its way, its answer must be understood.
        flows.insert(reply, arrival);
        let flow = if replaces {
            if let Some(before) = flows.get(&key).filter(|before| before.state != State::Closed as u8) {
                self.tables.ended(&before);
            }
            flows.insert(key, forward);
            forward
        } else {
            // Or another thread has begun the same flow a moment ago: what it chose counts.
            flows.insert_new(key, forward)
        };
        if flow == forward {
            self.tables.begun(&flow);
        }
        if chosen {
            self.asked(number, backend.generation, protocol, key.destination_port);
        }
        self.choice(&flow).ok_or(DropReason::TableChanged)
    }

    /// Shows a packet that arrives for `receiver` as coming from the service address that this container dialled, if it is
    /// an answer.
    fn show_as_dialled<H: Header>(&self, packet: &mut Packet<H>, receiver: &Veth) -> bool {
        let (now, flags, key) = (self.now.seconds(), packet.tcp_flags, packet.arrival_key());
        let look = |entry: &mut map::Flow| {
            let before = std::mem::replace(&mut entry.last_seen, now);
            let is_news = before != now || entry.state == State::New as u8 || life::is_last(flags);
            (*entry, before, is_news)
        };
        let mut found = self.memory.flows.with(&key, look);
        // What is from an NsIP answers to nothing that was dialled by another address. Who has never begun a flow waits for
        // no answer; who is asked may answer, so it may begin one more.
        if found.is_none()
            && (self.tables.plan.is_service(packet.ip.source()) || receiver.is_node_itself())
            && self.memory.counts.give_back(receiver.slot)
            && flags & TCP_SYN == 0
        {
            found = self.recall(&key).map(|flow| (flow, now, true));
        }
        let Some((flow, before, is_news)) = found else { return false };
        if is_news {
            self.follow_arrived(&key, flow, flags, before, receiver.ifindex);
        }
        packet.set_source(flow.source);
        true
    }

    fn to_container<H: Header>(
        &self,
        frame: &mut Frame<'_>,
        packet: &Packet<H>,
        veth: Veth,
    ) -> Result<Verdict, DropReason> {
        frame.update_checksum(&packet.transport, packet.change_of_checksum())?;
        let ethernet = Ethernet { destination: veth.mac, source: veth.gateway_mac, ethertype: H::ETHERTYPE };
        frame.store(0, &ethernet)?;
        frame.store(ETHERNET_LEN, &packet.ip)?;
        self.memory.counts.received(veth.slot, packet.ip.length());
        Ok(Verdict::Deliver(veth))
    }

    fn to_node<H: Header>(
        &self,
        frame: &mut Frame<'_>,
        packet: &Packet<H>,
        backend: &Backend,
    ) -> Result<Verdict, DropReason> {
        let node = &self.tables.node;
        let own = node.address_towards(backend.node);
        if own.is_none() {
            return Err(DropReason::NotReady);
        }
        if backend.node == own {
            // It should be here and is not: the tunnel would only bring it back.
            return Err(DropReason::NoEndpoint);
        }
        if !packet.fits(frame, backend.mtu) {
            return Err(DropReason::TooBig);
        }
        clamp(frame, packet, backend.mtu)?;
        frame.update_checksum(&packet.transport, packet.change_of_checksum())?;
        frame.store(ETHERNET_LEN, &packet.ip)?;
        Ok(Verdict::Send { node: backend.node, port: backend.port })
    }
}
