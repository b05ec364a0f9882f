//! Which backends of a service get new flows: what the resolver knows, without those that are dead ends ([`health`]).
//! Carries out in the data plane what is decided there, and sends the probes.

pub mod health;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use self::health::{Action, Cause, Health, Probe};
use crate::datapath::{Backend, Datapath, DatapathError, Policy, Reading, Service, Suspect};
use crate::error::chain;
use crate::slowpath::{SlowPath, probe};

/// What is behind each address, and how its backends do.
#[derive(Debug, Default)]
pub struct Balance {
    services: BTreeMap<IpAddr, Behind>,
    health: Health,
    /// Of the last probe.
    number: u16,
}

#[derive(Debug)]
struct Behind {
    policy: Policy,
    backends: Vec<Backend>,
}

impl Balance {
    /// Takes over what an earlier run has set aside.
    #[must_use]
    pub fn adopt(datapath: &Datapath, now: Instant) -> Self {
        let mut balance = Self::default();
        for backend in datapath.aside() {
            balance.health.adopt(backend, now);
        }
        balance
    }

    /// Takes over what an earlier run has published.
    pub fn adopt_service(&mut self, service_ip: IpAddr, policy: Policy, backends: Vec<Backend>) {
        self.services.insert(service_ip, Behind { policy, backends });
    }

    /// Publishes a service with these backends, of which those get new flows that do well.
    ///
    /// # Errors
    /// As [`Datapath::publish`]. The service is then as it was.
    pub fn publish(
        &mut self,
        datapath: &mut Datapath,
        service_ip: IpAddr,
        policy: Policy,
        backends: Vec<Backend>,
    ) -> Result<(), DatapathError> {
        let before = self.services.insert(service_ip, Behind { policy, backends });
        if let Err(error) = self.write(datapath, service_ip) {
            match before {
                Some(before) => drop(self.services.insert(service_ip, before)),
                None => drop(self.services.remove(&service_ip)),
            }
            return Err(error);
        }
        self.forget_unknown(datapath);
        Ok(())
    }

    /// Makes the address unknown.
    ///
    /// # Errors
    /// As [`Datapath::withdraw_service`].
    pub fn withdraw(&mut self, datapath: &mut Datapath, service_ip: IpAddr) -> Result<(), DatapathError> {
        self.services.remove(&service_ip);
        let withdrawn = datapath.withdraw_service(service_ip);
        self.forget_unknown(datapath);
        withdrawn
    }

    /// The kernel side suspects a backend.
    pub fn suspected(
        &mut self,
        datapath: &mut Datapath,
        slow_path: Option<&SlowPath>,
        suspect: Suspect,
        now: Instant,
    ) {
        let Some(backend) = datapath.suspect(suspect) else { return };
        let Some(reading) = read(datapath, &backend) else { return };
        let others: Vec<_> = self
            .choices()
            .filter(|behind| behind.backends.contains(&backend))
            .flat_map(|behind| &behind.backends)
            .filter(|other| **other != backend)
            .filter_map(|other| read(datapath, other)?.accepted_port)
            .collect();
        let action = self.health.suspected(backend, &reading, |port| others.contains(&port), now);
        self.carry_out(datapath, slow_path, action);
    }

    /// When [`Self::tick`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.health.deadline()
    }

    /// Does what is due.
    pub fn tick(&mut self, datapath: &mut Datapath, slow_path: Option<&SlowPath>, now: Instant) {
        let actions = self.health.tick(|backend| read(datapath, backend), slow_path.is_some(), now);
        self.carry_out(datapath, slow_path, actions);
    }

    /// Why a backend gets no new flows; nothing if it does.
    #[must_use]
    pub fn aside(&self, backend: &Backend) -> Option<Cause> {
        self.health.aside(backend)
    }

    fn carry_out(
        &mut self,
        datapath: &mut Datapath,
        slow_path: Option<&SlowPath>,
        actions: impl IntoIterator<Item = Action>,
    ) {
        for action in actions {
            match action {
                Action::Probe(backend, probe) => self.probe(datapath, slow_path, &backend, probe),
                Action::SetAside(backend, cause) => {
                    tracing::warn!(instance = %backend.instance_ip, node = %backend.node, %cause, "backend is set aside");
                    self.rewrite(datapath, &backend);
                }
                Action::TakeBack(backend) => {
                    tracing::info!(instance = %backend.instance_ip, node = %backend.node, "backend is taken back");
                    self.rewrite(datapath, &backend);
                }
            }
        }
    }

    /// As a container of this node that is not the backend itself, if there is another.
    fn probe(&mut self, datapath: &Datapath, slow_path: Option<&SlowPath>, backend: &Backend, probe: Probe) {
        let Some(slow_path) = slow_path else { return };
        let endpoints = datapath.endpoints().unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "cannot read who could probe a backend");
            Vec::new()
        });
        let able = endpoints.iter().filter(|endpoint| endpoint.instance_ip.is_some());
        let Some(from) = able.min_by_key(|endpoint| endpoint.ns_ip == backend.ns_ip) else { return };
        self.number = self.number.wrapping_add(1);
        slow_path.send(match probe {
            Probe::Echo => probe::echo(from, backend.instance_ip, self.number),
            Probe::Connect(port) => probe::connect(from, backend.instance_ip, port, self.number),
        });
    }

    /// Writes every service that the backend is one choice of.
    fn rewrite(&mut self, datapath: &mut Datapath, backend: &Backend) {
        let services: Vec<_> = self
            .services
            .iter()
            .filter(|(_, behind)| behind.is_choice() && behind.backends.contains(backend))
            .map(|(service_ip, _)| *service_ip)
            .collect();
        for service_ip in services {
            if let Err(error) = self.write(datapath, service_ip) {
                tracing::error!(%service_ip, error = chain(&error), "new flows go where they went before");
            }
        }
    }

    fn write(&self, datapath: &mut Datapath, service_ip: IpAddr) -> Result<(), DatapathError> {
        let Some(Behind { policy, backends }) = self.services.get(&service_ip) else { return Ok(()) };
        let (backends, resting) = match policy {
            Policy::Instance => (backends.clone(), Vec::new()),
            Policy::RoundRobin | Policy::Closest => self.health.split(backends.clone()),
        };
        datapath.publish(&Service { service_ip, policy: *policy, backends, resting })?;
        self.move_flows(datapath)
    }

    /// What can go on elsewhere leaves the backends that rest in some service.
    fn move_flows(&self, datapath: &mut Datapath) -> Result<(), DatapathError> {
        let before: BTreeSet<_> = datapath.aside().collect();
        if self.health.is_empty() && before.is_empty() {
            return Ok(());
        }
        let resting = self.choices().flat_map(|behind| self.health.split(behind.backends.clone()).1);
        let now: BTreeSet<_> = resting.collect();
        for backend in now.symmetric_difference(&before) {
            datapath.set_aside(backend, now.contains(backend))?;
        }
        Ok(())
    }

    fn forget_unknown(&mut self, datapath: &Datapath) {
        if !self.health.is_empty() {
            self.health.retain(|backend| datapath.knows(backend));
        }
    }

    fn choices(&self) -> impl Iterator<Item = &Behind> {
        self.services.values().filter(|behind| behind.is_choice())
    }
}

impl Behind {
    /// Whether the address stands for more than one instance by itself.
    fn is_choice(&self) -> bool {
        self.policy != Policy::Instance
    }
}

fn read(datapath: &Datapath, backend: &Backend) -> Option<Reading> {
    datapath.reading(backend).unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "cannot read how a backend does");
        None
    })
}
