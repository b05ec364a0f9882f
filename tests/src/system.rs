//! A deployed service and a client of it, as they are: containers from containerd, addresses inside from `ip`,
//! addresses of the plan from the root's table.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::net::{IpType, NetService};
use serde::Deserialize;

use crate::container::Container;
use crate::lab::Lab;
use crate::process;
use crate::wait::eventually;

/// The instances of a service, and one instance of another that asks them.
#[derive(Debug)]
pub struct System {
    /// The round robin address of the service.
    pub service_ip: Ipv4Addr,
    /// In the order of their numbers.
    pub instances: Vec<Instance>,
    pub client: Instance,
}

/// A running instance.
#[derive(Debug)]
pub struct Instance {
    pub container: Container,
    /// The place of its worker in the lab's list.
    pub worker: usize,
    /// What `hostname` says in it.
    pub host_name: String,
    pub instance_ip: Ipv4Addr,
    /// The address of its link.
    pub ns_ip: Ipv4Addr,
}

impl System {
    /// Looks both services up by their full names, `app.ns.service.ns`.
    pub fn find(lab: &Lab, service: &str, client: &str) -> Result<Self> {
        let (service_ip, instances) = instances_of(lab, service)?;
        let (_, clients) = instances_of(lab, client)?;
        let client = clients.into_iter().next().with_context(|| format!("an instance of {client}"))?;
        Ok(Self { service_ip, instances, client })
    }

    /// Waits until the service has that many running containers, each with its address.
    pub fn wait(lab: &Lab, service: &str, client: &str, instances: usize) -> Result<Self> {
        eventually(
            Duration::from_secs(30),
            &format!("{instances} instances of {service} and a client"),
            || {
                let system = Self::find(lab, service, client).map_err(|error| format!("{error:#}"))?;
                if system.instances.len() == instances {
                    Ok(system)
                } else {
                    Err(format!("{:?}", system.instances))
                }
            },
        )
    }

    /// Waits until requests to the ServiceIP are answered by each of the instances and nobody else. A table that has
    /// changed is on its way to the client's node for a moment.
    pub fn wait_for_all_answers(&self) -> Result<()> {
        let expected = self.host_names();
        eventually(Duration::from_secs(10), &format!("answers of {}", expected.join(", ")), || {
            let mut seen = self.answers(expected.len()).map_err(|error| format!("{error:#}"))?;
            seen.sort();
            if seen == expected { Ok(()) } else { Err(seen.join(", ")) }
        })
    }

    /// A server on another worker than the client's.
    pub fn remote_server(&self) -> Result<&Instance> {
        self.instances
            .iter()
            .find(|instance| instance.worker != self.client.worker)
            .with_context(|| format!("all servers are on the client's worker: {:?}", self.instances))
    }

    /// Who answers that many requests to the ServiceIP, by host name.
    pub fn answers(&self, requests: usize) -> Result<Vec<String>> {
        (0..requests)
            .map(|_| {
                let answer = self.client.container.get(self.service_ip)?;
                Ok(answer.split(' ').next().unwrap_or_default().to_owned())
            })
            .collect()
    }

    /// The ServiceIP, and of each instance its name and addresses.
    #[must_use]
    pub fn addresses(&self) -> (Ipv4Addr, Vec<(String, Ipv4Addr, Ipv4Addr)>) {
        let of = |instance: &Instance| (instance.container.id.clone(), instance.instance_ip, instance.ns_ip);
        (self.service_ip, self.instances.iter().chain([&self.client]).map(of).collect())
    }

    /// The host names of all instances, sorted.
    #[must_use]
    pub fn host_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.instances.iter().map(|instance| instance.host_name.clone()).collect();
        names.sort();
        names
    }
}

fn instances_of(lab: &Lab, service: &str) -> Result<(Ipv4Addr, Vec<Instance>)> {
    let path = format!("/api/net/service/{}/instances", service.replace('.', "_"));
    let table = lab.control.net_api().get(&path)?.ok()?;
    let table =
        NetService::deserialize(&table).with_context(|| format!("read the table of {service}: {table}"))?;
    let service_ip = table
        .service_ip_list
        .iter()
        .find(|address| address.ip_type == IpType::RoundRobin)
        .with_context(|| format!("a round robin address of {service}"))?;
    let instances = lab
        .containers_of(service)?
        .into_iter()
        .map(|(worker, container)| {
            let instance_ip = table
                .instance_list
                .iter()
                .find(|instance| container.id.ends_with(&format!(".instance.{}", instance.instance_number)))
                .and_then(|instance| instance.instance_ip)
                .with_context(|| format!("the instance IP of {}", container.id))?;
            let (host_name, ns_ip) =
                (container.exec(&["hostname"])?.trim().to_owned(), address_in(&container)?);
            Ok(Instance { container, worker, host_name, instance_ip, ns_ip })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((service_ip.address.parse().with_context(|| format!("read the ServiceIP of {service}"))?, instances))
}

/// The address that the container's link has, by the `ip` program of the machine.
fn address_in(container: &Container) -> Result<Ipv4Addr> {
    let listing =
        process::output(container.netns.command("ip")?.args(["-4", "-o", "addr", "show", "dev", "eth0"]))?;
    let address = listing.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    let address = address.with_context(|| format!("an address in {}: {listing:?}", container.id))?;
    let (address, prefix) = address.split_once('/').unwrap_or((address, "32"));
    ensure!(prefix == "32", "{} has {address}/{prefix} instead of a /32", container.id);
    address.parse().with_context(|| format!("read the address of {}", container.id))
}
