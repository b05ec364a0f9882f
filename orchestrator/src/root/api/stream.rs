//! What changes, as server-sent events.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use protocol::overview::Overview;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::guard;
use crate::root::Root;
use crate::root::access::{Caller, EVERYBODY, Rule};
use crate::root::failure::Failure;
use crate::root::stream::{News, Topic};

/// So that whoever stands between finds the connection alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
const RESUME: &str = "last-event-id";

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    topics: String,
}

/// What changes, as server-sent events: `hello`, then for each topic a `snapshot` (`data`: all documents), then a `delta`
/// (`upsert`: documents that are new or different, `remove`: ids) at each change. Who comes back with the last event's id
/// is told what has changed since. A slow reader is told of each thing once, as it is then. Histories and logs are
/// empty. `events` are the last 1000 things that have happened since the root was started; those that fall out are removed.
#[utoipa::path(get, path = "/v1/stream", tag = "status",
    params(("topics" = Option<String>, Query, description = "some of applications, clusters, events, services, workers and status, separated by commas; without: all", pattern = "^[a-z,]*$"),
        ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, description = "the events, without end", body = String, content_type = "text/event-stream"),
        (status = 400, description = "there is no such topic"), (status = 503, description = "too many listen already")))]
pub(super) async fn listen(
    State(root): State<Arc<Root>>,
    caller: Caller,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(asked) =
        asked.map_err(|error| Failure::Malformed(format!("The query is not valid: {error}.")))?;
    let topics = topics(&asked.topics)?;
    let place = Arc::clone(&root.streams.listeners).try_acquire_owned();
    let place = place.map_err(|_all_taken| Failure::Listeners)?;
    let known = headers.get(RESUME).and_then(|id| id.to_str().ok());
    let known = known.and_then(|id| id.strip_prefix(&format!("{}-", root.streams.epoch))?.parse().ok());
    let stop = root.streams.stop.clone();
    let listener = Listener {
        token: guard::bearer(&headers)?.to_owned(),
        root,
        caller,
        topics,
        known,
        status: None,
        pause: None,
        queue: VecDeque::new(),
        _place: place,
    };
    let events = stream::unfold(listener, Listener::next).take_until(stop.cancelled_owned());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)).into_response())
}

fn topics(text: &str) -> Result<BTreeSet<Topic>, Failure> {
    let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Ok(Topic::ALL.into());
    }
    let topic = |name: &&str| Topic::named(name).ok_or(());
    names.iter().map(topic).collect::<Result<_, ()>>().map_err(|()| {
        let all = Topic::ALL.map(Topic::name).join(", ");
        Failure::Malformed(format!("topics: expected some of {all}, separated by commas."))
    })
}

/// One who listens.
struct Listener {
    root: Arc<Root>,
    /// Looked at again each time: what was revoked is good for nothing more.
    token: String,
    caller: Caller,
    topics: BTreeSet<Topic>,
    /// What he was told of last.
    known: Option<u64>,
    status: Option<Overview>,
    /// Until the next look; nothing before the first.
    pause: Option<Duration>,
    queue: VecDeque<Event>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some((Ok(event), self));
            }
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
            }
            if let Err(failure) = self.look().await {
                tracing::debug!(user = %self.caller.name, %failure, "somebody is told no more of what changes");
                return None;
            }
        }
    }

    async fn look(&mut self) -> Result<(), Failure> {
        let caller = self.root.caller(&self.token).await?;
        Rule::One(EVERYBODY).check(&caller, None)?;
        if caller != self.caller {
            // He may see something else now.
            (self.caller, self.known, self.status) = (caller, None, None);
        }
        let is_first = self.pause.is_none();
        let (mut events, revision) = {
            let looked = self.root.look().await?;
            self.pause = Some(looked.pause);
            let revision = looked.ledger.revision();
            let mut events = Vec::new();
            if is_first {
                let hello = json!({ "rev": revision, "throttle_ms": looked.pause.as_millis() });
                events.push(Event::default().event("hello").data(hello.to_string()));
            }
            for topic in self.topics.iter().filter(|topic| **topic != Topic::Status) {
                let news = looked.ledger.since(self.known, *topic, &self.caller);
                if !news.is_none() {
                    events.push(event(*topic, revision, &news));
                }
            }
            (events, revision)
        };
        if self.topics.contains(&Topic::Status) && (self.status.is_none() || self.known != Some(revision)) {
            let overview = self.root.overview(&self.caller).await?;
            if self.status.as_ref() != Some(&overview) {
                let data = json!({ "topic": Topic::Status.name(), "rev": revision, "data": [overview] });
                events.push(Event::default().event("snapshot").data(data.to_string()));
                self.status = Some(overview);
            }
        }
        self.known = Some(revision);
        // Who has read the last one has read all.
        if let Some(last) = events.pop() {
            events.push(last.id(format!("{}-{revision}", self.root.streams.epoch)));
        }
        self.queue.extend(events);
        Ok(())
    }
}

fn event(topic: Topic, revision: u64, news: &News) -> Event {
    let (name, mut data): (_, Value) = match news {
        News::Snapshot(documents) => ("snapshot", json!({ "data": plain(documents) })),
        News::Delta { upsert, remove } => ("delta", json!({ "upsert": plain(upsert), "remove": remove })),
    };
    (data["topic"], data["rev"]) = (json!(topic.name()), json!(revision));
    Event::default().event(name).data(data.to_string())
}

fn plain(documents: &[Arc<Value>]) -> Vec<&Value> {
    documents.iter().map(|document| &**document).collect()
}
