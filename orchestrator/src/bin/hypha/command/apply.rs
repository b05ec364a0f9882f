//! `apply`: makes true what an SLA file says. Twice is once.

mod dry_run;

use protocol::service::Service;
use protocol::sla::Microservice;

use crate::api::Client;
use crate::args::Apply;
use crate::command::get::some_services;
use crate::command::scale::reach;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::manifest::{self, Manifest, Part, instances};
use crate::name::Target;
use crate::plan::{Plan, find_app, find_service, plan};
use crate::rollout::Goal;
use crate::view::count;
use orchestrator::standing::counts;

pub(crate) async fn apply(context: &Context, arguments: &Apply) -> Result<(), Failure> {
    let manifest = manifest::read(&arguments.file)?;
    let client = context.client()?;
    let before = Fleet::fetch(&client).await?;
    let plan = plan(&manifest.document, &before)?;
    for service in &plan.left_alone {
        context.terminal.say(&format!("{service} is not in {}: left as it is", manifest.file));
    }
    if arguments.dry_run {
        return dry_run::dry_run(context, &client, &manifest, &plan, &before).await;
    }
    create(context, &client, &manifest, &plan).await?;
    let fleet = if plan.is_empty() { before } else { Fleet::fetch(&client).await? };
    let goals = goals(&manifest, &fleet)?;
    if arguments.no_start {
        let ids: Vec<_> = goals.iter().map(|goal| goal.service).collect();
        return context.list(&some_services(&fleet, &ids), "");
    }
    reach(context, &client, &fleet, goals, &arguments.patience).await
}

async fn create(context: &Context, client: &Client, manifest: &Manifest, plan: &Plan) -> Result<(), Failure> {
    if !plan.new_apps.is_empty() {
        let part = Part::Apps(plan.new_apps.clone());
        let created = client.create_apps(&manifest.select(&part)).await;
        created.map_err(|error| manifest.blame(error.into(), &part))?;
        for app in plan.new_apps.iter().filter_map(|&at| manifest.document.applications.get(at)) {
            let services = count(app.microservices.len(), "service");
            context.terminal.say(&format!("{}: created with {services}", app.application_name));
        }
    }
    for (app, id, services) in &plan.new_services {
        let part = Part::Services { app: *app, id: *id, kept: services.clone() };
        let added = client.create_services(&manifest.select(&part)).await;
        added.map_err(|error| manifest.blame(error.into(), &part))?;
        let name = &manifest.document.applications[*app].application_name;
        context.terminal.say(&format!("{name}: {} added", count(services.len(), "service")));
    }
    Ok(())
}

/// What the file wants of each of its services. A service that the root did not take is an error.
fn goals(manifest: &Manifest, fleet: &Fleet) -> Result<Vec<Goal>, Failure> {
    let mut goals = Vec::new();
    let mut refused = Vec::new();
    for wanted_app in manifest.apps() {
        let app = find_app(wanted_app, fleet);
        for wanted in &wanted_app.microservices {
            let Some(service) = app.and_then(|app| find_service(app, wanted, fleet)) else {
                refused.push(format!("{}/{}", wanted_app.application_name, wanted.microservice_name));
                continue;
            };
            goals.push(Goal {
                service: service.id,
                label: fleet.names().label(Target::Service(service.id)),
                wanted: goal(wanted, there(service)),
            });
        }
    }
    if refused.is_empty() {
        return Ok(goals);
    }
    let failure = Failure::new(Exit::Failed, format!("the root did not take {}", refused.join(", ")));
    Err(failure.hint(
        "is a chosen address (rr_ip) in use or outside the root's --service-range?  hypha get services",
    ))
}

/// How many instances of a service there are.
fn there(service: &Service) -> usize {
    service.instance_list.iter().filter(|instance| counts(instance)).count()
}

/// How many the file wants where there are so many: left open, one is started where there is none, and what somebody scaled
/// stays so.
fn goal(wanted: &Microservice, there: usize) -> usize {
    instances(wanted).unwrap_or_else(|| there.max(1))
}
