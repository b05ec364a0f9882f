//! `status`: one screen, what is wrong first. The root says what; here it is drawn.

use protocol::overview::{Code, Kind, Overview, Problem};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Format;
use crate::terminal::{Paint, Terminal, plain};
use crate::view::{age, count, megabytes};
use crate::yaml;

pub(crate) async fn status(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let overview = client.overview().await?;
    let root = client.root().to_string();
    let document = || document(&overview, &root);
    let text = match context.global.output {
        Format::Json => format!("{:#}", document()),
        Format::Jsonl => document().to_string(),
        Format::Yaml => yaml::write(&document()),
        Format::Table | Format::Wide | Format::Name => {
            text(&overview, &root, super::get::now(), context.terminal.stdout_paint())
        }
    };
    Terminal::answer(&text)
}

/// The command that says more.
fn next(problem: &Problem) -> String {
    let Some(subject) = &problem.subject else { return "node-engine -a CLUSTER".to_owned() };
    let name = &subject.name;
    match subject.kind {
        Kind::Cluster => format!("hypha get clusters {name}"),
        Kind::Worker => format!("hypha get workers {name}"),
        Kind::Service => format!("hypha why {name}"),
    }
}

/// What it is about.
fn name(problem: &Problem) -> String {
    let Some(subject) = &problem.subject else { return "workers".to_owned() };
    match subject.kind {
        Kind::Cluster => format!("cluster {}", subject.name),
        Kind::Worker => format!("worker {}", subject.name),
        Kind::Service => subject.name.clone(),
    }
}

fn what(problem: &Problem, now: f64) -> String {
    let since = problem.since.map(|since| format!(" for {}", age(now, since))).unwrap_or_default();
    match problem.code {
        Code::NoWorkers => problem.message.clone(),
        code => format!("{}{since}: {}", code.word(), problem.message),
    }
}

fn text(overview: &Overview, root: &str, now: f64, paint: Paint) -> String {
    let mut lines = Vec::new();
    let width = overview.problems.iter().map(|problem| name(problem).len()).max().unwrap_or_default();
    for problem in &overview.problems {
        let (name, what, next) = (plain(&name(problem)), what(problem, now), next(problem));
        lines.push(format!(
            "{} {name:<width$}  {}  {}",
            paint.error("!"),
            plain(&what),
            paint.faint(&plain(&next))
        ));
    }
    let workers = &overview.workers;
    let held = match (workers.cordoned, workers.draining) {
        (0, _) => String::new(),
        (cordoned, 0) => format!(" ({cordoned} cordoned)"),
        (cordoned, draining) => format!(" ({cordoned} cordoned, {draining} of them draining)"),
    };
    lines.push(format!(
        "  root {root}   clusters {}/{}   workers {}{held}   {}, {} of memory free",
        overview.clusters.active,
        overview.clusters.total,
        workers.active,
        count(workers.cpus.try_into().unwrap_or(usize::MAX), "CPU"),
        megabytes(workers.memory_free_mb),
    ));
    lines.push(format!(
        "  {}, {}   instances {} running, {} waiting, {} failed",
        count(overview.apps, "app"),
        count(overview.services, "service"),
        overview.instances.running,
        overview.instances.waiting,
        overview.instances.failed,
    ));
    if overview.problems.is_empty() {
        lines.push(format!("  {}", paint.good("all is well")));
    }
    lines.join("\n")
}

/// What the root says, and which root it is.
fn document(overview: &Overview, root: &str) -> Value {
    let mut document = json!(overview);
    document["root"] = json!(root);
    document
}

#[cfg(test)]
mod tests {
    use protocol::overview::{
        ClusterTotals, Code, InstanceTotals, Kind, Overview, Problem, Subject, WorkerTotals,
    };

    use super::{document, text};
    use crate::sample::id;
    use crate::terminal::Paint;

    const NOW: f64 = 1_795_374_561.0;

    fn problem(code: Code, of: Option<(Kind, &str)>, since: Option<f64>, message: &str) -> Problem {
        let subject = of.map(|(kind, name)| Subject { kind, id: id(3), name: name.to_owned() });
        Problem { severity: code.severity(), code, subject, since, message: message.to_owned() }
    }

    fn overview(problems: Vec<Problem>) -> Overview {
        Overview {
            clusters: ClusterTotals { active: 1, total: 2 },
            workers: WorkerTotals { active: 2, cordoned: 2, draining: 1, cpus: 4, memory_free_mb: 46_400 },
            apps: 1,
            services: 1,
            instances: InstanceTotals { running: 1, waiting: 0, failed: 1 },
            problems,
        }
    }

    #[test]
    fn what_is_wrong_comes_first_with_the_command_that_says_more() {
        let overview = overview(vec![
            problem(
                Code::ClusterLost,
                Some((Kind::Cluster, "berlin")),
                Some(NOW - 240.0),
                "its services run on as last seen",
            ),
            problem(
                Code::ServiceFailed,
                Some((Kind::Service, "hello/web")),
                None,
                "1 of 2 run; /1: no such image",
            ),
            problem(
                Code::WorkerUnreachable,
                Some((Kind::Worker, "pi-2")),
                Some(NOW - 9.0),
                "nothing is moved yet",
            ),
            problem(Code::NoWorkers, None, None, "none has joined"),
        ]);
        let expected = "\
! cluster berlin  lost for 4 m: its services run on as last seen  hypha get clusters berlin
! hello/web       failed: 1 of 2 run; /1: no such image  hypha why hello/web
! worker pi-2     unreachable for 9 s: nothing is moved yet  hypha get workers pi-2
! workers         none has joined  node-engine -a CLUSTER
  root http://r:1   clusters 1/2   workers 2 (2 cordoned, 1 of them draining)   4 CPUs, 45.3 GB of memory free
  1 app, 1 service   instances 1 running, 0 waiting, 1 failed";
        assert_eq!(text(&overview, "http://r:1", NOW, Paint::never()), expected);
        let document = document(&overview, "http://r:1");
        assert_eq!(
            (&document["problems"][0]["code"], &document["root"]),
            (&"cluster-lost".into(), &"http://r:1".into())
        );
    }

    #[test]
    fn nothing_wrong_is_said_too() {
        assert!(text(&overview(Vec::new()), "http://r:1", NOW, Paint::never()).ends_with("all is well"));
    }
}
