//! `get -w`: a list that goes on.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::mirror::{Mirror, Unreadable};
use super::{Seen, listing, nothing};
use crate::api::{ApiError, Client, Listening, Topic};
use crate::args::{Get, Kind};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Listing, render};
use crate::terminal::Terminal;

/// Between two attempts to reach a root that does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Ages are drawn anew.
const AGES: Duration = Duration::from_secs(1);

/// Until nobody looks any more.
pub(super) async fn watch(context: &Context, client: &Client, arguments: &Get) -> Result<(), Failure> {
    let topics = topics(arguments.kind);
    let mut mirror = Mirror::default();
    let mut view = View::new(context, arguments);
    let mut moment: Option<String> = None;
    loop {
        let mut listening = match client.listen(topics, moment.as_deref()).await {
            Ok(listening) => listening,
            Err(ApiError::NotFound { .. }) => {
                let title = "this root does not tell what changes";
                return Err(Failure::new(Exit::Failed, title).hint("hypha get without -w"));
            }
            Err(ApiError::Unreachable(error)) => {
                if view.cut_off(Some(error.to_string())).is_err() {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        view.cut_off(None).ok();
        loop {
            match hear(&mut listening, topics, &mut mirror, &mut view).await? {
                Heard::News(Some(told)) => moment = Some(told),
                Heard::News(None) => {}
                Heard::Silence => break,
                Heard::NobodyLooks => return Ok(()),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a list of this kind is made of.
const fn topics(kind: Kind) -> &'static [Topic] {
    match kind {
        Kind::App | Kind::Service => &[Topic::Applications, Topic::Services],
        Kind::Instance => &[Topic::Applications, Topic::Services, Topic::Clusters],
        Kind::Cluster => &[Topic::Clusters],
        Kind::Worker => &[Topic::Workers],
    }
}

enum Heard {
    /// With the moment that is known from here on, if it is whole.
    News(Option<String>),
    /// The connection has ended.
    Silence,
    NobodyLooks,
}

async fn hear(
    listening: &mut Listening,
    topics: &[Topic],
    mirror: &mut Mirror,
    view: &mut View<'_>,
) -> Result<Heard, Failure> {
    let news = tokio::select! {
        news = listening.next() => news,
        () = tokio::time::sleep(AGES), if view.has_ages() => {
            return Ok(if view.draw().is_ok() { Heard::News(None) } else { Heard::NobodyLooks });
        }
    };
    let news = match news {
        Ok(Some(news)) => news,
        // It stops, or it has restarted: it will be asked again.
        Ok(None) | Err(ApiError::Unreachable(_)) => return Ok(Heard::Silence),
        Err(error) => return Err(error.into()),
    };
    let unreadable = |error: Unreadable| Failure::new(Exit::Failed, error.to_string());
    if let Some((topic, change)) = news.of {
        mirror.apply(topic, change).map_err(unreadable)?;
    }
    if news.moment.is_some() && mirror.has(topics) {
        let shown = view.show(mirror.seen().map_err(unreadable)?);
        if shown.is_err() {
            return Ok(Heard::NobodyLooks);
        }
    }
    Ok(Heard::News(news.moment))
}

/// Where it is shown.
struct View<'a> {
    context: &'a Context,
    arguments: &'a Get,
    seen: Seen,
    /// A terminal, with what was drawn on it last, or a pipe, with what was told last.
    place: Place,
    /// Why there is nothing new: the root does not answer.
    silence: Option<String>,
}

enum Place {
    Screen { drawn: String },
    Lines { told: BTreeMap<String, Value> },
}

impl<'a> View<'a> {
    fn new(context: &'a Context, arguments: &'a Get) -> Self {
        let is_table = matches!(context.global.output, Format::Table | Format::Wide);
        let place = if is_table && Terminal::height().is_some() {
            Place::Screen { drawn: String::new() }
        } else {
            Place::Lines { told: BTreeMap::new() }
        };
        Self { context, arguments, seen: Seen::default(), place, silence: None }
    }

    const fn has_ages(&self) -> bool {
        matches!(self.place, Place::Screen { .. })
    }

    /// An error tells that nobody looks, here and below.
    fn show(&mut self, seen: Seen) -> io::Result<()> {
        self.seen = seen;
        self.draw()
    }

    fn cut_off(&mut self, why: Option<String>) -> io::Result<()> {
        if self.silence.is_some() == why.is_some() {
            return Ok(());
        }
        self.silence = why;
        match (&self.place, &self.silence) {
            (Place::Screen { .. }, _) => return self.draw(),
            (Place::Lines { .. }, Some(why)) => self.context.terminal.warn(&format!("{why}; trying again")),
            (Place::Lines { .. }, None) => self.context.terminal.say("the root answers again"),
        }
        Ok(())
    }

    fn draw(&mut self) -> io::Result<()> {
        let listing = still(&self.seen, self.arguments);
        match &mut self.place {
            Place::Screen { drawn } => {
                let mut text = render(&listing, self.context.global.output, self.context.frame());
                if listing.rows.is_empty() {
                    nothing(self.arguments.kind).clone_into(&mut text);
                }
                let height = usize::from(Terminal::height().unwrap_or(u16::MAX));
                let text = fitted(&text, self.silence.as_deref(), height);
                if *drawn != text {
                    Terminal::redraw(&text)?;
                    *drawn = text;
                }
                Ok(())
            }
            Place::Lines { told } => {
                changes(told, listing).iter().try_for_each(|line| Terminal::stream(line))
            }
        }
    }
}

/// What there is of what was asked for: names that are gone name nothing.
fn still(seen: &Seen, arguments: &Get) -> Listing {
    let none = Listing { columns: &[], rows: Vec::new() };
    let is_there =
        |name: &String| listing(seen, &Get { names: vec![name.clone()], ..arguments.clone() }).is_ok();
    let names: Vec<_> = arguments.names.iter().filter(|name| is_there(name)).cloned().collect();
    if names.is_empty() && !arguments.names.is_empty() {
        return none;
    }
    listing(seen, &Get { names, ..arguments.clone() }).unwrap_or(none)
}

/// At most so many lines, the last of which stays empty for the cursor.
fn fitted(text: &str, cut_off: Option<&str>, height: usize) -> String {
    let room = height.saturating_sub(1 + usize::from(cut_off.is_some())).max(1);
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    if lines.len() > room {
        let left = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(format!("… {left} more"));
    }
    lines.extend(cut_off.map(|why| format!("{why}; trying again")));
    lines.join("\n")
}

/// A line for each row that is new or different, and for each that is gone.
fn changes(told: &mut BTreeMap<String, Value>, listing: Listing) -> Vec<String> {
    let mut lines = Vec::new();
    let mut gone = std::mem::take(told);
    for row in listing.rows {
        // Two clusters may have a worker of the same name.
        let key = format!("{} {}", row.name, row.document["cluster_id"]);
        if gone.remove(&key).as_ref() != Some(&row.document) {
            lines.push(json!({ "change": "set", "name": row.name, "document": row.document }).to_string());
        }
        told.insert(key, row.document);
    }
    let gone = gone.into_iter().map(|(key, document)| {
        let name = key.split_once(' ').map_or(key.as_str(), |(name, _)| name);
        json!({ "change": "gone", "name": name, "document": document }).to_string()
    });
    lines.extend(gone);
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::{changes, fitted};
    use crate::output::{Listing, Row};

    fn listing(rows: &[(&str, Value)]) -> Listing {
        let row = |(name, document): &(&str, Value)| Row {
            fields: Vec::new(),
            name: (*name).to_owned(),
            document: document.clone(),
        };
        Listing { columns: &[], rows: rows.iter().map(row).collect() }
    }

    #[test]
    fn a_line_is_told_for_each_row_that_is_new_different_or_gone() {
        let mut told = BTreeMap::new();
        let one = |cpu: u8| ("worker/pi", json!({ "cluster_id": 1, "cpu": cpu }));
        let other = ("worker/pi", json!({ "cluster_id": 2, "cpu": 0 }));
        assert_eq!(changes(&mut told, listing(&[one(1), other.clone()])).len(), 2, "of two clusters");
        assert_eq!(changes(&mut told, listing(&[one(1), other.clone()])), [""; 0]);
        let lines = changes(&mut told, listing(&[one(2)]));
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0], json!({ "change": "set", "name": "worker/pi", "document": one(2).1 }));
        assert_eq!(lines[1], json!({ "change": "gone", "name": "worker/pi", "document": other.1 }));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(fitted("a\nb\nc", None, 4), "a\nb\nc");
        assert_eq!(fitted("a\nb\nc", None, 3), "a\n… 2 more");
        assert_eq!(fitted("a\nb\nc", Some("no answer"), 4), "a\n… 2 more\nno answer; trying again");
    }
}
