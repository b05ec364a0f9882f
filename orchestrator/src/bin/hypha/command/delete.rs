//! `delete`: says what goes, asks if somebody is there, and waits until it is gone.

use std::time::{Duration, Instant};

use protocol::id::Id;

use crate::api::{ApiError, Client};
use crate::args::{Delete, Kind};
use crate::command::worker;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fleet::{Fleet, Workers};
use crate::name::Target;
use crate::rollout::seconds;
use crate::terminal::Terminal;
use crate::view::count;
use orchestrator::standing::counts;

const PAUSE: Duration = Duration::from_millis(300);

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doomed {
    Thing(Target),
    Worker(Id),
}

/// What there is.
#[derive(Debug, Default)]
struct Seen {
    fleet: Fleet,
    workers: Workers,
}

impl Seen {
    /// Workers only for who has one of them in mind: Oakestra's root does not know any.
    async fn fetch(client: &Client, kinds: &[Kind]) -> Result<Self, ApiError> {
        let workers = async {
            let is_asked = kinds.contains(&Kind::Worker);
            if is_asked { Workers::fetch(client).await } else { Ok(Workers::default()) }
        };
        let (fleet, workers) = futures::try_join!(Fleet::fetch(client), workers)?;
        Ok(Self { fleet, workers })
    }
}

pub(crate) async fn delete(context: &Context, arguments: &Delete) -> Result<(), Failure> {
    let client = context.client()?;
    let named = arguments.targets.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let kinds: Vec<_> = named.iter().map(|(kind, _)| *kind).collect();
    let seen = Seen::fetch(&client, &kinds).await?;
    let mut doomed = Vec::new();
    for (kind, name) in named {
        let target = find(&seen, kind, name)?;
        if !doomed.contains(&target) {
            doomed.push(target);
        }
    }
    let what = inventory(&seen, &doomed);
    if !arguments.yes {
        confirm(&what).await?;
    }
    context.terminal.say(&format!("deleting {what}"));
    for &target in &doomed {
        let deleted = match target {
            Doomed::Thing(Target::App(id)) => client.delete_app(id).await,
            Doomed::Thing(Target::Service(id)) => client.delete_service(id).await,
            Doomed::Thing(Target::Instance(id, number)) => client.stop_instance(id, number).await,
            Doomed::Worker(id) => client.delete_worker(id).await,
        };
        match deleted {
            // Somebody else was faster, or it went with what contained it.
            Ok(()) | Err(ApiError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if arguments.patience.no_wait {
        return Ok(());
    }
    let waiting = doomed.iter().map(|target| (*target, name(&seen, *target))).collect();
    gone(context, &client, &kinds, waiting, arguments.patience.timeout).await
}

/// `KIND/NAME` as it is typed.
fn parse(text: &str) -> Result<(Kind, &str), Failure> {
    let usage = |title: String| {
        Failure::new(Exit::Usage, title)
            .hint("hypha delete app/NAME, service/NAME, instance/NAME/N or worker/NAME")
    };
    let (word, name) =
        text.split_once('/').ok_or_else(|| usage(format!("expected KIND/NAME, got '{text}'")))?;
    let kind = <Kind as clap::ValueEnum>::from_str(word, true)
        .map_err(|_unknown| usage(format!("no kind '{word}'")))?;
    if kind == Kind::Cluster {
        return Err(usage(
            "a cluster leaves when its orchestrator stops; it cannot be deleted here".to_owned(),
        ));
    }
    Ok((kind, name))
}

fn find(seen: &Seen, kind: Kind, name: &str) -> Result<Doomed, Failure> {
    match kind {
        Kind::Worker => Ok(Doomed::Worker(worker::find(&seen.workers, name)?.worker.id)),
        kind => Ok(Doomed::Thing(seen.fleet.names().find(name, &[kind])?)),
    }
}

fn name(seen: &Seen, doomed: Doomed) -> String {
    match doomed {
        Doomed::Thing(target) => {
            format!("{}/{}", target.kind().singular(), seen.fleet.names().label(target))
        }
        Doomed::Worker(id) => {
            let known = seen.workers.workers.iter().find(|of| of.worker.id == id);
            format!("worker/{}", known.map_or_else(|| id.to_string(), |of| of.worker.name.clone()))
        }
    }
}

/// `app/shop, service/hello/web: 4 services, 9 instances`; of workers, what is to go elsewhere.
fn inventory(seen: &Seen, doomed: &[Doomed]) -> String {
    let fleet = &seen.fleet;
    let is_doomed = |target| doomed.contains(&Doomed::Thing(target));
    let covered = |app, service| is_doomed(Target::App(app)) || is_doomed(Target::Service(service));
    let services: Vec<_> =
        fleet.services.iter().filter(|service| covered(service.application_id, service.id)).collect();
    let of_services: usize = services
        .iter()
        .map(|service| service.instance_list.iter().filter(|instance| counts(instance)).count())
        .sum();
    let single = doomed
        .iter()
        .filter(|target| match target {
            Doomed::Thing(Target::Instance(id, _)) => !services.iter().any(|service| service.id == *id),
            Doomed::Thing(Target::App(_) | Target::Service(_)) | Doomed::Worker(_) => false,
        })
        .count();
    let workers = seen.workers.workers.iter().filter(|of| doomed.contains(&Doomed::Worker(of.worker.id)));
    let workers: Vec<_> = workers.collect();
    let mut parts = Vec::new();
    if workers.len() < doomed.len() {
        parts.extend([count(services.len(), "service"), count(of_services + single, "instance")]);
    }
    if !workers.is_empty() {
        let elsewhere: usize = workers.iter().map(|of| of.worker.instances as usize).sum();
        parts.push(format!(
            "{}, {} to go elsewhere",
            count(workers.len(), "worker"),
            count(elsewhere, "instance")
        ));
    }
    let names: Vec<_> = doomed.iter().map(|target| name(seen, *target)).collect();
    format!("{}: {}", names.join(", "), parts.join(", "))
}

async fn confirm(what: &str) -> Result<(), Failure> {
    if !Terminal::can_ask() {
        let failure =
            Failure::new(Exit::Usage, format!("would delete {what}, and there is no terminal to ask at"));
        return Err(failure.hint("--yes, if that is meant"));
    }
    let sure = Terminal::confirm(&format!("Delete {what}?")).await;
    match sure.map_err(|error| Failure::new(Exit::Failed, format!("ask: {error}")))? {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, "nothing was deleted")),
    }
}

/// Waits until the root has none of these any more.
async fn gone(
    context: &Context,
    client: &Client,
    kinds: &[Kind],
    mut waiting: Vec<(Doomed, String)>,
    timeout: Duration,
) -> Result<(), Failure> {
    let start = Instant::now();
    context.terminal.on_interrupt("stopped watching, the deletion goes on  hypha get instances");
    loop {
        let seen = match Seen::fetch(client, kinds).await {
            Ok(seen) => seen,
            // It is asked for and goes on, so a root that is away for a moment is waited for.
            Err(ApiError::Unreachable(_)) if start.elapsed() < timeout => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        waiting.retain(|(doomed, label)| {
            let there = is_there(&seen, *doomed);
            if !there {
                context.terminal.say(&format!("{:>7}  {label}  gone", seconds(start.elapsed())));
            }
            there
        });
        if waiting.is_empty() {
            return Ok(());
        }
        if start.elapsed() >= timeout {
            let left: Vec<_> = waiting.iter().map(|(_, label)| label.as_str()).collect();
            let title =
                format!("{} still there after {}; the deletion goes on", left.join(", "), seconds(timeout));
            return Err(Failure::new(Exit::TimedOut, title).hint("hypha get instances"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_there(seen: &Seen, doomed: Doomed) -> bool {
    let fleet = &seen.fleet;
    match doomed {
        Doomed::Worker(id) => seen.workers.workers.iter().any(|of| of.worker.id == id),
        Doomed::Thing(Target::App(id)) => fleet.apps.iter().any(|app| app.id == id),
        Doomed::Thing(Target::Service(id)) => fleet.service(id).is_some(),
        Doomed::Thing(Target::Instance(id, number)) => fleet.service(id).is_some_and(|service| {
            service
                .instance_list
                .iter()
                .any(|instance| instance.instance_number == number && counts(instance))
        }),
    }
}

#[cfg(test)]
mod tests {
    use protocol::service::Instance;
    use protocol::status::Status;

    use super::{Doomed, Failure, Fleet, Seen, Target, Workers, inventory, parse};
    use crate::exit::Exit;
    use crate::sample;

    fn seen() -> Seen {
        let apps = vec![sample::app(1, "hello", "demo")];
        let mut web = sample::service(&apps[0], 11, "web");
        web.instance_list = vec![Instance::new(0, Status::Running), Instance::new(1, Status::Failed)];
        let client = sample::service(&apps[0], 12, "client");
        let workers = vec![sample::worker("home", "pi-1", |_| {})];
        Seen {
            fleet: Fleet { apps, services: vec![web, client], ..Fleet::default() },
            workers: Workers { workers, ..Workers::default() },
        }
    }

    fn find(seen: &Seen, text: &str) -> Result<Doomed, Failure> {
        let (kind, name) = parse(text)?;
        super::find(seen, kind, name)
    }

    #[test]
    fn what_goes_is_counted() {
        let seen = seen();
        let counted = |texts: &[&str]| {
            let targets: Vec<_> = texts.iter().map(|text| find(&seen, text).unwrap()).collect();
            inventory(&seen, &targets)
        };
        assert_eq!(counted(&["app/hello"]), "app/hello: 2 services, 2 instances");
        assert_eq!(
            counted(&["svc/web", "i/web/1"]),
            "service/hello/web, instance/hello/web/1: 1 service, 2 instances"
        );
        assert_eq!(counted(&["node/pi-1"]), "worker/pi-1: 1 worker, 3 instances to go elsewhere");
        assert_eq!(
            counted(&["app/hello", "w/home/pi-1"]),
            "app/hello, worker/pi-1: 2 services, 2 instances, 1 worker, 3 instances to go elsewhere"
        );
        assert_eq!(counted(&["instance/web/1"]), "instance/hello/web/1: 0 services, 1 instance");
    }

    #[test]
    fn a_target_has_a_kind_that_can_be_deleted() {
        let seen = seen();
        assert_eq!(find(&seen, "service/hello/web").unwrap(), Doomed::Thing(Target::Service(sample::id(11))));
        for text in ["web", "pod/web", "cluster/home"] {
            assert_eq!(find(&seen, text).unwrap_err().exit, Exit::Usage, "{text}");
        }
        for text in ["app/nope", "worker/pi-9"] {
            assert_eq!(find(&seen, text).unwrap_err().exit, Exit::NotFound, "{text}");
        }
    }
}
