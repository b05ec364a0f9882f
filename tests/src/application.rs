//! An application of a test: the one of `examples/hello.json` under another name, deployed with the command line.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::system::System;

const EXAMPLE: &str = include_str!("../../examples/hello.json");

/// `web` servers and one `client`.
#[derive(Debug)]
pub struct Application {
    name: String,
    file: PathBuf,
}

impl Application {
    /// Deploys it and waits, as `hypha` does, until all instances run. `name` must be no other application's.
    pub fn deploy(lab: &Lab, name: &str, servers: usize) -> Result<Self> {
        Self::deploy_with(lab, name, servers, |_services| {})
    }

    /// As [`Self::deploy`], with changes to what the SLA says of the servers, and of the client.
    pub fn deploy_with(
        lab: &Lab,
        name: &str,
        servers: usize,
        change: impl FnOnce([&mut Value; 2]),
    ) -> Result<Self> {
        let application = Self { name: name.to_owned(), file: lab.folder().join(format!("{name}.json")) };
        let mut sla = document(name, servers)?;
        let services = sla["applications"][0]["microservices"].as_array_mut();
        let [web, client, ..] = services.context("services")?.as_mut_slice() else {
            bail!("web and client are not the services of the example");
        };
        change([web, client]);
        fs::write(&application.file, sla.to_string())
            .with_context(|| format!("write {}", application.file.display()))?;
        let file = application.file.display().to_string();
        lab.control.hypha(&["apply", "-f", &file])?;
        Ok(application)
    }

    /// The full name of its service `service`.
    #[must_use]
    pub fn service(&self, service: &str) -> String {
        format!("{}.demo.{service}.demo", self.name)
    }

    /// What runs of it, once that many servers do.
    pub fn system(&self, lab: &Lab, servers: usize) -> Result<System> {
        System::wait(lab, &self.service("web"), &self.service("client"), servers)
    }

    /// Describes its servers anew, as the example does.
    pub fn describe_anew(&self, lab: &Lab, servers: usize) -> Result<()> {
        let table = format!("/api/net/service/{}/instances", self.service("web").replace('.', "_"));
        let table = lab.control.net_api().get(&table)?.ok()?;
        let id = table["_id"].as_str().context("the id of a service")?;
        let servers = &document(&self.name, servers)?["applications"][0]["microservices"][0];
        let path = format!("/api/service/{id}");
        lab.control.admin()?.send(Method::PUT, &path, Some(servers.to_string()))?.ok().map(drop)
    }

    pub fn scale(&self, lab: &Lab, servers: usize) -> Result<()> {
        lab.control.hypha(&["scale", &format!("{}/web={servers}", self.name)]).map(drop)
    }

    /// Removes it, and waits until all of it is gone.
    pub fn remove(self, lab: &Lab) -> Result<()> {
        lab.control.hypha(&["delete", &format!("app/{}", self.name), "--yes"]).map(drop)
    }
}

/// The example's SLA under this name, with any free ServiceIP.
pub fn document(name: &str, servers: usize) -> Result<Value> {
    let mut document: Value = serde_json::from_str(EXAMPLE).context("read examples/hello.json")?;
    let application = &mut document["applications"][0];
    application["application_name"] = json!(name);
    application["microservices"][0]["instances"] = json!(servers);
    application["microservices"][0]["addresses"] = json!({});
    Ok(document)
}
