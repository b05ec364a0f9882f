//! What the packets of a flow say of it: `follow.rs` of `netmanager-ebpf`, what of it has nothing to do with a stack of 512
//! bytes. A warm packet comes here once in each second, with its last packets, and until it is answered.

use netmanager_common::flow;
use netmanager_common::life::{self, State};
use netmanager_common::map::{Flow, FlowKey};
use netmanager_common::wire::{TCP, TCP_RST};

use super::forward::Forward;

/// Which of a flow's two entries a packet is of.
#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Arrival,
}

impl Forward<'_> {
    /// A container has sent a packet of `flow`, which had been seen at `before` last.
    pub(super) fn follow_sent(&self, key: &FlowKey, flow: &Flow, flags: u8, before: u32) {
        let now = self.now.seconds();
        if flow.chosen == 0 && !flow::keeps_warm(now, before) && !life::is_last(flags) {
            return;
        }
        let Some(backend) = self.tables.backend(flow.backend) else { return };
        if backend.generation != flow.generation {
            return;
        }
        let arrival = flow::reply_key(key, backend.answers_from(key.source, flow.source));
        if before != now {
            self.await_answer(key, arrival, flow);
        }
        if life::is_last(flags) {
            self.end(key, &arrival, flow, flags, Direction::Forward);
        }
    }

    /// A packet of a new second goes out: its backend is expected to send some too, and the entry for what it sends to be
    /// there.
    fn await_answer(&self, forward: &FlowKey, arrival: FlowKey, flow: &Flow) {
        let (now, state) = (self.now.seconds(), State::of(flow.state));
        let is_asked = self.memory.flows.with(&arrival, |other| {
            if state == State::New {
                // An answer may now be one to either packet.
                other.began = 0;
                return true;
            }
            other.last_seen != now && !state.is_ending()
        });
        match is_asked {
            None => {
                // It has fallen out, and the flow goes on.
                self.memory.flows.insert(arrival, Flow { source: forward.destination, ..*flow });
            }
            Some(true) if flow.chosen != 0 => {
                let protocol = u8::try_from(forward.protocol).unwrap_or_default();
                self.asked(flow.backend, flow.generation, protocol, forward.destination_port);
            }
            Some(_) => {}
        }
    }

    /// A packet has come for the container at `ifindex`.
    pub(super) fn follow_arrived(&self, key: &FlowKey, flow: Flow, flags: u8, before: u32, ifindex: u32) {
        let forward = flow::answered_key(key, ifindex, flow.source);
        self.judge(key, &flow, flags);
        if flags & TCP_RST == 0 {
            if flow.state == State::New as u8 {
                self.memory.counts.give_back(flow.slot);
            }
            self.advance(&forward, key, flow, before);
        }
        if life::is_last(flags) {
            self.end(&forward, key, &flow, flags, Direction::Arrival);
        }
    }

    /// Enters into both entries what an answer makes of them.
    fn advance(&self, forward: &FlowKey, arrival: &FlowKey, flow: Flow, before: u32) {
        let now = self.now.seconds();
        let protocol = u8::try_from(forward.protocol).unwrap_or_default();
        let state = life::answered(protocol, State::of(flow.state), before != now) as u8;
        let is_news = state != flow.state;
        if !is_news && !flow::keeps_warm(now, before) {
            return;
        }
        let flows = &self.memory.flows;
        let own = flows.with(arrival, |entry| {
            entry.state = state;
            *entry
        });
        let other = flows.with(forward, |entry| {
            if protocol != TCP {
                // Answers alone keep a datagram flow.
                entry.last_seen = now;
            }
            if is_news && entry.state < State::Closing as u8 {
                entry.state = state;
            }
            *entry
        });
        if let (Some(own), Some(other)) = (own, other)
            && is_news
            && state == State::Assured as u8
            && flow.chosen != 0
        {
            self.memory.assured.insert(*arrival, own);
            self.memory.assured.insert(*forward, other);
        }
    }

    /// Enters what a packet that ends its connection, or its sender's half, makes of both entries.
    fn end(&self, forward: &FlowKey, arrival: &FlowKey, flow: &Flow, flags: u8, direction: Direction) {
        let (own, other) = match direction {
            Direction::Forward => (forward, arrival),
            Direction::Arrival => (arrival, forward),
        };
        let flows = &self.memory.flows;
        let other_state = flows.with(other, |entry| entry.state);
        let closed = flows.with(own, |entry| {
            let was_closed = entry.state == State::Closed as u8;
            let next = match other_state {
                Some(other) => life::after(State::of(entry.state), flags, other == State::Closing as u8),
                None => State::Closed,
            };
            entry.state = next as u8;
            (next == State::Closed).then_some(was_closed)
        });
        if let Some(was_closed) = closed.flatten() {
            if !was_closed {
                self.tables.ended(flow);
            }
            flows.with(other, |entry| entry.state = State::Closed as u8);
            if flow.chosen != 0 {
                self.memory.assured.remove(forward);
                self.memory.assured.remove(arrival);
            }
        }
    }

    /// Puts a flow back into the table of all flows, if it had fallen out there and must not.
    pub(super) fn recall(&self, key: &FlowKey) -> Option<Flow> {
        let remembered = self.memory.assured.get(key)?;
        let flow = Flow { last_seen: self.now.seconds(), ..remembered };
        self.memory.flows.insert(*key, flow);
        Some(flow)
    }
}
