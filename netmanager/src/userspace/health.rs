//! Noting whether backends answer, and telling the node when one does not: `health.rs` of `netmanager-ebpf`. What is noted,
//! and what is told, is decided by [`netmanager_common::health`].

use netmanager_common::health::Health;
use netmanager_common::life::State;
use netmanager_common::map::{Flow, FlowKey};
use netmanager_common::wire::{Be16, TCP_RST, UDP};

use super::forward::Forward;

impl Forward<'_> {
    /// A packet was sent to this backend that should be answered.
    pub(super) fn asked(&self, number: u32, generation: u32, protocol: u8, port: Be16) {
        let is_told = |health: &mut Health| health.asked(self.now.milliseconds(), protocol, port);
        if self.tables.note(number, is_told) == Some(true) {
            self.memory.events.suspect(number, generation);
        }
    }

    /// What a packet with these TCP flags, which arrives on `flow`, says of the flow's backend.
    pub(super) fn judge(&self, key: &FlowKey, flow: &Flow, flags: u8) {
        if self.tables.backend(flow.backend).is_none_or(|backend| backend.generation != flow.generation) {
            return;
        }
        let (number, now) = (flow.backend, self.now.milliseconds());
        let (protocol, port) = (u8::try_from(key.protocol).unwrap_or_default(), key.source_port);
        if flow.state != State::New as u8 {
            self.tables.note(number, |health| health.heard(now));
        } else if flags & TCP_RST != 0 {
            if self.tables.note(number, |health| health.refused(now, port)) == Some(true) {
                self.memory.events.suspect(number, flow.generation);
            }
        } else {
            let measured = flow.began != 0 && protocol != UDP;
            let round_trip = measured.then(|| self.now.microseconds().wrapping_sub(flow.began));
            self.tables.note(number, |health| health.answered(now, protocol, port, round_trip));
        }
    }
}
