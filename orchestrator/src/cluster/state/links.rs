//! Which services are to be near to which others, and how far workers are from where those run.
//!
//! The names that services ask by are looked up when a service comes or asks for something else, since what follows from them
//! is looked at every few seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use protocol::connectivity::Bound;
use protocol::id::Id;
use protocol::status::Status;

use super::{Service, State};
use crate::cluster::instance::{Instance, Phase};
use crate::cluster::round_trips::End;
use crate::schedule::{self, Link};

/// Of what is allowed, a new place must be within this part: else the next moment undoes the move.
const CLEARLY: f64 = 0.8;

/// Who asks to be near to whom, of the services that are here.
#[derive(Debug, Default)]
pub(super) struct Ties {
    asks: BTreeMap<Id, BTreeMap<Id, Bound>>,
    /// The other way round.
    asked_by: BTreeMap<Id, BTreeSet<Id>>,
}

impl Ties {
    /// Whether a service is to be near to another one, or another one to it.
    pub(super) fn has(&self, id: Id) -> bool {
        self.asks.contains_key(&id) || self.asked_by.contains_key(&id)
    }

    fn add(&mut self, from: Id, to: Id, bound: Bound) {
        let known = self.asks.entry(from).or_default().entry(to).or_insert(bound);
        *known = known.tighter(bound);
        self.asked_by.entry(to).or_default().insert(from);
    }

    fn forget(&mut self, id: Id) {
        for target in self.asks.remove(&id).unwrap_or_default().into_keys() {
            if let Some(askers) = self.asked_by.get_mut(&target) {
                askers.remove(&id);
                if askers.is_empty() {
                    self.asked_by.remove(&target);
                }
            }
        }
        for asker in self.asked_by.remove(&id).unwrap_or_default() {
            if let Some(targets) = self.asks.get_mut(&asker) {
                targets.remove(&id);
            }
        }
    }
}

/// What a service has to be near to.
#[derive(Debug, Default)]
pub(super) struct Links(pub(super) Vec<Neighbour>);

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) service: Id,
    pub(super) link: Link,
    /// The service asks for it itself.
    pub(super) is_asked: bool,
}

impl Links {
    /// For the choice of a place.
    pub(super) fn asked(&self) -> Vec<Link> {
        self.0.iter().map(|neighbour| neighbour.link.clone()).collect()
    }

    /// Whether it is more than a wish.
    pub(super) fn bind(&self) -> bool {
        self.0.iter().any(|neighbour| neighbour.link.bound.rigidness > 0.0)
    }

    /// Whether its own instances are to be near to each other.
    pub(super) fn are_to(&self, id: Id) -> bool {
        self.0.iter().any(|neighbour| neighbour.service == id)
    }

    pub(super) fn tightened(&self) -> Self {
        let tighter = |Neighbour { service, link, is_asked }: &Neighbour| {
            let mut link = link.clone();
            link.bound.milliseconds *= CLEARLY;
            Neighbour { service: *service, link, is_asked: *is_asked }
        };
        Self(self.0.iter().map(tighter).collect())
    }
}

impl State {
    /// Of a service that has come, or asks for something else.
    pub(super) fn link(&mut self, id: Id) {
        self.ties.forget(id);
        let Some(service) = self.services.get(&id) else { return };
        for asks in &service.connectivity {
            for (target, other) in &self.services {
                if asks.names(&other.document, &service.document) {
                    self.ties.add(id, *target, asks.bound);
                }
            }
        }
        for other in self.linked.iter().filter(|other| **other != id) {
            let Some(from) = self.services.get(other) else { continue };
            for asks in from.connectivity.iter().filter(|it| it.names(&service.document, &from.document)) {
                self.ties.add(*other, id, asks.bound);
            }
        }
        // Who waits for a place near another one may wait for nothing now.
        self.measuring.ways = true;
        if service.connectivity.is_empty() {
            self.linked.remove(&id);
            self.says_nothing_more_of_ways(id);
        } else {
            self.linked.insert(id);
        }
    }

    /// Of a service that is gone.
    pub(super) fn unlink(&mut self, id: Id) {
        self.ties.forget(id);
        self.linked.remove(&id);
    }

    /// What a service has to be near to: what it asks for itself, and those that ask it of the way to it.
    pub(super) fn links(&self, id: Id) -> Links {
        let Some(service) = self.services.get(&id).filter(|_| self.ties.has(id)) else {
            return Links::default();
        };
        let asks = self.ties.asks.get(&id).into_iter().flatten();
        let mut found: BTreeMap<Id, (Bound, bool)> =
            asks.map(|(target, bound)| (*target, (*bound, true))).collect();
        for asker in self.ties.asked_by.get(&id).into_iter().flatten() {
            let Some(bound) = self.ties.asks.get(asker).and_then(|targets| targets.get(&id)) else {
                continue;
            };
            let wish = Bound { rigidness: 0.0, ..*bound };
            let known = found.entry(*asker);
            known.and_modify(|(known, _)| *known = known.tighter(*bound)).or_insert((wish, false));
        }
        let neighbour = |(other, (bound, is_asked)): (Id, (Bound, bool))| {
            let target = short(self.services.get(&other)?, service);
            let link = Link { target, bound, wanted: bound.milliseconds };
            Some(Neighbour { service: other, link, is_asked })
        };
        Links(found.into_iter().filter_map(neighbour).collect())
    }

    /// The workers of an instance's neighbours, those of a service together with since when each instance is there.
    pub(super) fn neighbours(
        &self,
        neighbour: &Neighbour,
        except: (Id, u32),
    ) -> impl Iterator<Item = (Id, Option<Instant>)> {
        let instances = self.services.get(&neighbour.service).into_iter().flat_map(|it| &it.instances);
        let service = neighbour.service;
        instances.filter(move |(number, _)| (service, **number) != except).filter_map(|(_, instance)| {
            let since = match instance.phase {
                Phase::Up { since, .. } if is_settled(instance) => Some(since),
                _ => None,
            };
            Some((instance.wanted_on()?, since))
        })
    }

    /// Whether any of them runs here.
    pub(super) fn has_neighbours(&self, links: &Links, instance: (Id, u32)) -> bool {
        links.0.iter().any(|neighbour| self.neighbours(neighbour, instance).next().is_some())
    }

    /// Notes with each worker how far it is from an instance's neighbours.
    pub(super) fn see_reach(
        &self,
        links: &Links,
        instance: (Id, u32),
        views: &mut [schedule::Worker],
        now: Instant,
    ) {
        // What is the same for all workers is looked up once: there may be many of both.
        let mut ends: Vec<Vec<End<'_>>> = Vec::with_capacity(links.0.len());
        for neighbour in &links.0 {
            let workers: BTreeSet<Id> = self.neighbours(neighbour, instance).map(|(it, _)| it).collect();
            ends.push(workers.into_iter().map(|worker| self.round_trips.end(worker, now)).collect());
        }
        for view in views {
            view.reach.clear();
            if !links.0.is_empty() {
                let here = self.round_trips.end(view.id, now);
                let ways = links.0.iter().zip(&ends);
                view.reach.extend(ways.map(|(to, ends)| here.worst(ends, &to.link.bound)));
            }
        }
    }

    /// Of each worker those to which the way is to be measured, since an instance of one service is here and the other's there.
    pub(super) fn partners(&self) -> BTreeMap<Id, BTreeSet<Id>> {
        let mut partners: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        let on = |id: Id| -> BTreeSet<Id> {
            let instances = self.services.get(&id).into_iter().flat_map(|service| service.instances.values());
            instances.filter_map(Instance::wanted_on).collect()
        };
        for (id, targets) in &self.ties.asks {
            let here = on(*id);
            for there in targets.keys().flat_map(|target| on(*target)) {
                for here in here.iter().copied().filter(|here| *here != there) {
                    partners.entry(here).or_default().insert(there);
                    partners.entry(there).or_default().insert(here);
                }
            }
        }
        partners
    }
}

/// It runs, and is where it is to stay.
pub(super) fn is_settled(instance: &Instance) -> bool {
    instance.status() == Status::Running && instance.record.moving_from.is_none()
}

/// A service's name, as short as another one of its application needs it.
fn short(service: &Service, beside: &Service) -> String {
    let (service, beside) = (&service.document, &beside.document);
    let is_close = service.application_id == beside.application_id;
    if is_close { service.service_name.clone() } else { service.job_name.to_string() }
}
