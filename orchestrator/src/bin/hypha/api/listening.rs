//! What changes at the root, as it is told: server-sent events.

use std::collections::VecDeque;

use protocol::id::Id;
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;

use super::{ApiError, Unreachable};
use crate::address::Address;

/// What can be listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Topic {
    Applications,
    Clusters,
    Events,
    Services,
    Workers,
}

impl Topic {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Applications => "applications",
            Self::Clusters => "clusters",
            Self::Events => "events",
            Self::Services => "services",
            Self::Workers => "workers",
        }
    }
}

/// Something that was told.
#[derive(Debug, PartialEq)]
pub(crate) struct News {
    /// There is more of the same moment if this is missing. Who comes back with it is told what changed since.
    pub(crate) moment: Option<String>,
    /// Nothing but the moment, or a sign of life, if this is missing.
    pub(crate) of: Option<(Topic, Change)>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Change {
    /// These are all there are.
    All(Vec<Value>),
    Some {
        upsert: Vec<Value>,
        remove: Vec<Id>,
    },
}

/// An open ear.
#[derive(Debug)]
pub(crate) struct Listening {
    root: Address,
    path: String,
    response: Response,
    received: Vec<u8>,
    events: VecDeque<Event>,
}

impl Listening {
    pub(super) fn new(root: Address, path: String, response: Response) -> Self {
        Self { root, path, response, received: Vec::new(), events: VecDeque::new() }
    }

    /// Waits for what is told next. Nothing: the root has ended it.
    ///
    /// # Errors
    /// The connection is lost, or what came is not what a root tells.
    pub(crate) async fn next(&mut self) -> Result<Option<News>, ApiError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                let news = event.read();
                return news
                    .map(Some)
                    .map_err(|error| ApiError::foreign(&self.root, &self.path, &error.to_string()));
            }
            let chunk = self.response.chunk().await;
            let chunk = chunk.map_err(|source| Unreachable { root: self.root.clone(), source })?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.received.extend(chunk);
            self.events = events(&mut self.received);
        }
    }
}

/// One event as it came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    name: String,
    id: Option<String>,
    data: String,
}

/// Takes the whole events from what was received. Roots end lines by a line feed alone.
fn events(received: &mut Vec<u8>) -> VecDeque<Event> {
    const END: &[u8] = b"\n\n";
    let Some(end) = received.windows(END.len()).rposition(|bytes| bytes == END) else {
        return VecDeque::new();
    };
    let whole: Vec<u8> = received.drain(..end + END.len()).collect();
    String::from_utf8_lossy(&whole).split("\n\n").filter(|text| !text.is_empty()).map(event).collect()
}

fn event(text: &str) -> Event {
    let mut event = Event::default();
    for (field, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.name),
            "id" => event.id = Some(value.to_owned()),
            "data" => {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            // A comment has an empty name.
            _ => {}
        }
    }
    event
}

#[derive(Deserialize)]
struct Snapshot {
    topic: Topic,
    data: Vec<Value>,
}

#[derive(Deserialize)]
struct Delta {
    topic: Topic,
    upsert: Vec<Value>,
    remove: Vec<Id>,
}

impl Event {
    fn read(self) -> Result<News, serde_json::Error> {
        let of = match self.name.as_str() {
            "snapshot" => {
                let Snapshot { topic, data } = serde_json::from_str(&self.data)?;
                Some((topic, Change::All(data)))
            }
            "delta" => {
                let Delta { topic, upsert, remove } = serde_json::from_str(&self.data)?;
                Some((topic, Change::Some { upsert, remove }))
            }
            _ => None,
        };
        Ok(News { moment: self.id, of })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Change, News, Topic, events};
    use crate::sample::id;

    fn read(received: &mut Vec<u8>) -> Vec<News> {
        events(received).into_iter().map(|event| event.read().unwrap()).collect()
    }

    #[test]
    fn events_are_read_however_they_are_cut() {
        let delta =
            json!({ "topic": "services", "rev": 2, "upsert": [{ "name": "wéb" }], "remove": [id(7)] });
        let text = format!(
            "event: hello\ndata: {{\"rev\":1}}\n\n:\n\nevent: snapshot\ndata: {{\"topic\":\"clusters\",\ndata: \"data\":[]}}\n\n\
             event: delta\ndata: {delta}\nid: e-2\n\n"
        );
        let expected = [
            News { moment: None, of: None },
            News { moment: None, of: None },
            News { moment: None, of: Some((Topic::Clusters, Change::All(Vec::new()))) },
            News {
                moment: Some("e-2".to_owned()),
                of: Some((
                    Topic::Services,
                    Change::Some { upsert: vec![json!({ "name": "wéb" })], remove: vec![id(7)] },
                )),
            },
        ];
        for step in 1..text.len() {
            let (mut received, mut told) = (Vec::new(), Vec::new());
            for chunk in text.as_bytes().chunks(step) {
                received.extend(chunk);
                told.extend(read(&mut received));
            }
            assert_eq!(told, expected, "in chunks of {step} bytes");
            assert_eq!(received, b"");
        }
    }

    #[test]
    fn what_is_no_news_is_said_to_be_so() {
        let mut received = b"event: delta\ndata: {\"topic\":\"weather\"}\n\n".to_vec();
        assert!(events(&mut received).remove(0).unwrap().read().is_err());
    }
}
