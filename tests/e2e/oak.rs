//! Oakestra's own command line, as PyPI has it, drives our root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::application::document;
use integration::{Lab, eventually, process};

use crate::Claim;

pub(crate) const CLAIMS: &[Claim] =
    &[("oakestras_own_client_drives_our_root", oakestras_own_client_drives_our_root)];

const VERSION: &str = "0.5.5";

fn oakestras_own_client_drives_our_root(lab: &mut Lab) -> Result<()> {
    let oak = Oak::install(lab)?;
    oak.run(
        lab,
        &[
            "configuration",
            "key-vars",
            "configure",
            "system_manager_ip",
            "--value",
            &lab.control.root_address().to_string(),
        ],
    )?;
    let sla = document("oakapp", 1)?;
    fs::write(oak.home.join("oak_cli/SLAs/ours.json"), sla.to_string()).context("give oak an SLA")?;

    oak.run(lab, &["application", "create", "--sla-file-name", "ours", "-d"])?;
    let api = lab.control.admin()?;
    let services = || -> Result<Vec<serde_json::Value>> {
        let services = api.get("/api/services/")?.ok()?;
        let services = services.as_array().context("a list of services")?;
        Ok(services.iter().filter(|service| service["app_name"] == "oakapp").cloned().collect())
    };
    eventually(Duration::from_secs(30), "both services of oak's application to run", || {
        let services = services().map_err(|error| format!("{error:#}"))?;
        let running =
            services.iter().filter(|service| service["instance_list"][0]["status"] == "RUNNING").count();
        if running == 2 { Ok(()) } else { Err(format!("{services:?}")) }
    })?;
    for verbosity in ["simple", "detailed"] {
        let shown = oak.run(lab, &["application", "show", "-v", verbosity])?;
        ensure!(shown.contains("oakapp"), "oak application show: {shown}");
        let shown = oak.run(lab, &["service", "show", "-v", verbosity])?;
        ensure!(shown.contains("web") && shown.contains("RUNNING"), "oak service show: {shown}");
    }
    // These two print to the standard error.
    for kind in ["application", "service"] {
        oak.run(lab, &[kind, "show", "-v", "exhaustive"])?;
    }
    let web = services()?;
    let web = web.iter().find(|service| service["microservice_name"] == "web").context("the service web")?;
    let id = web["microserviceID"].as_str().context("the id of the service web")?;
    oak.run(lab, &["service", "inspect", id])?;
    let app = web["applicationID"].as_str().context("the id of the application")?;
    let shown = oak.run(lab, &["service", "show", app])?;
    ensure!(shown.contains("web") && shown.contains("RUNNING"), "oak service show {app}: {shown}");
    let clusters = oak.run(lab, &["cluster", "list"])?;
    ensure!(clusters.contains("lab"), "oak cluster list: {clusters}");
    for arguments in [["cluster", "list", "-all"], ["cluster", "info", "lab"]] {
        let shown = oak.run(lab, &arguments)?;
        ensure!(shown.contains("lab") && shown.contains("Connected"), "oak {arguments:?}: {shown}");
    }

    oak.run(lab, &["service", "deploy", id])?;
    let web_instances = |wanted: usize| {
        let running = || -> Result<usize> { Ok(lab.containers_of("oakapp.demo.web.demo")?.len()) };
        eventually(Duration::from_secs(30), &format!("{wanted} instances of web"), || match running() {
            Ok(count) if count == wanted => Ok(()),
            Ok(count) => Err(count.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
    };
    web_instances(2)?;
    oak.run(lab, &["service", "undeploy", "--service-id", id, "--instance-id", "1"])?;
    web_instances(1)?;
    oak.run(lab, &["service", "undeploy", "--service-id", id])?;
    web_instances(0)?;
    oak.run(lab, &["application", "delete", app])?;
    ensure!(services()?.is_empty(), "services are left: {:?}", services()?);
    Ok(())
}

/// The client in a Python environment of its own, with a home of its own.
struct Oak {
    program: PathBuf,
    home: PathBuf,
}

impl Oak {
    /// Installs it beside the build, once.
    fn install(lab: &Lab) -> Result<Self> {
        let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oak-cli-{VERSION}"));
        let program = environment.join("bin/oak");
        if !program.exists() {
            let folder = environment.to_str().context("the path of the build is UTF-8")?;
            process::output(Command::new("python3").args(["-m", "venv", folder]))
                .context("make a Python environment (Debian's package is python3-venv)")?;
            let package = format!("oak-cli=={VERSION}");
            process::output_within(
                Command::new(environment.join("bin/pip")).args(["install", "--quiet", &package]),
                Duration::from_secs(300),
            )
            .context("install oak-cli from PyPI")?;
        }
        let home = lab.folder().join("oak");
        fs::create_dir_all(home.join("oak_cli/SLAs")).with_context(|| format!("make {}", home.display()))?;
        Ok(Self { program, home })
    }

    /// Runs it on the control node. It must end well.
    fn run(&self, lab: &Lab, arguments: &[&str]) -> Result<String> {
        let mut command = lab.control.netns.command(&self.program)?;
        command.args(arguments).env("HOME", &self.home).env("COLUMNS", "200").env("NO_COLOR", "1");
        process::output(&mut command)
    }
}
