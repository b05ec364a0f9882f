//! Which waiting instance gets which worker.

use std::time::Instant;

use protocol::constraint::{Demands, names_of};
use protocol::decision::{Decision, Decisions};
use protocol::id::Id;

use super::links::Links;
use super::{Service, State};
use crate::cluster::decisions::WithoutPlace;
use crate::cluster::instance::{Instance, Phase};
use crate::cluster::worker::Standing;
use crate::schedule::{self, Request, Share};

impl State {
    /// Whether there are instances without a worker.
    pub(in crate::cluster) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Places what can be placed now.
    pub(in crate::cluster) fn place_waiting(&mut self, now: Instant) {
        let room = std::mem::take(&mut self.room);
        let ways = std::mem::take(&mut self.measuring.ways);
        let mut ready: Vec<_> = self
            .waiting
            .iter()
            .copied()
            .filter(|(id, number)| {
                let instance = self.services.get(id).and_then(|service| service.instances.get(number));
                let has_room = room || (ways && self.ties.has(*id));
                instance.is_some_and(|instance| instance.placeable(now, has_room))
                    && !self.name_in_use(*id, *number)
            })
            .collect();
        ready.retain(|instance| !self.awaits_neighbours(*instance, now));
        if ready.is_empty() {
            return;
        }
        let mut views = self.views();
        let (mut current, mut links) = (None, Links::default());
        for (id, number) in ready {
            let is_next = current.replace(id) != Some(id);
            if is_next {
                self.count_siblings(id, &mut views);
                links = self.links(id);
            }
            // It is the same for all instances of a service that are not to be near to each other.
            if is_next || links.are_to(id) {
                self.see_reach(&links, (id, number), &mut views, now);
            }
            self.place(id, number, &links, &mut views, now);
        }
    }

    fn place(&mut self, id: Id, number: u32, links: &Links, views: &mut [schedule::Worker], now: Instant) {
        let is_bound = links.bind() && self.has_neighbours(links, (id, number));
        let algorithm = self.rules.placement.algorithm();
        let Some(service) = self.services.get_mut(&id) else {
            return;
        };
        let mut request = Request { links: links.asked(), ..request(service) };
        let Some(instance) = service.instances.get_mut(&number) else {
            return;
        };
        request.avoid = instance.failed_on;
        let name = &service.document.job_name;
        let schedule::Choice { chosen, decision } = schedule::place(&request, views, algorithm);
        let decision = Decision { at: crate::clock::now(), ..decision };
        match chosen {
            Some(chosen) => {
                instance.attempts.add(decision);
                let view = &mut views[chosen];
                view.reserve(&request);
                let Some(worker) = self.workers.get(&view.id) else {
                    return;
                };
                instance.place(view.id, &worker.node().ip, worker.port(), now);
                // What is to be near to it may have a place now.
                self.measuring.ways |= self.ties.has(id);
                tracing::info!(service = %name, instance = number, worker = %worker.host(), "instance placed");
                self.changed(id, number);
                self.tell_deploy(id, number);
            }
            None => {
                let reason = schedule::Refusal(&decision).to_string();
                let refused = WithoutPlace::new(&decision, now);
                // Where it lacks nothing but room, it may as well go where there is some.
                let is_bound = is_bound && schedule::lacks_nearness(&decision);
                instance.attempts.add(decision);
                if instance.no_room(reason.clone(), refused, is_bound) {
                    tracing::warn!(service = %name, instance = number, %reason, "instance not placed");
                    self.changed(id, number);
                }
            }
        }
    }

    /// The last attempts to place the instances of a service.
    pub(in crate::cluster) fn decisions(&self, id: Id) -> Option<Decisions> {
        let instances = self.services.get(&id)?.instances.iter();
        Some(Decisions {
            instances: instances.map(|(number, instance)| (*number, instance.attempts.all())).collect(),
        })
    }

    pub(super) fn count_siblings(&self, id: Id, views: &mut [schedule::Worker]) {
        views.iter_mut().for_each(|view| view.siblings = 0);
        let instances = self.services.get(&id).into_iter().flat_map(|service| service.instances.values());
        for worker in instances.filter_map(Instance::wanted_on) {
            if let Some(view) = view_of(views, worker) {
                view.siblings += 1;
            }
        }
    }

    /// The workers with what is left of them.
    pub(super) fn views(&self) -> Vec<schedule::Worker> {
        let mut views: Vec<_> = self
            .workers
            .values()
            .map(|worker| {
                let node = worker.node();
                schedule::Worker {
                    id: worker.id(),
                    host: worker.host().to_owned(),
                    responding: worker.standing() == Standing::Reachable,
                    cordoned: worker.record.cordoned,
                    vcpus: node.vcpus,
                    vgpus: node.vgpus,
                    virtualization: node.virtualization.clone(),
                    architecture: node.architecture.clone(),
                    drivers: names_of(&node.csi_drivers),
                    addons: names_of(&node.supported_addons),
                    location: node.location.or(self.rules.location),
                    cpu_percent: node.cpu_percent,
                    memory_total: worker.memory_total(),
                    memory_available: node.memory,
                    disk_available: node.disk_free(),
                    disk_promised: 0,
                    committed: Share::default(),
                    unreported: Share::default(),
                    siblings: 0,
                    reach: Vec::new(),
                }
            })
            .collect();
        for service in self.services.values() {
            let share = Share { memory: service.document.sla.memory, vcpus: service.document.sla.vcpus };
            for instance in service.instances.values() {
                let Some(worker) = instance.wanted_on() else {
                    continue;
                };
                if let Some(view) = view_of(&mut views, worker) {
                    view.committed.add(share);
                    let promised = service.document.sla.storage.saturating_sub(instance.usage.megabytes());
                    view.disk_promised = view.disk_promised.saturating_add(promised);
                    if instance.unreported() {
                        view.unreported.add(share);
                    }
                }
            }
        }
        views
    }

    /// Whether a worker still has an instance of the same name, of a service that was removed and made again: a
    /// container's name is that of the instance, so the new one waits for the old one to go.
    fn name_in_use(&self, id: Id, number: u32) -> bool {
        let Some(name) = self.services.get(&id).map(|service| &service.document.job_name) else {
            return false;
        };
        self.named(name).any(|(other, service)| {
            let instance = service.instances.get(&number);
            other != id && instance.is_some_and(|instance| matches!(instance.phase, Phase::Removing { .. }))
        })
    }
}

/// The views are in the order of the workers' ids.
fn view_of(views: &mut [schedule::Worker], worker: Id) -> Option<&mut schedule::Worker> {
    let index = views.binary_search_by_key(&worker, |view| view.id).ok()?;
    views.get_mut(index)
}

pub(super) fn request(service: &Service) -> Request {
    let sla = &service.document.sla;
    // The clusters that it names are the root's to choose from.
    let Demands { nodes, addons, near, architectures, csi_drivers: drivers, cluster: _, allowed: _ } =
        Demands::of(sla);
    Request {
        memory: sla.memory,
        storage: sla.storage,
        vcpus: sla.vcpus,
        vgpus: sla.vgpus,
        virtualization: sla.virtualization.clone(),
        nodes,
        architectures,
        drivers,
        addons,
        near,
        links: Vec::new(),
        only_known: false,
        avoid: None,
    }
}
