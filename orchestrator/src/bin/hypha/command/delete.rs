//! `delete`: says what goes, asks if somebody is there, and waits until it is gone.

use std::time::{Duration, Instant};

use crate::api::{ApiError, Client};
use crate::args::{Delete, Kind};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::name::Target;
use crate::rollout::seconds;
use crate::terminal::Terminal;
use crate::view::count;
use orchestrator::standing::counts;

const PAUSE: Duration = Duration::from_millis(300);

pub(crate) async fn delete(context: &Context, arguments: &Delete) -> Result<(), Failure> {
    let client = context.client()?;
    let fleet = Fleet::fetch(&client).await?;
    let mut targets = Vec::new();
    for text in &arguments.targets {
        let target = find(&fleet, text)?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let what = inventory(&fleet, &targets);
    if !arguments.yes {
        confirm(&what).await?;
    }
    context.terminal.say(&format!("deleting {what}"));
    for &target in &targets {
        let deleted = match target {
            Target::App(id) => client.delete_app(id).await,
            Target::Service(id) => client.delete_service(id).await,
            Target::Instance(id, number) => client.stop_instance(id, number).await,
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
    let labels: Vec<_> = targets.iter().map(|target| name(&fleet, *target)).collect();
    gone(context, &client, &targets, &labels, arguments.patience.timeout).await
}

/// `KIND/NAME` as it is typed.
fn find(fleet: &Fleet, text: &str) -> Result<Target, Failure> {
    let usage = |title: String| {
        Failure::new(Exit::Usage, title).hint("hypha delete app/NAME, service/NAME or instance/NAME/N")
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
    if kind == Kind::Worker {
        return Err(usage(
            "a worker leaves when its node-engine stops; it cannot be deleted here".to_owned(),
        ));
    }
    Ok(fleet.names().find(name, &[kind])?)
}

fn name(fleet: &Fleet, target: Target) -> String {
    format!("{}/{}", target.kind().singular(), fleet.names().label(target))
}

/// `app/shop, service/hello/web: 4 services, 9 instances`
fn inventory(fleet: &Fleet, targets: &[Target]) -> String {
    let covered =
        |app, service| targets.contains(&Target::App(app)) || targets.contains(&Target::Service(service));
    let services: Vec<_> =
        fleet.services.iter().filter(|service| covered(service.application_id, service.id)).collect();
    let of_services: usize = services
        .iter()
        .map(|service| service.instance_list.iter().filter(|instance| counts(instance)).count())
        .sum();
    let single = targets
        .iter()
        .filter(|target| match target {
            Target::Instance(id, _) => !services.iter().any(|service| service.id == *id),
            Target::App(_) | Target::Service(_) => false,
        })
        .count();
    let names: Vec<_> = targets.iter().map(|target| name(fleet, *target)).collect();
    let (services, instances) = (count(services.len(), "service"), count(of_services + single, "instance"));
    format!("{}: {services}, {instances}", names.join(", "))
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

/// Waits until the root has none of `targets` any more.
async fn gone(
    context: &Context,
    client: &Client,
    targets: &[Target],
    labels: &[String],
    timeout: Duration,
) -> Result<(), Failure> {
    let start = Instant::now();
    let mut waiting: Vec<_> = targets.iter().zip(labels).collect();
    context.terminal.on_interrupt("stopped watching, the deletion goes on  hypha get instances");
    loop {
        let fleet = match Fleet::fetch(client).await {
            Ok(fleet) => fleet,
            // It is asked for and goes on, so a root that is away for a moment is waited for.
            Err(ApiError::Unreachable(_)) if start.elapsed() < timeout => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        waiting.retain(|(target, label)| {
            let there = is_there(&fleet, **target);
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

fn is_there(fleet: &Fleet, target: Target) -> bool {
    match target {
        Target::App(id) => fleet.apps.iter().any(|app| app.id == id),
        Target::Service(id) => fleet.service(id).is_some(),
        Target::Instance(id, number) => fleet.service(id).is_some_and(|service| {
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

    use super::{Fleet, Target, find, inventory};
    use crate::exit::Exit;
    use crate::sample;

    fn fleet() -> Fleet {
        let apps = vec![sample::app(1, "hello", "demo")];
        let mut web = sample::service(&apps[0], 11, "web");
        web.instance_list = vec![Instance::new(0, Status::Running), Instance::new(1, Status::Failed)];
        let client = sample::service(&apps[0], 12, "client");
        Fleet { apps, services: vec![web, client], ..Fleet::default() }
    }

    #[test]
    fn what_goes_is_counted() {
        let fleet = fleet();
        let counted = |texts: &[&str]| {
            let targets: Vec<_> = texts.iter().map(|text| find(&fleet, text).unwrap()).collect();
            inventory(&fleet, &targets)
        };
        assert_eq!(counted(&["app/hello"]), "app/hello: 2 services, 2 instances");
        assert_eq!(
            counted(&["svc/web", "i/web/1"]),
            "service/hello/web, instance/hello/web/1: 1 service, 2 instances"
        );
        assert_eq!(counted(&["instance/web/1"]), "instance/hello/web/1: 0 services, 1 instance");
    }

    #[test]
    fn a_target_has_a_kind_that_can_be_deleted() {
        let fleet = fleet();
        assert_eq!(find(&fleet, "service/hello/web").unwrap(), Target::Service(sample::id(11)));
        for text in ["web", "pod/web", "cluster/home"] {
            assert_eq!(find(&fleet, text).unwrap_err().exit, Exit::Usage, "{text}");
        }
        assert_eq!(find(&fleet, "app/nope").unwrap_err().exit, Exit::NotFound);
    }
}
