//! The questions that rmqtt asks, answered by the rules of [`access`](super::super::access).

use std::sync::Arc;

use async_trait::async_trait;
use protocol::id::Id;
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::types::{
    AuthResult, ConnectInfo, LastWill, Publish, PublishAclResult, Subscribe, SubscribeAclResult,
};
use tokio::sync::mpsc;

use crate::broker::access::{Client, Roster, may_publish, may_subscribe};
use crate::broker::complaints::Complained;
use crate::broker::{Event, Message};

/// One handler for every hook; rmqtt calls it from the task of the connection concerned. Waiting for room in
/// `events` therefore slows down that one connection, which is the flow control that a worker gets.
#[derive(Debug)]
pub(super) struct Hooks {
    roster: Roster,
    events: mpsc::Sender<Event>,
    complained: Complained,
}

const HOOKS: [Type; 6] = [
    Type::ClientAuthenticate,
    Type::MessagePublishCheckAcl,
    Type::ClientSubscribeCheckAcl,
    Type::SessionSubscribed,
    Type::SessionUnsubscribed,
    Type::ClientDisconnected,
];

impl Hooks {
    pub(super) fn new(roster: Roster, events: mpsc::Sender<Event>) -> Self {
        Self { roster, events, complained: Complained::default() }
    }

    pub(super) async fn install(self, context: &ServerContext) {
        let shared = Arc::new(self);
        let register = context.extends.hook_mgr().register();
        for kind in HOOKS {
            register.add(kind, Box::new(Shared(Arc::clone(&shared)))).await;
        }
        register.start().await;
    }

    fn authenticate(&self, connect: &ConnectInfo) -> Result<(), Refused> {
        let client = Client::parse(connect.client_id()).ok_or(Refused::NoNode)?;
        if !self.roster.contains(client.node) {
            return Err(Refused::Unregistered);
        }
        // rmqtt publishes a last will without asking the publish hook, so a will is judged here.
        let will = match connect.last_will() {
            None => return Ok(()),
            Some(LastWill::V3(will)) => &will.topic,
            Some(LastWill::V5(will)) => &will.topic,
        };
        may_publish(client.node, will).map(|_own_topic| ()).ok_or(Refused::ForeignWill)
    }

    fn subscription(&self, client_id: &str, subscribe: &Subscribe) -> SubscribeAclResult {
        let filter = &subscribe.topic_filter;
        if Client::parse(client_id).is_some_and(|client| may_subscribe(client.node, filter)) {
            return SubscribeAclResult::new_success(subscribe.opts.qos(), None);
        }
        if self.complained.first(client_id, filter) {
            tracing::warn!(client = %client_id, %filter, "mqtt subscription refused");
        }
        SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
    }

    async fn publish(&self, node: Id, publish: &Publish) -> Verdict {
        let Some(topic) = may_publish(node, &publish.topic) else {
            return Verdict::Refused;
        };
        let message = Message { node, topic, payload: publish.payload.to_vec() };
        self.tell(Event::Message(message)).await;
        Verdict::Taken
    }

    /// The receiver is gone only while the process stops; there is nobody left to tell then.
    async fn tell(&self, event: Event) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("broker event after the cluster has stopped");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Taken,
    Refused,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Refused {
    #[error("the client id is not that of a node")]
    NoNode,
    #[error("the node is not registered here")]
    Unregistered,
    #[error("the last will is for a topic that is not the node's own")]
    ForeignWill,
}

struct Shared(Arc<Hooks>);

#[async_trait]
impl Handler for Shared {
    async fn hook(&self, parameter: &Parameter, previous: Option<HookResult>) -> ReturnType {
        let hooks = &self.0;
        let result = match parameter {
            Parameter::ClientAuthenticate(connect) => {
                let verdict = match hooks.authenticate(connect) {
                    Ok(()) => AuthResult::Allow(false, None),
                    Err(reason) => {
                        let client = connect.client_id();
                        if hooks.complained.first(client, "connect") {
                            let from = connect.ipaddress().map(|address| address.to_string());
                            tracing::warn!(%client, ?from, %reason, "mqtt client refused");
                        }
                        AuthResult::NotAuthorized
                    }
                };
                HookResult::AuthResult(verdict)
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                let verdict = match Client::parse(&session.id.client_id) {
                    Some(client) => hooks.publish(client.node, publish).await,
                    None => Verdict::Refused,
                };
                HookResult::PublishAclResult(match verdict {
                    Verdict::Taken => PublishAclResult::allow(),
                    Verdict::Refused => {
                        let (client, topic) = (&session.id.client_id, &publish.topic);
                        if hooks.complained.first(client, topic) {
                            tracing::warn!(%client, %topic, "mqtt publish refused");
                        }
                        // MQTT 3.1.1 has no word for "not allowed" here: the message is acknowledged and dropped.
                        PublishAclResult::rejected(false, None)
                    }
                })
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                HookResult::SubscribeAclResult(hooks.subscription(&session.id.client_id, subscribe))
            }
            Parameter::SessionSubscribed(session, subscribe) => {
                if let Some(client) = Client::parse(&session.id.client_id) {
                    let filter = subscribe.topic_filter.to_string();
                    hooks.tell(Event::Subscribed { client, filter }).await;
                }
                return (true, previous);
            }
            Parameter::SessionUnsubscribed(session, unsubscribe) => {
                if let Some(client) = Client::parse(&session.id.client_id) {
                    let filter = unsubscribe.topic_filter.to_string();
                    hooks.tell(Event::Unsubscribed { client, filter }).await;
                }
                return (true, previous);
            }
            Parameter::ClientDisconnected(session, reason) => {
                if let Some(client) = Client::parse(&session.id.client_id) {
                    tracing::debug!(client = %session.id.client_id, %reason, "mqtt client gone");
                    hooks.tell(Event::Disconnected { client }).await;
                }
                return (true, previous);
            }
            _ => return (true, previous),
        };
        (false, Some(result))
    }
}
