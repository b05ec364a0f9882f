//! What the kernel side notes of backends, and what it is told of them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use netmanager_common::health::{self, Health};
use netmanager_common::map;
use netmanager_common::wire::{self, Be16};

use super::tables::{monotonic, table};
use super::{Backend, Datapath, DatapathError, Reading, Suspect, Tables};

impl Datapath {
    /// What is noted of a backend; nothing if the tables do not have it.
    pub fn reading(&self, backend: &Backend) -> Result<Option<Reading>, DatapathError> {
        let Some((number, _)) = self.registry.number(backend) else { return Ok(None) };
        let noted = self.tables.health.get(&number.into(), 0).map_err(table("read", map::HEALTH))?;
        Ok(Some(Reading::of(&noted, milliseconds(monotonic()))))
    }

    /// The nodes whose backends have answered within this time before now, or are being asked in vain since. Nothing is noted of
    /// containers that are spoken to by NsIP.
    pub fn peers_in_use(&self, within: Duration) -> Result<BTreeSet<IpAddr>, DatapathError> {
        let (now, within) = (milliseconds(monotonic()), milliseconds(within));
        let mut nodes = BTreeSet::new();
        for (number, backend) in self.registry.backends() {
            let node = backend.node.ip();
            if nodes.contains(&node) {
                continue;
            }
            let noted = self.tables.health.get(&number.into(), 0).map_err(table("read", map::HEALTH))?;
            if noted.is_in_use(now, within) {
                nodes.insert(node);
            }
        }
        Ok(nodes)
    }

    /// Who is meant; nothing if the backend has gone meanwhile.
    #[must_use]
    pub fn suspect(&self, suspect: Suspect) -> Option<Backend> {
        self.registry.backend(u16::try_from(suspect.number).ok()?, suspect.generation)
    }

    /// Sets a backend aside, or takes it back. Of its flows those go on elsewhere that can, as soon as the service is
    /// published without it: set it aside after that. A backend that the tables do not have is none.
    pub fn set_aside(&mut self, backend: &Backend, aside: bool) -> Result<(), DatapathError> {
        let step = self.registry.set_aside(backend, aside);
        self.apply_all(Ok(step.into_iter().collect()))
    }

    /// From now on the backend counts as having so many flows, until some begin or end. One that the tables do not have is
    /// none.
    pub fn set_load(&mut self, backend: &Backend, flows: u32) -> Result<(), DatapathError> {
        let Some((number, _)) = self.registry.number(backend) else { return Ok(()) };
        self.tables.loads.set(number.into(), flows, 0).map_err(table("write", map::LOADS))
    }

    /// Whether some service lists the backend.
    #[must_use]
    pub fn knows(&self, backend: &Backend) -> bool {
        self.registry.number(backend).is_some()
    }

    /// The backends that are set aside.
    pub fn aside(&self) -> impl Iterator<Item = Backend> {
        self.registry.aside()
    }
}

impl Tables {
    /// The time until a first answer of the backend, smoothed, if it was measured.
    pub fn round_trip(&self, backend: &Backend) -> Result<Option<Duration>, DatapathError> {
        let Some(number) = self.number_of(backend)? else { return Ok(None) };
        let noted = self.health.get(&number, 0).map_err(table("read", map::HEALTH))?;
        Ok(Reading::of(&noted, 0).round_trip)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it wraps")]
pub(crate) fn milliseconds(time: Duration) -> u32 {
    time.as_millis() as u32
}

impl Reading {
    /// What is noted, read at `now`: milliseconds of the same clock.
    pub(crate) fn of(noted: &Health, now: u32) -> Self {
        let ago = |then| Duration::from_millis(health::since(now, then).into());
        let port = |port: Be16| Some(port.get()).filter(|port| *port != 0);
        Self {
            unanswered: noted.unanswered,
            asked_port: port(noted.asked_port).filter(|_| noted.asked_protocol == u16::from(wire::TCP)),
            heard: (noted.heard != 0).then(|| ago(noted.heard)),
            refused: noted.refused,
            accepted_port: port(noted.accepted_port),
            refused_port: port(noted.refused_port),
            round_trip: (noted.round_trip != 0).then(|| Duration::from_micros(noted.round_trip.into())),
        }
    }
}
