//! Which backends are dead ends. Pure: what the kernel side has noted and the time go in, [`Action`]s come out.
//!
//! A backend that stops answering is asked once more, by a probe of our own; one that still does not answer is set
//! aside, and probed again and again until it does. One that refuses connections which it, or another one of the same
//! service, has accepted before is set aside at once; likewise one whose container says by ICMP, again and again, that
//! nobody takes the datagrams which it, or another one, has answered before. Nobody has to wait for the control plane,
//! which finds out what is really wrong in its own time. Who cannot be replaced is not set aside ([`Health::split`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use netmanager_common::health::{REFUSALS, SUSPICIOUS};

use crate::datapath::{Backend, Reading};

/// How long a probe may take. Half of it would do on most networks; with the time until the kernel side tells, this has to
/// be less than three seconds.
pub const PATIENCE: Duration = Duration::from_millis(400);
/// Between two probes at first. It doubles each time.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Between two probes at last.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a backend that was taken back must do well until its pauses begin small again.
pub const PROBATION: Duration = Duration::from_secs(60);
/// How much earlier than it was the kernel side may note that something came back: its clock goes by ticks.
const TICK: Duration = Duration::from_millis(20);

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Probe(Backend, Probe),
    /// Give it no new flows.
    SetAside(Backend, Cause),
    TakeBack(Backend),
}

/// How a backend is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Is the container there?
    Echo,
    /// Is somebody listening on this TCP port?
    Connect(u16),
}

/// Why a backend is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("nothing comes back from it")]
    Silent,
    #[error("it refuses connections")]
    Refuses,
    #[error("nobody takes the datagrams that it gets")]
    Untaken,
}

/// Who has answered datagrams to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answering {
    Nobody,
    /// The backend itself, lately.
    Itself,
    /// Another backend of the same service; or itself, but not lately.
    Another,
}

/// Datagrams that an instance did not take.
#[derive(Debug, Clone, Copy)]
struct Row {
    port: u16,
    since: Instant,
    count: u32,
}

#[derive(Debug)]
struct Standing {
    state: State,
    probe: Probe,
    /// Before the next probe.
    pause: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Asked by a probe, for the first time.
    Suspect { asked: Instant },
    /// To be probed then.
    Aside { cause: Cause, due: Instant },
    /// A probe is under way.
    Probed { cause: Cause, asked: Instant },
    /// It does well again, and is forgotten then.
    Back { until: Instant },
}

/// The backends with which something is wrong, or was.
#[derive(Debug, Default)]
pub struct Health {
    standings: BTreeMap<Backend, Standing>,
    rows: BTreeMap<Backend, Row>,
}

impl Health {
    /// What an earlier run has set aside and the data plane still does.
    pub fn adopt(&mut self, backend: Backend, now: Instant) {
        let state = State::Aside { cause: Cause::Silent, due: now };
        self.standings.insert(backend, Standing { state, probe: Probe::Echo, pause: FIRST_PAUSE });
    }

    /// The kernel side suspects a backend. `others_accept`: another one of a service that it is behind has accepted
    /// connections on this port.
    pub fn suspected(
        &mut self,
        backend: Backend,
        reading: &Reading,
        others_accept: impl Fn(u16) -> bool,
        now: Instant,
    ) -> Option<Action> {
        let pause = match self.standings.get(&backend) {
            None => FIRST_PAUSE,
            Some(Standing { state: State::Back { .. }, pause, .. }) => *pause,
            Some(_) => return None,
        };
        let refused = reading.refused_port.filter(|_| reading.refused >= REFUSALS);
        let (state, probe, action) = match refused {
            Some(port) => {
                // Nobody may have the port: then the client is wrong, or scans.
                if reading.accepted_port != Some(port) && !others_accept(port) {
                    return None;
                }
                let state = State::Aside { cause: Cause::Refuses, due: now + pause };
                (state, Probe::Connect(port), Action::SetAside(backend, Cause::Refuses))
            }
            None if reading.unanswered >= SUSPICIOUS => {
                let probe = reading.asked_port.map_or(Probe::Echo, Probe::Connect);
                (State::Suspect { asked: now }, probe, Action::Probe(backend, probe))
            }
            None => return None,
        };
        self.standings.insert(backend, Standing { state, probe, pause });
        Some(action)
    }

    /// The backend's container has not taken a datagram to `port`. `who_answers`: who of a service that it is behind has
    /// answered datagrams there; of itself only what was not longer ago than the time that is given counts.
    ///
    /// Nobody can probe that without troubling whoever listens: it is taken back after a pause, and new flows try.
    pub fn untaken(
        &mut self,
        backend: Backend,
        port: u16,
        who_answers: impl FnOnce(Duration) -> Answering,
        now: Instant,
    ) -> Option<Action> {
        let pause = match self.standings.get(&backend) {
            None => FIRST_PAUSE,
            Some(Standing { state: State::Back { .. } | State::Suspect { .. }, pause, .. }) => *pause,
            Some(_) => return None,
        };
        let row = self.rows.entry(backend).or_insert(Row { port, since: now, count: 0 });
        let age = now.saturating_duration_since(row.since);
        if row.port != port || age > LONGEST_PAUSE {
            *row = Row { port, since: now, count: 0 };
        }
        row.count += 1;
        if row.count < REFUSALS {
            return None;
        }
        self.rows.remove(&backend);
        // As with connections: nobody may have the port.
        if who_answers(age) != Answering::Another {
            return None;
        }
        let state = State::Aside { cause: Cause::Untaken, due: now + pause };
        self.standings.insert(backend, Standing { state, probe: Probe::Echo, pause });
        Some(Action::SetAside(backend, Cause::Untaken))
    }

    /// Does what is due. `read` gives what is noted of a backend now, or nothing if it is no longer known. Without
    /// `can_probe` a backend is tried with new flows instead.
    pub fn tick(
        &mut self,
        read: impl Fn(&Backend) -> Option<Reading>,
        can_probe: bool,
        now: Instant,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        self.standings.retain(|backend, standing| {
            if standing.state.deadline() > now {
                return true;
            }
            match standing.state {
                State::Back { .. } => return false,
                State::Aside { cause, .. } if can_probe && cause != Cause::Untaken => {
                    actions.push(Action::Probe(*backend, standing.probe));
                    standing.state = State::Probed { cause, asked: now };
                }
                State::Aside { .. } => {
                    actions.push(Action::TakeBack(*backend));
                    standing.lengthen();
                    standing.state = State::Back { until: now + PROBATION };
                }
                State::Suspect { asked } => {
                    let Some(reading) = read(backend) else { return false };
                    if answered(&reading, asked, now) {
                        standing.state = State::Back { until: now + PROBATION };
                    } else {
                        let cause = Cause::Silent;
                        actions.push(Action::SetAside(*backend, cause));
                        standing.state = State::Aside { cause, due: now + standing.pause };
                    }
                }
                State::Probed { cause, asked } => {
                    let Some(reading) = read(backend) else { return false };
                    let does_well =
                        answered(&reading, asked, now) && (cause == Cause::Silent || reading.refused == 0);
                    standing.lengthen();
                    if does_well {
                        actions.push(Action::TakeBack(*backend));
                        standing.state = State::Back { until: now + PROBATION };
                    } else {
                        standing.state = State::Aside { cause, due: now + standing.pause };
                    }
                }
            }
            true
        });
        actions
    }

    /// When [`Self::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.standings.values().map(|standing| standing.state.deadline()).min()
    }

    /// Why a backend is set aside, if it is.
    #[must_use]
    pub fn aside(&self, backend: &Backend) -> Option<Cause> {
        match self.standings.get(backend)?.state {
            State::Aside { cause, .. } | State::Probed { cause, .. } => Some(cause),
            State::Suspect { .. } | State::Back { .. } => None,
        }
    }

    /// The backends that get new flows, and those that rest. If none is left, all of them get new flows: what looks dead may
    /// be our own end.
    #[must_use]
    pub fn split(&self, backends: Vec<Backend>) -> (Vec<Backend>, Vec<Backend>) {
        let (resting, live): (Vec<_>, Vec<_>) =
            backends.into_iter().partition(|backend| self.aside(backend).is_some());
        if live.is_empty() { (resting, live) } else { (live, resting) }
    }

    /// Whether all is well.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.standings.is_empty() && self.rows.is_empty()
    }

    /// Forgets all but these.
    pub fn retain(&mut self, is_known: impl Fn(&Backend) -> bool) {
        self.standings.retain(|backend, _| is_known(backend));
        self.rows.retain(|backend, _| is_known(backend));
    }
}

impl Standing {
    fn lengthen(&mut self) {
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
    }
}

impl State {
    fn deadline(self) -> Instant {
        match self {
            Self::Suspect { asked } | Self::Probed { asked, .. } => asked + PATIENCE,
            Self::Aside { due, .. } => due,
            Self::Back { until } => until,
        }
    }
}

/// Whether something has come back since the backend was asked.
fn answered(reading: &Reading, asked: Instant, now: Instant) -> bool {
    reading.heard.is_some_and(|ago| ago <= now.saturating_duration_since(asked) + TICK)
}

#[cfg(test)]
mod tests;
