//! The control plane with very many workers: real root and real clusters, and simulated workers ([`crate::crowd`]) that speak
//! to them as real ones do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::memory::megabytes;
use integration::{Lab, Machine, Netns, Topology, interrupt};
use protocol::overview::Overview;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::crowd::{Counts, Crowd};
use crate::figure::{Figures, What};
use crate::idle::{self, Spent};

/// As many as a cluster's process has connections for here, with room.
const PER_CLUSTER: u32 = 2500;
/// Ten thousand workers have sixty thousand instances then: the plan has 65,536 addresses for services and instances.
const PER_WORKER: u32 = 6;
const PER_SERVICE: u32 = 20;
const PER_APPLICATION: u32 = 50;
/// Calls to the root that wait for their answers at the same time.
const AT_ONCE: usize = 64;
/// In which nothing happens.
const IDLE: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(200);

/// The processes of the simulated workers.
struct Crowds(Vec<Process>);

struct Process {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
    // The namespace is to outlive the process.
    _netns: Arc<Netns>,
}

/// Lets so many workers join, deploys on them, waits, and takes everything back.
pub(crate) fn measure(
    machine: &Machine,
    workers: u32,
    tell: impl Fn(&str),
    figures: &mut Figures,
) -> Result<()> {
    let mut lab = Lab::start(machine, 0, Topology::Split, &tell)?;
    let mut add = |what, sample| figures.add_at(what, workers, sample);
    let begun = Instant::now();
    let mut crowds = Crowds::start(&mut lab, workers)?;
    crowds.wait(&mut lab, &tell, |counts| counts.joined, workers.into())?;
    add(What::Joined, f64::from(workers) / begun.elapsed().as_secs_f64());
    idle(&lab, [What::ScaleMemory, What::ScaleCpu], &mut add)?;

    let instances = workers * PER_WORKER;
    let services = services(&lab, instances)?;
    tell(&format!("{instances} instances"));
    let calls: Vec<_> = services
        .iter()
        .flat_map(|id| (0..PER_SERVICE).map(move |_| format!("/api/service/{id}/instance")))
        .collect();
    let (before, begun) = (crowds.counts()?, Instant::now());
    let spent = Spent::of(&pids(&lab))?;
    let admin = lab.control.admin()?;
    thread::scope(|scope| {
        let calling = scope.spawn(|| admin.post_all(&calls, AT_ONCE));
        crowds.wait(&mut lab, &tell, |counts| counts.instances, instances.into())?;
        calling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    add(What::Placed, f64::from(instances) / seconds);
    until_running(&mut lab, instances)?;
    add(What::AllRunning, begun.elapsed().as_secs_f64());
    let after = crowds.counts()?;
    let said = (after.messages - after.alive) - (before.messages - before.alive);
    add(What::ScaleMessages, ratio(said, instances.into()));
    let [cpu, ..] = Spent::of(&pids(&lab))?.since(&spent, 1.0);
    add(What::PlacedCpu, cpu / 100.0 * 1e3 / f64::from(instances));
    idle(&lab, [What::FullMemory, What::FullCpu], &mut add)?;
    ensure!(crowds.counts()?.lost == 0, "{} connections were lost", after.lost);

    tell("taking everything back");
    let begun = Instant::now();
    remove_all(&lab)?;
    crowds.wait(&mut lab, &tell, |counts| u64::from(instances) - counts.instances, instances.into())?;
    add(What::TakenBack, f64::from(instances) / begun.elapsed().as_secs_f64());
    drop(crowds);
    lab.stop()
}

/// What root and clusters take together while nothing happens.
fn idle(lab: &Lab, [memory, cpu]: [What; 2], add: &mut impl FnMut(What, f64)) -> Result<()> {
    let pids = pids(lab);
    idle::sleep(Duration::from_secs(5))?;
    let (before, begun) = (Spent::of(&pids)?, Instant::now());
    idle::sleep(IDLE)?;
    let [percent, ..] = Spent::of(&pids)?.since(&before, begun.elapsed().as_secs_f64());
    add(memory, megabytes(&pids)?);
    add(cpu, percent);
    Ok(())
}

fn pids(lab: &Lab) -> Vec<u32> {
    lab.control.daemons().map(integration::daemon::Daemon::pid).collect()
}

/// Makes as many services as are needed, and gives their ids.
fn services(lab: &Lab, instances: u32) -> Result<Vec<String>> {
    let admin = lab.control.admin()?;
    let count = instances.div_ceil(PER_SERVICE);
    let numbers: Vec<_> = (0..count).collect();
    for (number, part) in numbers.chunks(PER_APPLICATION as usize).enumerate() {
        let services: Vec<_> = part.iter().map(|number| service(*number)).collect();
        let application = json!({ "application_name": format!("app{number}"), "application_namespace": "bench",
            "application_desc": "", "applicationID": "", "microservices": services });
        let document = json!({ "sla_version": "v2.0", "customerID": "Admin", "applications": [application] });
        admin.post("/api/application", &document)?.ok()?;
    }
    let known = admin.get("/api/services/")?.ok()?;
    let ids = known.as_array().into_iter().flatten().map(|service| service["microserviceID"].as_str());
    let ids: Vec<_> =
        ids.map(|id| id.map(str::to_owned)).collect::<Option<_>>().context("ids of services")?;
    ensure!(ids.len() == count as usize, "{} services instead of {count}", ids.len());
    Ok(ids)
}

fn service(number: u32) -> Value {
    json!({ "microserviceID": "", "microservice_name": format!("svc{number}"), "microservice_namespace": "bench",
        "virtualization": "container", "code": "docker.io/hypha/busybox:1", "memory": 50, "vcpus": 0 })
}

fn remove_all(lab: &Lab) -> Result<()> {
    let admin = lab.control.admin()?;
    let applications = admin.get("/api/applications/")?.ok()?;
    for application in applications.as_array().into_iter().flatten() {
        interrupt::check()?;
        let id = application["applicationID"].as_str().context("the id of an application")?;
        admin.delete(&format!("/api/application/{id}"))?.ok()?;
    }
    Ok(())
}

fn until_running(lab: &mut Lab, instances: u32) -> Result<()> {
    let admin = lab.control.admin()?;
    let begun = Instant::now();
    loop {
        interrupt::check()?;
        let overview = Overview::deserialize(&admin.get("/v1/status")?.ok()?).context("read the overview")?;
        if overview.instances.running == instances as usize {
            return Ok(());
        }
        lab.control.expect_running()?;
        ensure!(begun.elapsed() < PATIENCE, "still {:?} of {instances}", overview.instances);
        thread::sleep(PAUSE);
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn ratio(number: u64, of: u64) -> f64 {
    number as f64 / of as f64
}

impl Crowds {
    /// One for each cluster; clusters are added as they are needed.
    fn start(lab: &mut Lab, workers: u32) -> Result<Self> {
        let mut crowds = Vec::new();
        for (number, first) in (1..).zip((0..workers).step_by(PER_CLUSTER as usize)) {
            let cluster = match number {
                1 => lab.control.cluster_address(),
                _ => lab.add_empty_cluster(&format!("lab{number}"))?,
            };
            let netns =
                lab.underlay.add_node(&format!("crowd{number}"), Ipv4Addr::new(192, 0, 2, 100 + number))?;
            let crowd = Crowd { cluster, workers: PER_CLUSTER.min(workers - first), first };
            crowds.push(Process::start(crowd, netns)?);
        }
        Ok(Self(crowds))
    }

    fn counts(&mut self) -> Result<Counts> {
        self.0.iter_mut().try_fold(Counts::default(), |sum, process| Ok(sum + process.counts()?))
    }

    /// Waits until `count` is so much, and tells of it now and then.
    fn wait(
        &mut self,
        lab: &mut Lab,
        tell: impl Fn(&str),
        count: impl Fn(&Counts) -> u64,
        wanted: u64,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut told = begun;
        loop {
            interrupt::check()?;
            let counts = self.counts()?;
            let reached = count(&counts);
            if reached >= wanted {
                return Ok(());
            }
            if told.elapsed() >= Duration::from_secs(10) {
                told = Instant::now();
                tell(&format!("{reached} of {wanted}"));
            }
            lab.control.expect_running()?;
            ensure!(begun.elapsed() < PATIENCE, "only {reached} of {wanted}: {counts:?}");
            thread::sleep(PAUSE);
        }
    }
}

impl Process {
    fn start(crowd: Crowd, netns: Arc<Netns>) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let numbers = [("--workers", crowd.workers), ("--first", crowd.first)];
        let mut command = netns.command(program)?;
        command.args(["crowd", "--cluster", &crowd.cluster.to_string()]);
        command.args(numbers.iter().flat_map(|(flag, number)| [(*flag).to_owned(), number.to_string()]));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start simulated workers")?;
        let (asked, answers) = child.stdin.take().zip(child.stdout.take()).context("its input and output")?;
        Ok(Self { child, asked, answers: BufReader::new(answers), _netns: netns })
    }

    fn counts(&mut self) -> Result<Counts> {
        let mut line = String::new();
        writeln!(self.asked).context("ask simulated workers")?;
        self.answers.read_line(&mut line).context("listen to simulated workers")?;
        serde_json::from_str(&line).with_context(|| format!("read what simulated workers say: {line:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
