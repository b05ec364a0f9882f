//! `apply --dry-run`: what would be done, and where there would be room for it.

use protocol::decision::ClusterVerdict;
use protocol::validation::{Invalid, Validation};
use serde_json::{Value, json};

use crate::api::Client;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Findings, Problem};
use crate::fleet::Fleet;
use crate::manifest::Manifest;
use crate::output::{Column, Field, Listing, Mood, Row};
use crate::plan::{Plan, find_app, find_service};

const COLUMNS: &[Column] = &[
    Column::text("SERVICE"),
    Column::text("ACTION"),
    Column::number("INSTANCES"),
    Column::text("ROOM IN"),
    Column::text("DETAIL"),
];

pub(super) async fn dry_run(
    context: &Context,
    client: &Client,
    manifest: &Manifest,
    plan: &Plan,
    fleet: &Fleet,
) -> Result<(), Failure> {
    let validation = client.validate(manifest.raw()).await?;
    if !validation.problems.is_empty() {
        let problems = validation.problems.iter().map(|problem| problem_in(manifest, problem)).collect();
        let findings = Findings { file: Some(manifest.file.clone()), problems };
        let title = format!("the root would not take {}", manifest.file);
        return Err(Failure { findings: Some(findings.into()), ..Failure::new(Exit::Usage, title) });
    }
    let rows = services(manifest, plan, fleet, &validation);
    let homeless: Vec<_> = rows.iter().filter(|row| row.is_homeless()).map(|row| row.name.clone()).collect();
    context.list(&Listing { columns: COLUMNS, rows: rows.iter().map(Planned::row).collect() }, "")?;
    context.terminal.say("nothing was done");
    if homeless.is_empty() {
        return Ok(());
    }
    let title = format!("no cluster has room for {} now: it would wait", homeless.join(", "));
    Err(Failure::new(Exit::NotPlaced, title).hint("hypha get clusters -o wide"))
}

fn problem_in(manifest: &Manifest, problem: &Invalid) -> Problem {
    let path = path(&problem.pointer);
    Problem { position: Some(manifest.position(&path)), path, message: problem.message.clone() }
}

/// `/applications/0/port` as messages write it: `applications[0].port`.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) && !path.is_empty() {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    path
}

/// A service of the file.
#[derive(Debug, PartialEq)]
struct Planned<'a> {
    name: String,
    action: Action,
    /// More instances that would be started.
    more: usize,
    clusters: &'a [ClusterVerdict],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// With its application.
    Create,
    /// To an application that is there.
    Add,
    Scale,
    Keep,
}

impl Action {
    const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Add => "add",
            Self::Scale => "scale",
            Self::Keep => "keep",
        }
    }
}

fn services<'a>(
    manifest: &Manifest,
    plan: &Plan,
    fleet: &Fleet,
    validation: &'a Validation,
) -> Vec<Planned<'a>> {
    let mut all = Vec::new();
    for (at, wanted_app) in manifest.apps().enumerate() {
        let app = find_app(wanted_app, fleet);
        for (service_at, wanted) in wanted_app.microservices.iter().enumerate() {
            let there = app.and_then(|app| find_service(app, wanted, fleet));
            let running = there.map_or(0, super::there);
            let goal = super::goal(wanted, running);
            let action = match there {
                None if plan.new_apps.contains(&at) => Action::Create,
                None => Action::Add,
                Some(_) if goal == running => Action::Keep,
                Some(_) => Action::Scale,
            };
            let verdict = validation.applications.get(at).and_then(|app| app.services.get(service_at));
            all.push(Planned {
                name: format!("{}/{}", wanted_app.application_name, wanted.microservice_name),
                action,
                more: goal.saturating_sub(running),
                clusters: verdict.map_or(&[], |service| &service.clusters),
            });
        }
    }
    all
}

impl Planned<'_> {
    fn is_homeless(&self) -> bool {
        self.more > 0 && self.clusters.iter().all(|cluster| !cluster.lacks.is_empty())
    }

    fn row(&self) -> Row {
        let fit = self.clusters.iter().filter(|cluster| cluster.lacks.is_empty());
        let fit: Vec<_> = fit.map(|cluster| cluster.cluster.as_str()).collect();
        let lacks = self.clusters.iter().filter(|cluster| !cluster.lacks.is_empty());
        let lacks: Vec<_> = lacks.map(|cluster| format!("{}: {}", cluster.cluster, cluster.lacks)).collect();
        let (mood, room) = match (self.more, self.is_homeless()) {
            (0, _) => (Mood::Plain, String::new()),
            (_, true) => (Mood::Bad, "none".to_owned()),
            (_, false) => (Mood::Good, fit.join(" ")),
        };
        let more = if self.more == 0 { String::new() } else { format!("+{}", self.more) };
        Row {
            fields: vec![
                self.name.as_str().into(),
                self.action.word().into(),
                more.into(),
                Field::mood(room, mood),
                lacks.join("; ").into(),
            ],
            name: format!("service/{}", self.name),
            document: self.document(),
        }
    }

    fn document(&self) -> Value {
        json!({ "name": self.name, "action": self.action.word(), "more_instances": self.more, "clusters": self.clusters })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use protocol::decision::ClusterVerdict;
    use protocol::service::Instance;
    use protocol::status::Status;
    use protocol::validation::{PlannedApplication, PlannedService, Validation};
    use serde_json::json;

    use super::{Action, path, services};
    use crate::fleet::Fleet;
    use crate::output::{Format, Frame, Listing, render};
    use crate::plan::plan;
    use crate::{manifest, sample};

    fn verdict(cluster: &str, lacks: &str) -> ClusterVerdict {
        ClusterVerdict { cluster: cluster.to_owned(), lacks: lacks.to_owned() }
    }

    fn validation(services: &[&str]) -> Validation {
        let clusters = vec![verdict("berlin", "it is lost"), verdict("home", "")];
        let service = |name: &&str| PlannedService { name: (*name).to_owned(), clusters: clusters.clone() };
        let services = services.iter().map(service).collect();
        let application = PlannedApplication { name: "hello.demo".into(), exists: true, services };
        Validation { problems: Vec::new(), applications: vec![application] }
    }

    #[test]
    fn it_tells_what_would_be_done_with_each_service() {
        let app = sample::app(1, "hello", "demo");
        let mut web = sample::service(&app, 11, "web");
        web.instance_list = vec![Instance::new(0, Status::Running)];
        let fleet = Fleet { apps: vec![app], services: vec![web], ..Fleet::default() };
        let service = |name: &str, count: usize| {
            json!({ "microservice_name": name, "microservice_namespace": "demo", "virtualization": "container",
                "code": "docker.io/library/busybox:1", "memory": 16, "vcpus": 1, "instances": count })
        };
        let text = json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [{
            "application_name": "hello", "application_namespace": "demo",
            "microservices": [service("web", 3), service("cam", 1)] }] });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hello.json");
        std::fs::write(&file, text.to_string()).unwrap();
        let manifest = manifest::read(Path::new(&file)).unwrap();
        let plan = plan(&manifest.document, &fleet).unwrap();
        let mut validation = validation(&["web", "cam"]);
        validation.applications[0].services[1].clusters[1].lacks = "it has 12 MB free".into();
        let planned = services(&manifest, &plan, &fleet, &validation);
        assert_eq!(planned[0].action, Action::Scale);
        assert_eq!((planned[0].is_homeless(), planned[1].is_homeless()), (false, true));
        let listing =
            Listing { columns: super::COLUMNS, rows: planned.iter().map(super::Planned::row).collect() };
        let expected = "\
SERVICE    ACTION  INSTANCES  ROOM IN  DETAIL
hello/web  scale          +2  home     berlin: it is lost
hello/cam  add            +1  none     berlin: it is lost; home: it has…";
        let frame = Frame { width: Some(72), colours: false, headers: true };
        let text = render(&listing, Format::Table, frame);
        assert_eq!(text, expected, "\n{text}");
        assert_eq!(listing.rows[1].document["action"], "add");
    }

    #[test]
    fn a_pointer_becomes_a_path() {
        for (pointer, expected) in [
            ("/applications/0/microservices/12/port", "applications[0].microservices[12].port"),
            ("/sla_version", "sla_version"),
            ("/a~1b/3", "a/b[3]"),
            ("", ""),
        ] {
            assert_eq!(path(pointer), expected);
        }
    }
}
