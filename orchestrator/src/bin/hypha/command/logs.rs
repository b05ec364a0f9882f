//! `logs`: what instances wrote, each line with the instance's name in front where there are several.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::id::Id;
use serde_json::json;

use crate::api::ApiError;
use crate::args::{Kind, Logs};
use crate::context::Context;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::name::Target;
use crate::output::Format;
use crate::tail::Tail;
use crate::terminal::Terminal;
use crate::view::count;
use orchestrator::standing::counts;

const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn logs(context: &Context, arguments: &Logs) -> Result<(), Failure> {
    let client = context.client()?;
    let mut fleet = Fleet::fetch(&client).await?;
    let kinds = [Kind::App, Kind::Service, Kind::Instance];
    let find = |name: &String| fleet.names().find(name, &kinds);
    let targets = arguments.names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let mut reader = Reader { context, single: is_single(&targets), tails: BTreeMap::new() };
    if !arguments.follow {
        return reader.once(&fleet, &targets);
    }
    let mut cut_off = false;
    loop {
        if reader.follow(&fleet, &targets).is_err() {
            // The reader of the pipe has enough.
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        match Fleet::fetch(&client).await {
            Ok(now) => {
                fleet = now;
                cut_off = false;
            }
            Err(ApiError::Unreachable(error)) => {
                if !std::mem::replace(&mut cut_off, true) {
                    context.terminal.warn(&format!("{error}; trying again"));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_single(targets: &[Target]) -> bool {
    matches!(targets, [Target::Instance(..)])
}

struct Reader<'a> {
    context: &'a Context,
    /// One instance needs no name in front of each line.
    single: bool,
    tails: BTreeMap<(Id, u32), Tail>,
}

/// An instance that is asked for, and the end of its log.
struct Window<'a> {
    key: (Id, u32),
    label: String,
    text: &'a str,
}

fn windows<'a>(fleet: &'a Fleet, targets: &[Target]) -> Vec<Window<'a>> {
    let mut windows = Vec::new();
    for service in &fleet.services {
        for instance in service.instance_list.iter().filter(|instance| counts(instance)) {
            let of = Target::Instance(service.id, instance.instance_number);
            let path = [Target::App(service.application_id), Target::Service(service.id), of];
            if targets.iter().any(|target| path.contains(target)) {
                let key = (service.id, instance.instance_number);
                windows.push(Window { key, label: fleet.names().label(of), text: &instance.logs });
            }
        }
    }
    windows
}

impl Reader<'_> {
    fn once(&mut self, fleet: &Fleet, targets: &[Target]) -> Result<(), Failure> {
        let windows = windows(fleet, targets);
        let silent = windows.iter().filter(|window| window.text.is_empty()).count();
        let mut lines = Vec::new();
        for window in &windows {
            let tail = self.tails.entry(window.key).or_default();
            lines.extend(tail.advance(window.text).lines.into_iter().map(|line| (window, line)));
            lines.extend(tail.finish().map(|line| (window, line)));
        }
        let text = if self.context.global.output == Format::Json {
            let lines = lines.iter().map(|(window, line)| json!({ "instance": window.label, "line": line }));
            format!("{:#}", lines.collect::<serde_json::Value>())
        } else {
            let width = widest(&windows);
            lines.iter().map(|(window, line)| self.line(window, width, line)).collect::<Vec<_>>().join("\n")
        };
        Terminal::answer(&text)?;
        if silent > 0 {
            let said = format!(
                "{} wrote nothing that the root has, it learns of it every few seconds",
                count(silent, "instance")
            );
            self.context.terminal.say(&said);
        }
        Ok(())
    }

    /// Prints what is new. An error says that nobody reads.
    fn follow(&mut self, fleet: &Fleet, targets: &[Target]) -> std::io::Result<()> {
        let windows = windows(fleet, targets);
        let width = widest(&windows);
        for window in &windows {
            let news = self.tails.entry(window.key).or_default().advance(window.text);
            if news.gap {
                self.context.terminal.say(&format!("{}: lines may be missing here", window.label));
            }
            for line in &news.lines {
                Terminal::stream(&self.line(window, width, line))?;
            }
        }
        // What an instance that is gone did not end will not be ended.
        let there = |key: &(Id, u32)| windows.iter().any(|window| window.key == *key);
        self.tails.retain(|key, _| there(key));
        Ok(())
    }

    fn line(&self, window: &Window<'_>, width: usize, line: &str) -> String {
        if self.context.global.output.is_json() {
            return json!({ "instance": window.label, "line": line }).to_string();
        }
        if self.single {
            return line.to_owned();
        }
        let (service, number) = window.key;
        let colour = service.as_bytes().iter().map(|byte| usize::from(*byte)).sum::<usize>();
        let colour = colour.wrapping_add(usize::try_from(number).unwrap_or_default());
        let label = self.context.terminal.stdout_paint().nth(colour, &format!("{:width$}", window.label));
        format!("{label}  {line}")
    }
}

fn widest(windows: &[Window<'_>]) -> usize {
    windows.iter().map(|window| window.label.len()).max().unwrap_or_default()
}
