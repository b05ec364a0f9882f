//! `events`: what has happened, the latest last; with `-w` also what happens from then on.

use std::time::Duration;

use orchestrator::clock::iso8601;
use protocol::event::{Event, Severity};
use protocol::id::Id;
use serde_json::Value;

use crate::api::{ApiError, Change, Client, Topic};
use crate::args::Events;
use crate::command::get::now;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Column, Field, Format, Listing, Mood, Row};
use crate::terminal::Terminal;
use crate::view::age;

/// Between two attempts to reach a root that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

const COLUMNS: &[Column] =
    &[Column::number("AGE"), Column::text("SUBJECT"), Column::text("EVENT"), Column::text("MESSAGE")];

pub(crate) async fn events(context: &Context, arguments: &Events) -> Result<(), Failure> {
    let client = context.client()?;
    let (mut moment, mut last) = (None, None);
    let mut cut_off = false;
    loop {
        match listen(context, &client, arguments, &mut moment, &mut last).await {
            Ok(End::Enough) => return Ok(()),
            Ok(End::Silence) => cut_off = false,
            // Who has heard something already hears on when the root is back.
            Err(Cut::Unreachable(error)) if last.is_some() => {
                if !std::mem::replace(&mut cut_off, true) {
                    context.terminal.warn(&format!("{error}; trying again"));
                }
            }
            Err(Cut::Unreachable(error)) => return Err(error.into()),
            Err(Cut::Failed(failure)) => return Err(failure),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

enum End {
    /// All is told that was asked for, or nobody reads it.
    Enough,
    /// The connection has ended.
    Silence,
}

enum Cut {
    Unreachable(ApiError),
    Failed(Failure),
}

impl From<ApiError> for Cut {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unreachable(_) => Self::Unreachable(error),
            other => Self::Failed(other.into()),
        }
    }
}

/// Tells what comes over one connection.
async fn listen(
    context: &Context,
    client: &Client,
    arguments: &Events,
    moment: &mut Option<String>,
    last: &mut Option<Id>,
) -> Result<End, Cut> {
    let mut listening = client.listen(&[Topic::Events], moment.as_deref()).await?;
    loop {
        let news = match listening.next().await {
            Ok(Some(news)) => news,
            Ok(None) | Err(ApiError::Unreachable(_)) => return Ok(End::Silence),
            Err(error) => return Err(error.into()),
        };
        if let Some(now) = news.moment {
            // Another root, whose ids may begin before those of the one that was heard.
            if moment.as_deref().is_some_and(|before| epoch(before) != epoch(&now)) {
                *last = None;
            }
            *moment = Some(now);
        }
        let Some((Topic::Events, change)) = news.of else { continue };
        let (Change::All(told) | Change::Some { upsert: told, .. }) = change;
        let all = read(told, *last).map_err(Cut::Failed)?;
        // Nothing, too, is something that was heard.
        *last = all.last().map(|(event, _)| event.id).or(*last).or(Some(Id::from_bytes([0; 12])));
        let shown = all.into_iter().filter(|(event, _)| is_meant(event, &arguments.subjects));
        if !arguments.watch {
            let listing = Listing {
                columns: COLUMNS,
                rows: shown.map(|(event, raw)| row(&event, raw, now())).collect(),
            };
            context.list(&listing, "nothing has happened since the root was started").map_err(Cut::Failed)?;
            return Ok(End::Enough);
        }
        let lines = shown.map(|(event, raw)| line(context.global.output, &event, &raw));
        if lines.map(|line| Terminal::stream(&line)).any(|outcome| outcome.is_err()) {
            // The reader of the pipe has enough.
            return Ok(End::Enough);
        }
    }
}

/// Which root has said it.
fn epoch(moment: &str) -> &str {
    moment.split_once('-').map_or(moment, |(epoch, _)| epoch)
}

/// Those that are later than the last one that was told, in order.
fn read(told: Vec<Value>, last: Option<Id>) -> Result<Vec<(Event, Value)>, Failure> {
    let mut all = Vec::with_capacity(told.len());
    for raw in told {
        let event: Event = serde_json::from_value(raw.clone())
            .map_err(|error| Failure::new(Exit::Failed, format!("an event cannot be read: {error}")))?;
        if last.is_none_or(|last| event.id > last) {
            all.push((event, raw));
        }
    }
    all.sort_by_key(|(event, _)| event.id);
    Ok(all)
}

/// `instance/shop/web/2`
fn subject(event: &Event) -> String {
    format!("{}/{}", event.subject.kind.word(), event.subject.name)
}

/// Whether it is about one of these, or of something in one: `shop` means `instance/shop/web/2`, too. No names mean all.
fn is_meant(event: &Event, names: &[String]) -> bool {
    let path = format!("/{}/", subject(event));
    names.is_empty() || names.iter().any(|name| path.contains(&format!("/{name}/")))
}

fn row(event: &Event, document: Value, now: f64) -> Row {
    let mood = match event.severity {
        Severity::Info => Mood::Plain,
        Severity::Warning => Mood::Changing,
        Severity::Error => Mood::Bad,
    };
    let name = subject(event);
    Row {
        fields: vec![
            age(now, event.ts).into(),
            name.as_str().into(),
            Field::mood(event.code.word(), mood),
            event.message.as_str().into(),
        ],
        name,
        document,
    }
}

fn line(format: Format, event: &Event, raw: &Value) -> String {
    match format {
        Format::Table | Format::Wide => {
            let time = iso8601(event.ts);
            let time = time.split('.').next().unwrap_or_default();
            let line = format!("{time}Z  {}  {}  {}", subject(event), event.code.word(), event.message);
            crate::terminal::plain(line.trim_end())
        }
        Format::Name => subject(event),
        Format::Json | Format::Jsonl | Format::Yaml => raw.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::event::{Code, Event, Kind, Subject};
    use protocol::id::Id;
    use serde_json::{Value, json};

    use super::{COLUMNS, Listing, is_meant, line, read, row};
    use crate::output::{Format, Frame, render};

    fn event(number: u8, kind: Kind, name: &str, code: Code, message: &str) -> Event {
        let subject = Subject { kind, id: Id::from_bytes([7; 12]), name: name.to_owned() };
        let (id, ts) = (Id::from_bytes([number; 12]), 1_795_374_561.25 + f64::from(number));
        Event { id, ts, severity: code.severity(), subject, code, message: message.to_owned() }
    }

    fn some() -> Vec<Event> {
        vec![
            event(1, Kind::Service, "shop/web", Code::Created, "docker.io/library/nginx:1"),
            event(2, Kind::Instance, "shop/web/2", Code::Placed, "on berlin/pi-7"),
            event(9, Kind::Worker, "berlin/pi-7", Code::Dead, "silent for 30 s; its instances go elsewhere"),
        ]
    }

    #[test]
    fn events_are_listed_and_told_line_by_line() {
        let rows = some().iter().map(|event| row(event, Value::Null, 1_795_374_621.25)).collect();
        let frame = Frame { width: Some(80), colours: false, headers: true };
        let text = render(&Listing { columns: COLUMNS, rows }, Format::Table, frame);
        let expected = " \
 AGE  SUBJECT              EVENT    MESSAGE
59 s  service/shop/web     created  docker.io/library/nginx:1
58 s  instance/shop/web/2  placed   on berlin/pi-7
51 s  worker/berlin/pi-7   dead     silent for 30 s; its instances go elsewhere";
        assert_eq!(text, expected, "\n{text}");
        let told = line(Format::Table, &some()[2], &Value::Null);
        assert_eq!(
            told,
            "2026-11-22T19:09:30Z  worker/berlin/pi-7  dead  silent for 30 s; its instances go elsewhere"
        );
        assert_eq!(line(Format::Jsonl, &some()[0], &json!({ "id": 1 })), r#"{"id":1}"#);
    }

    #[test]
    fn a_name_means_what_is_in_it_too() {
        let meant = |name: &str| {
            let all = some();
            let meant = all.iter().filter(|event| is_meant(event, &[name.to_owned()]));
            meant.map(|event| event.subject.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(meant("shop"), ["shop/web", "shop/web/2"]);
        assert_eq!(meant("web/2"), ["shop/web/2"]);
        assert_eq!(meant("instance"), ["shop/web/2"]);
        assert_eq!(meant("pi-7"), ["berlin/pi-7"]);
        assert_eq!(meant("worker/berlin"), ["berlin/pi-7"]);
        assert_eq!(meant("we"), [""; 0]);
        assert!(some().iter().all(|event| is_meant(event, &[])));
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let told: Vec<_> = some().iter().rev().map(|event| json!(event)).collect();
        let ids = |last| {
            let all = read(told.clone(), last).unwrap();
            all.into_iter().map(|(event, _)| event.subject.name).collect::<Vec<_>>()
        };
        assert_eq!(ids(None), ["shop/web", "shop/web/2", "berlin/pi-7"]);
        assert_eq!(ids(Some(Id::from_bytes([2; 12]))), ["berlin/pi-7"]);
    }
}
