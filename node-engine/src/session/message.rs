//! What the cluster says, read.

use std::collections::HashSet;

use protocol::name::InstanceName;
use protocol::node::Delete;
use protocol::topic::NodeTopic;

use crate::assignment::{Assignment, InvalidOrder};
use crate::reconcile::Command;
use crate::verdict::chain;

/// A message that means something.
#[derive(Debug)]
pub(super) enum Incoming {
    Command(Command),
    /// The cluster does not know this node (any more).
    Forgotten(String),
}

/// Different malformed messages that are told of; a sender of ever new nonsense does not fill the log.
const COMPLAINTS_MAX: usize = 100;

/// Reads messages, and remembers what it has complained of.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    complaints: HashSet<String>,
}

impl Inbox {
    /// `None` is a message that means nothing here: of another topic, or malformed.
    pub(super) fn read(&mut self, topic: &str, payload: &[u8]) -> Option<Incoming> {
        let (_, kind) = NodeTopic::parse(topic)?;
        match kind {
            NodeTopic::ControlDeploy => match Assignment::parse(payload) {
                Ok(assignment) => Some(Incoming::Command(Command::Deploy(assignment))),
                Err(InvalidOrder::Refused { name, reason }) => {
                    Some(Incoming::Command(Command::Refuse(name, reason)))
                }
                Err(error @ InvalidOrder::Anonymous(_)) => self.complain(topic, &error),
            },
            NodeTopic::ControlDelete => match serde_json::from_slice::<Delete>(payload) {
                Ok(delete) => {
                    let name = InstanceName { service: delete.job_name, number: delete.instance_number };
                    Some(Incoming::Command(Command::Delete(name)))
                }
                Err(error) => self.complain(topic, &error),
            },
            NodeTopic::ControlError => {
                let message = String::from_utf8_lossy(payload).chars().take(200).collect();
                Some(Incoming::Forgotten(message))
            }
            _ => None,
        }
    }

    fn complain(&mut self, topic: &str, error: &dyn std::error::Error) -> Option<Incoming> {
        let complaint = format!("{topic}: {}", chain(error));
        if self.complaints.len() < COMPLAINTS_MAX && self.complaints.insert(complaint) {
            tracing::warn!(topic, error = chain(error), "malformed message is ignored");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Inbox, Incoming};

    const NODE: &str = "nodes/6b033dc62c1f07cbdcd88440";

    #[test]
    fn commands_are_read() {
        let mut inbox = Inbox::default();
        let mut read =
            |kind: &str, payload: &str| inbox.read(&format!("{NODE}/control/{kind}"), payload.as_bytes());
        let deploy = r#"{"job_name":"a.b.c.d","instance_number":0,"code":"x"}"#;
        assert!(matches!(read("deploy", deploy), Some(Incoming::Command(Command::Deploy(_)))));
        let unikernel =
            r#"{"job_name":"a.b.c.d","instance_number":0,"code":"x","virtualization":"unikernel"}"#;
        assert!(matches!(read("deploy", unikernel), Some(Incoming::Command(Command::Refuse(..)))));
        let delete = r#"{"job_name":"smp.bed.srv.bed","virtualization":"docker","instance_number":4}"#;
        let Some(Incoming::Command(Command::Delete(name))) = read("delete", delete) else { panic!() };
        assert_eq!(name.to_string(), "smp.bed.srv.bed.instance.4");
        assert!(matches!(read("error", r#"{"message":"unknown"}"#), Some(Incoming::Forgotten(_))));
    }

    #[test]
    fn nonsense_is_ignored_and_told_of_once() {
        let mut inbox = Inbox::default();
        for _ in 0..3 {
            for payload in ["", "{", "[]", "\u{0}", r#"{"job_name":"x"}"#] {
                assert!(inbox.read(&format!("{NODE}/control/deploy"), payload.as_bytes()).is_none());
                assert!(inbox.read(&format!("{NODE}/control/delete"), payload.as_bytes()).is_none());
            }
        }
        assert!(inbox.complaints.len() <= 10, "{:?}", inbox.complaints);
        assert!(inbox.read("jobs/x/updates_available", b"{}").is_none());
    }
}
