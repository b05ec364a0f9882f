//! The questions that wait for an answer: each is asked once at a time, again after [`TIMEOUT`], and a question that
//! only a packet wanted answered is dropped after [`GIVE_UP`] (the next packet asks anew).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use protocol::name::ServiceName;
use protocol::net::TableQuery;
use protocol::plan::Plan;

use crate::table::Table;

/// How long the cluster may take to answer.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question waits whose answer is expected to come unasked. An Oakestra cluster tells only that there is
/// news, which ends the wait as well.
pub(super) const NEWS: Duration = Duration::from_millis(250);
/// After how long a question for an address is dropped.
pub const GIVE_UP: Duration = Duration::from_secs(15);
/// Questions for addresses at one time. A container that scans the ServiceIPs does not get more of the cluster.
const MISSES: usize = 256;

/// What a question is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Service(ServiceName),
    Address(IpAddr),
}

impl Key {
    /// An address has the form of a service name as well, so it is tried first. One of no meaning in the overlay is nothing.
    pub(super) fn parse(text: &str, plan: &Plan) -> Option<Self> {
        match text.parse() {
            Ok(address) => is_of_overlay(address, plan).then_some(Self::Address(address)),
            Err(_no_address) => text.parse().ok().map(Self::Service),
        }
    }

    fn query(&self) -> TableQuery {
        match self {
            Self::Service(name) => TableQuery { sname: name.to_string(), sip: String::new() },
            Self::Address(address) => TableQuery { sname: String::new(), sip: address.to_string() },
        }
    }
}

/// Whether a cluster can be asked for the address: a ServiceIP, or the NsIP of a node itself.
pub(super) fn is_of_overlay(address: IpAddr, plan: &Plan) -> bool {
    plan.is_service(address) || plan.is_container(address)
}

#[derive(Debug)]
struct Question {
    since: Instant,
    /// `None` while the session is down, and until `not_before`.
    sent: Option<Instant>,
    /// Until then its answer may come unasked.
    not_before: Instant,
    /// Something changed since it was sent, so its answer may already be old.
    again: bool,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    questions: BTreeMap<Key, Question>,
    connected: bool,
}

impl Pending {
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Without a question, on the session of `before`.
    pub(super) fn begin_anew(before: &Self) -> Self {
        Self { connected: before.connected, ..Self::default() }
    }

    /// Asks, or notes that what is asked already must be asked once more.
    pub(super) fn ask(&mut self, key: Key, now: Instant) -> Option<TableQuery> {
        match self.questions.get_mut(&key) {
            Some(question) if question.sent.is_some() => {
                question.again = true;
                None
            }
            Some(question) => self.connected.then(|| question.send(&key, now)),
            None => {
                let mut question = Question { since: now, sent: None, not_before: now, again: false };
                let query = self.connected.then(|| question.send(&key, now));
                self.questions.insert(key, question);
                query
            }
        }
    }

    /// Asks if the answer has not come by itself within [`NEWS`].
    pub(super) fn ask_unless_told(&mut self, key: Key, now: Instant) {
        let question = Question { since: now, sent: None, not_before: now + NEWS, again: false };
        self.questions.entry(key).or_insert(question);
    }

    /// Asks for an address on behalf of a packet: not twice, and not without limit.
    pub(super) fn miss(&mut self, address: IpAddr, now: Instant) -> Option<TableQuery> {
        let key = Key::Address(address);
        let misses = self.questions.keys().filter(|key| matches!(key, Key::Address(_))).count();
        if self.questions.contains_key(&key) || misses >= MISSES {
            return None;
        }
        self.ask(key, now)
    }

    pub(super) fn connected(&mut self, now: Instant) -> Vec<TableQuery> {
        self.connected = true;
        self.questions.iter_mut().map(|(key, question)| question.send(key, now)).collect()
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        for question in self.questions.values_mut() {
            question.sent = None;
            question.again = false;
        }
    }

    /// Takes away the questions that this answer settles; gives those that must be asked once more. From version
    /// 0.4.2 an answer does not say what was asked, so one for a service settles all its addresses as well.
    pub(super) fn settle(&mut self, asked: Option<&Key>, table: &Table, now: Instant) -> Vec<TableQuery> {
        let named = table.service.clone().map(Key::Service);
        let addresses = table.addresses.keys().copied().map(Key::Address);
        let settled: BTreeSet<_> = asked.cloned().into_iter().chain(named).chain(addresses).collect();
        let mut again = Vec::new();
        for key in settled {
            if self.questions.remove(&key).is_some_and(|question| question.again) {
                again.extend(self.ask(key, now));
            }
        }
        again
    }

    /// What must be asked again now. Questions for services that are no longer of interest are dropped.
    pub(super) fn due(
        &mut self,
        now: Instant,
        of_interest: impl Fn(&ServiceName) -> bool,
    ) -> Vec<TableQuery> {
        self.questions.retain(|key, question| match key {
            Key::Service(name) => of_interest(name),
            Key::Address(_) => now.saturating_duration_since(question.since) < GIVE_UP,
        });
        if !self.connected {
            return Vec::new();
        }
        let due = |question: &Question| question.due() <= now;
        let questions = self.questions.iter_mut().filter(|(_, question)| due(question));
        questions.map(|(key, question)| question.send(key, now)).collect()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.questions
            .iter()
            .filter_map(|(key, question)| {
                let retry = self.connected.then(|| question.due());
                let give_up = matches!(key, Key::Address(_)).then(|| question.since + GIVE_UP);
                [retry, give_up].into_iter().flatten().min()
            })
            .min()
    }
}

impl Question {
    /// When it is to be sent, while the session is up.
    fn due(&self) -> Instant {
        self.sent.map_or(self.not_before, |sent| sent + TIMEOUT)
    }

    fn send(&mut self, key: &Key, now: Instant) -> TableQuery {
        self.sent = Some(now);
        self.again = false;
        key.query()
    }
}
