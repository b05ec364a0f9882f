//! What containerd tells by itself: tasks that end, tasks that ran out of memory.

use std::time::{Duration, SystemTime};

use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use prost::Message;
use prost_types::Any;
use protocol::name::InstanceName;
use tonic::Streaming;

use super::client::{Client, NAMESPACE};
use super::error::RuntimeError;
use super::time::from_timestamp;

const EXIT: &str = "/tasks/exit";
const OUT_OF_MEMORY: &str = "/tasks/oom";
const HELLO: &str = "/hypha/hello";
const HELLO_EVERY: Duration = Duration::from_millis(20);
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Something happened to an instance's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    Exited { name: InstanceName, pid: u32, code: u32, at: SystemTime },
    OutOfMemory { name: InstanceName },
}

/// The stream of events since it was opened. What happened before must be looked up.
#[derive(Debug)]
pub struct Events {
    client: Client,
    stream: Streaming<Envelope>,
}

impl Events {
    /// containerd answers a subscription only with its first event, which may be hours away. So an event of our own is
    /// published until it comes back: then the subscription is known to stand.
    pub(super) async fn open(client: &Client) -> Result<Self, RuntimeError> {
        let filters = [EXIT, OUT_OF_MEMORY, HELLO]
            .map(|topic| format!("namespace=={NAMESPACE},topic==\"{topic}\""))
            .to_vec();
        let mut service = client.events();
        let doing = "subscribe to events";
        let subscribed =
            client.call_within(OPEN_WITHIN, doing, service.subscribe(SubscribeRequest { filters }));
        tokio::pin!(subscribed);
        loop {
            tokio::select! {
                stream = &mut subscribed => return Ok(Self { client: client.clone(), stream: stream? }),
                () = tokio::time::sleep(HELLO_EVERY) => {
                    let hello = PublishRequest { topic: HELLO.to_owned(), event: Some(Any::default()) };
                    client.call("publish an event", client.events().publish(hello)).await?;
                }
            }
        }
    }

    /// The next event of an instance; `None` when containerd ended the stream, as it does when it stops.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<Option<RuntimeEvent>, RuntimeError> {
        loop {
            match self.stream.message().await {
                Ok(Some(envelope)) => {
                    if let Some(event) = read(&envelope) {
                        return Ok(Some(event));
                    }
                }
                Ok(None) => return Ok(None),
                Err(status) => return Err(self.client.error("follow events", status)),
            }
        }
    }
}

/// Events of containers that are not ours, and of processes that somebody runs beside a container's first one, are
/// nothing to us.
fn read(envelope: &Envelope) -> Option<RuntimeEvent> {
    let body = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        EXIT => {
            let exit = TaskExit::decode(body).ok().filter(|exit| exit.id == exit.container_id)?;
            Some(RuntimeEvent::Exited {
                name: exit.container_id.parse().ok()?,
                pid: exit.pid,
                code: exit.exit_status,
                at: from_timestamp(exit.exited_at.as_ref()).unwrap_or_else(SystemTime::now),
            })
        }
        OUT_OF_MEMORY => {
            let event = TaskOom::decode(body).ok()?;
            Some(RuntimeEvent::OutOfMemory { name: event.container_id.parse().ok()? })
        }
        _ => None,
    }
}
