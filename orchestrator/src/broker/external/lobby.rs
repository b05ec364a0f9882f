//! Which nodes have begun anew since the connection to the broker came up. Pure: time is an argument.
//!
//! The embedded broker sees nodes connect and subscribe. Another one does not tell, so this is read from what nodes say:
//! a node registers before it connects, and its node-engine speaks only when it listens. While the connection is away
//! much of what nodes say is lost, and our nodes say only what is news. So who has not registered since is asked to begin
//! anew, by the message that it is not known. Oakestra's nodes do not read that, and need not: they say everything each time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use protocol::id::Id;
use protocol::topic::NodeTopic;

/// How long a node is given to begin anew before it is asked again.
const AGAIN: Duration = Duration::from_secs(10);
/// Nodes that are not registered and whose tries are remembered.
const STRANGERS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Lobby {
    nodes: HashMap<Id, Standing>,
    strangers: HashMap<Id, Instant>,
}

/// Since the connection came up.
#[derive(Debug, Default)]
struct Standing {
    registered: bool,
    /// Its node-engine has spoken, after it registered if it did.
    listens: bool,
    /// When it was last asked to begin anew.
    asked: Option<Instant>,
}

/// What follows from a node's message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Its node-engine listens to commands, for the first time or again.
    pub(super) listens: bool,
    /// It is to be asked to begin anew.
    pub(super) ask: bool,
}

impl Lobby {
    /// The connection came up: whatever was heard before, something may have been missed.
    pub(super) fn opened(&mut self) {
        self.nodes.clear();
    }

    pub(super) fn registered(&mut self, node: Id) {
        self.nodes.insert(node, Standing { registered: true, ..Standing::default() });
    }

    /// It was asked to begin anew.
    pub(super) fn asked(&mut self, node: Id, now: Instant) {
        self.nodes.entry(node).or_default().asked = Some(now);
    }

    pub(super) fn forgotten(&mut self, node: Id) {
        self.nodes.remove(&node);
    }

    /// A registered node said something.
    pub(super) fn heard(&mut self, node: Id, topic: NodeTopic, now: Instant) -> Heard {
        let from_engine = matches!(
            topic,
            NodeTopic::Information | NodeTopic::Job | NodeTopic::Resources | NodeTopic::Alive
        );
        let standing = self.nodes.entry(node).or_default();
        let listens = from_engine && !standing.listens;
        standing.listens |= from_engine;
        let is_due = match standing.asked {
            None => true,
            // Only ours know that topic, and what it refers to is not known here: it has not heard the question.
            Some(at) => topic == NodeTopic::Alive && now.saturating_duration_since(at) >= AGAIN,
        };
        let ask = !standing.registered && is_due;
        if ask {
            standing.asked = Some(now);
        }
        Heard { listens, ask }
    }

    /// A node that is not registered said something. Says whether it is to be told so.
    pub(super) fn heard_stranger(&mut self, node: Id, now: Instant) -> bool {
        if self.strangers.len() >= STRANGERS_MAX {
            self.strangers.clear();
        }
        let is_due = |at: &Instant| now.saturating_duration_since(*at) >= AGAIN;
        if !self.strangers.get(&node).is_none_or(is_due) {
            return false;
        }
        self.strangers.insert(node, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use protocol::id::Id;
    use protocol::topic::NodeTopic;

    use super::{AGAIN, Heard, Lobby};

    const NODE: Id = Id::from_bytes([1; 12]);
    const NOTHING: Heard = Heard { listens: false, ask: false };
    const LISTENS: Heard = Heard { listens: true, ask: false };

    #[test]
    fn a_node_listens_when_its_engine_speaks_after_it_registered() {
        let (mut lobby, now) = (Lobby::default(), Instant::now());
        for _ in 0..2 {
            lobby.registered(NODE);
            assert_eq!(lobby.heard(NODE, NodeTopic::Subnet, now), NOTHING);
            assert_eq!(lobby.heard(NODE, NodeTopic::Information, now), LISTENS);
            assert_eq!(lobby.heard(NODE, NodeTopic::Alive, now), NOTHING);
        }
    }

    #[test]
    fn who_was_asked_when_the_connection_came_up_is_not_asked_for_its_first_word() {
        let (mut lobby, now) = (Lobby::default(), Instant::now());
        lobby.opened();
        lobby.asked(NODE, now);
        assert_eq!(lobby.heard(NODE, NodeTopic::Information, now), LISTENS);
        assert!(lobby.heard(NODE, NodeTopic::Alive, now + AGAIN).ask, "it has not heard it");
    }

    #[test]
    fn who_has_not_registered_since_the_connection_came_up_is_asked_to() {
        let (mut lobby, now) = (Lobby::default(), Instant::now());
        lobby.registered(NODE);
        lobby.heard(NODE, NodeTopic::Information, now);
        lobby.opened();
        assert_eq!(lobby.heard(NODE, NodeTopic::Information, now), Heard { listens: true, ask: true });
        // One of Oakestra's goes on so.
        assert_eq!(lobby.heard(NODE, NodeTopic::Information, now + AGAIN), NOTHING);
        // One of ours that did not hear it.
        assert_eq!(lobby.heard(NODE, NodeTopic::Alive, now), NOTHING);
        assert!(lobby.heard(NODE, NodeTopic::Alive, now + AGAIN).ask);
        assert_eq!(lobby.heard(NODE, NodeTopic::Alive, now + AGAIN), NOTHING);
        lobby.registered(NODE);
        assert_eq!(lobby.heard(NODE, NodeTopic::Alive, now + AGAIN), LISTENS);
    }

    #[test]
    fn a_netmanager_that_speaks_first_is_asked_too() {
        let (mut lobby, now) = (Lobby::default(), Instant::now());
        assert_eq!(lobby.heard(NODE, NodeTopic::TableQuery, now), Heard { listens: false, ask: true });
        // One of Oakestra's does not register for that.
        assert_eq!(lobby.heard(NODE, NodeTopic::Information, now), LISTENS);
        lobby.registered(NODE);
        assert_eq!(lobby.heard(NODE, NodeTopic::Information, now), LISTENS);
    }

    #[test]
    fn a_stranger_is_told_now_and_then_and_many_fill_no_memory() {
        let (mut lobby, now) = (Lobby::default(), Instant::now());
        assert!(lobby.heard_stranger(NODE, now) && !lobby.heard_stranger(NODE, now));
        assert!(lobby.heard_stranger(NODE, now + AGAIN));
        for number in 0..10_000_u32 {
            let mut bytes = [0; 12];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            lobby.heard_stranger(Id::from_bytes(bytes), now);
        }
        assert!(lobby.strangers.len() <= super::STRANGERS_MAX);
    }
}
