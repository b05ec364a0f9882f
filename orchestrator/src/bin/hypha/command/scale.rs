//! `scale`, and what `apply` shares with it: bringing services to a number of instances.

use protocol::service::Service;

use crate::api::Client;
use crate::args::{Kind, Patience, Scale};
use crate::command::get::some_services;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::name::Target;
use crate::rollout::Goal;
use crate::rollout::steps::{Steps, steps};
use crate::rollout::watch::watch;
use crate::view::count;

pub(crate) async fn scale(context: &Context, arguments: &Scale) -> Result<(), Failure> {
    let client = context.client()?;
    let fleet = Fleet::fetch(&client).await?;
    let goals = goals(&fleet, &arguments.wanted)?;
    reach(context, &client, &fleet, goals, &arguments.patience).await
}

fn goals(fleet: &Fleet, wanted: &[(String, usize)]) -> Result<Vec<Goal>, Failure> {
    let mut goals: Vec<Goal> = Vec::new();
    for (name, wanted) in wanted {
        let target = fleet.names().find(name, &[Kind::Service])?;
        let Target::Service(service) = target else { continue };
        let goal = Goal { service, label: fleet.names().label(target), wanted: *wanted };
        if goals.iter().any(|other| other.service == service) {
            return Err(Failure::new(Exit::Usage, format!("{} is named twice", goal.label)));
        }
        goals.push(goal);
    }
    Ok(goals)
}

/// Starts and stops what it takes, waits until it is true, and shows the services as they then are.
pub(crate) async fn reach(
    context: &Context,
    client: &Client,
    fleet: &Fleet,
    goals: Vec<Goal>,
    patience: &Patience,
) -> Result<(), Failure> {
    for goal in &goals {
        if let Some(service) = fleet.service(goal.service) {
            take_steps(context, client, goal, service).await?;
        }
    }
    let ids: Vec<_> = goals.iter().map(|goal| goal.service).collect();
    let waited = if patience.no_wait {
        Ok(())
    } else {
        watch(client, &context.terminal, goals, &fleet.services, patience.timeout).await
    };
    // The answer is how things stand, also when that is not what was hoped for.
    let after = Fleet::fetch(client).await;
    match (waited, after) {
        (Err(failure), Err(_)) => return Err(failure),
        (waited, after) => {
            context.list(&some_services(&after?, &ids), "")?;
            waited?;
        }
    }
    context.terminal.say("next: hypha get instances    hypha logs NAME -f    hypha status");
    Ok(())
}

async fn take_steps(
    context: &Context,
    client: &Client,
    goal: &Goal,
    service: &Service,
) -> Result<(), Failure> {
    let Steps { start, stop } = steps(service, goal.wanted);
    if start > 0 {
        context.terminal.say(&format!("{}: starting {}", goal.label, count(start, "instance")));
    }
    for _ in 0..start {
        client.start_instance(goal.service).await?;
    }
    if !stop.is_empty() {
        let numbers: Vec<_> = stop.iter().map(u32::to_string).collect();
        let word = if stop.len() == 1 { "instance" } else { "instances" };
        context.terminal.say(&format!("{}: stopping {word} {}", goal.label, numbers.join(", ")));
    }
    for number in stop {
        client.stop_instance(goal.service, number).await?;
    }
    Ok(())
}
