//! From the bytes of an MQTT message to an event. What cannot be read is logged once per node and topic, and ignored:
//! a worker that sends rubbish every 2 s must not fill the log.

use std::collections::HashSet;
use std::time::Instant;

use protocol::id::Id;
use protocol::topic::{NodeTopic, parse_updates_available};
use serde::de::DeserializeOwned;

use super::directory::Subject;
use super::state::State;
use crate::broker::access::{Client, Daemon};
use crate::broker::{Event, Message};

#[derive(Debug, Default)]
pub(super) struct Intake {
    complained: HashSet<(Id, NodeTopic)>,
}

impl Intake {
    pub(super) fn take(&mut self, state: &mut State, event: Event, now: Instant) {
        match event {
            Event::Message(message) => self.message(state, &message, now),
            Event::Subscribed { client, filter } => subscribed(state, client, &filter, now),
            Event::Unsubscribed { client, filter } => {
                if let Some(subject) = parse_updates_available(&filter).and_then(Subject::parse) {
                    state.updates_unwanted(client.node, &subject);
                }
            }
            // A worker that lost its connection may be back in a moment; one that is not heard is given up by time.
            Event::Disconnected { .. } => {}
            Event::Away => state.hears_nobody(now),
            Event::Back => state.hears_again(now),
        }
    }

    fn message(&mut self, state: &mut State, message: &Message, now: Instant) {
        let node = message.node;
        match message.topic {
            NodeTopic::Information => self.read(message, |report| state.node_report(node, &report, now)),
            NodeTopic::Job => self.read(message, |report| state.instance_report(node, report, now)),
            NodeTopic::Resources => self.read(message, |report| state.resource_report(node, report, now)),
            // Whatever comes with it.
            NodeTopic::Alive => state.still_as_reported(node, now),
            NodeTopic::Subnet => self.read(message, |request| state.subnet_wanted(node, &request, now)),
            NodeTopic::TableQuery => self.read(message, |query| state.table_wanted(node, &query, now)),
            NodeTopic::ServiceDeployed => {
                self.read(message, |deployed| state.address_known(node, deployed, now))
            }
            NodeTopic::ServiceUndeployed => {
                self.read(message, |undeployed| state.address_lost(node, &undeployed, now));
            }
            NodeTopic::AddressChanged => self.read(message, |moved| state.address_moved(node, &moved, now)),
            NodeTopic::InterestRemove => {
                self.read(message, |interest| state.interest_removed(node, &interest, now));
            }
            NodeTopic::NodeItself => self.read(message, |itself| state.node_itself_known(node, &itself, now)),
            NodeTopic::Rtt => self.read(message, |report| state.round_trips_known(node, report, now)),
            NodeTopic::ControlDeploy
            | NodeTopic::ControlDelete
            | NodeTopic::ControlError
            | NodeTopic::SubnetResult
            | NodeTopic::TableResult
            | NodeTopic::RttPeers => {}
        }
    }

    fn read<T: DeserializeOwned>(&mut self, message: &Message, take: impl FnOnce(T)) {
        match serde_json::from_slice(&message.payload) {
            Ok(value) => take(value),
            Err(error) if self.complained.insert((message.node, message.topic)) => {
                let topic = message.topic.of(&message.node);
                tracing::warn!(%topic, %error, "message could not be read; more of the kind are ignored in silence");
            }
            Err(_said_before) => {}
        }
    }
}

fn subscribed(state: &mut State, client: Client, filter: &str, now: Instant) {
    if let Some(subject) = parse_updates_available(filter).and_then(Subject::parse) {
        state.updates_wanted(client.node, &subject);
    } else if client.daemon == Daemon::NodeEngine && filter.contains("/control/") {
        state.worker_listens(client.node, now);
    }
}
