//! Services that are to be near each other by the time of a round trip (`connectivity`).
//!
//! An instance of the service that asks has to be near to all instances of the other one. Where both ask, the tighter bounds
//! hold. Where one asks, it is a wish of the other one, which is placed in any case: the one that asks follows. If no instance of
//! the other one is here, it is waited for a little, since applications come in pieces; then there is nothing to be near to.
//!
//! An instance of the service that asks moves when measurements, and not just estimates, have shown for a while that it is too
//! far away, if there is a place that is clearly near enough; and not again for a time that grows with each move. Until then it
//! stays and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use protocol::connectivity::Connectivity;
use protocol::decision::Decision;
use protocol::id::Id;
use protocol::status::Status;

use super::{Service, State};
use crate::cluster::instance::{Instance, Phase};
use crate::schedule::{self, Choice, Link, Reach, Request, RoundTrip};
use crate::standing::RUNNING_BUT;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// For how long an instance must be too far away before it moves.
const SETTLED: Duration = Duration::from_secs(20);
/// How often a place is looked for while there is none.
const AGAIN: Duration = Duration::from_secs(10);
/// For how long what an instance is to be near to is waited for.
const AWAITED: Duration = Duration::from_secs(5);
/// Of what is allowed, a new place must be within this part: else the next moment undoes the move.
const CLEARLY: f64 = 0.8;
/// After a move, until the next one of the instance; each time twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_LAST: Duration = Duration::from_secs(3600);

/// What a service has to be near to.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Neighbour>);

#[derive(Debug)]
struct Neighbour {
    service: Id,
    link: Link,
    /// The service asks for it itself.
    is_asked: bool,
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

    fn tightened(&self) -> Self {
        let tighter = |Neighbour { service, link, is_asked }: &Neighbour| {
            let mut link = link.clone();
            link.bound.milliseconds *= CLEARLY;
            Neighbour { service: *service, link, is_asked: *is_asked }
        };
        Self(self.0.iter().map(tighter).collect())
    }
}

/// Instances that are, or were lately, not near to what they are to be near to.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    of: BTreeMap<(Id, u32), Late>,
    /// Instances that wait for what they are to be near to, since when.
    awaiting: BTreeMap<(Id, u32), Instant>,
    looked: Option<Instant>,
}

#[derive(Debug, Default)]
struct Late {
    since: Option<Instant>,
    moves: u32,
    not_before: Option<Instant>,
    /// When a place was last looked for in vain.
    tried: Option<Instant>,
}

/// What is too far away.
struct Violation {
    link: Link,
    trip: RoundTrip,
}

impl State {
    /// Of a service that has come, or has changed.
    pub(super) fn link(&mut self, id: Id) {
        let is_linked = self.services.get(&id).is_some_and(|service| !service.connectivity.is_empty());
        if is_linked {
            self.linked.insert(id);
        } else {
            self.linked.remove(&id);
        }
    }

    /// What a service has to be near to: what it asks for itself, and those that ask it of the way to it.
    pub(super) fn links(&self, id: Id) -> Links {
        let Some(service) = self.services.get(&id).filter(|_| !self.linked.is_empty()) else {
            return Links::default();
        };
        let mut found: BTreeMap<Id, Neighbour> = BTreeMap::new();
        let mut add = |other: Id, asks: &Connectivity, is_asked: bool| {
            let Some(name) = self.services.get(&other).map(|it| short(it, service)) else { return };
            let known = found.entry(other).or_insert_with(|| Neighbour {
                service: other,
                link: Link { target: name, bound: asks.bound },
                is_asked,
            });
            known.link.bound = known.link.bound.tighter(asks.bound);
            known.is_asked |= is_asked;
        };
        for asks in &service.connectivity {
            self.targets(asks, service).into_iter().for_each(|target| add(target, asks, true));
        }
        for (other, from) in self.linked.iter().filter_map(|other| Some((*other, self.services.get(other)?)))
        {
            let asks = from.connectivity.iter().filter(|asks| asks.names(&service.document, &from.document));
            asks.for_each(|asks| add(other, asks, false));
        }
        for neighbour in found.values_mut().filter(|neighbour| !neighbour.is_asked) {
            neighbour.link.bound.rigidness = 0.0;
        }
        Links(found.into_values().collect())
    }

    fn targets(&self, asks: &Connectivity, own: &Service) -> Vec<Id> {
        let all = self.services.iter().filter(|(_, service)| asks.names(&service.document, &own.document));
        all.map(|(id, _)| *id).collect()
    }

    /// The workers of an instance's neighbours, those of a service together with since when each instance is there.
    fn neighbours(
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

    /// Whether it is worth while to place an instance a little later, when that is here which it is to be near to.
    pub(super) fn awaits_neighbours(&mut self, links: &Links, instance: (Id, u32), now: Instant) -> bool {
        let Some(service) = self.services.get(&instance.0) else { return false };
        let is_here = |asks: &Connectivity| {
            let mut others = links.0.iter().filter(|neighbour| {
                let other = self.services.get(&neighbour.service);
                other.is_some_and(|other| asks.names(&other.document, &service.document))
            });
            let is_itself = asks.names(&service.document, &service.document);
            is_itself || others.any(|neighbour| self.neighbours(neighbour, instance).next().is_some())
        };
        if service.connectivity.iter().all(is_here) {
            return false;
        }
        let since = *self.lateness.awaiting.entry(instance).or_insert(now);
        now.saturating_duration_since(since) < AWAITED
    }

    /// Notes with each worker how far it is from an instance's neighbours.
    pub(super) fn see_reach(
        &self,
        links: &Links,
        instance: (Id, u32),
        views: &mut [schedule::Worker],
        now: Instant,
    ) {
        let at: Vec<BTreeSet<Id>> = links
            .0
            .iter()
            .map(|neighbour| self.neighbours(neighbour, instance).map(|(worker, _)| worker).collect())
            .collect();
        for view in views {
            let ways = links.0.iter().zip(&at).map(|(neighbour, workers)| {
                let bound = &neighbour.link.bound;
                let reach = workers.iter().map(|worker| self.round_trips.reach(view.id, *worker, bound, now));
                reach.fold(Reach::Anywhere, |worst, reach| worst.worse(reach, bound))
            });
            view.reach = ways.collect();
        }
    }

    /// Of each worker those to which the way is to be measured, since an instance of one service is here and the other's there.
    fn partners(&self) -> BTreeMap<Id, BTreeSet<Id>> {
        let mut partners: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
        for (id, service) in self.linked.iter().filter_map(|id| Some((*id, self.services.get(id)?))) {
            for neighbour in self.links(id).0.iter().filter(|neighbour| neighbour.is_asked) {
                for (number, instance) in &service.instances {
                    let Some(here) = instance.wanted_on() else { continue };
                    for (there, _) in
                        self.neighbours(neighbour, (id, *number)).filter(|(there, _)| *there != here)
                    {
                        partners.entry(here).or_default().insert(there);
                        partners.entry(there).or_default().insert(here);
                    }
                }
            }
        }
        partners
    }

    /// Looks for instances that are too far away, and lets them move or say so.
    pub(super) fn keep_near(&mut self, now: Instant) {
        let is_soon = |looked: Instant| now.saturating_duration_since(looked) < EVERY;
        let is_idle =
            self.linked.is_empty() && self.lateness.of.is_empty() && self.measuring.partners.is_empty();
        if is_idle || self.lateness.looked.is_some_and(is_soon) {
            return;
        }
        self.lateness.looked = Some(now);
        self.measuring.partners = self.partners();
        self.lateness.awaiting.retain(|instance, _| self.waiting.contains(instance));
        let services: Vec<_> = self.linked.iter().copied().collect();
        for id in services {
            let links = self.links(id);
            let numbers = self.services.get(&id).into_iter().flat_map(|service| service.instances.keys());
            for number in numbers.copied().collect::<Vec<_>>() {
                self.keep_one_near(&links, (id, number), now);
            }
        }
        let services = &self.services;
        let is_there = |(id, number): &(Id, u32)| {
            services.get(id).is_some_and(|service| service.instances.contains_key(number))
        };
        self.lateness.of.retain(|instance, late| {
            let rests = late.not_before.is_none_or(|until| until + PAUSE_LAST <= now);
            is_there(instance) && !(late.since.is_none() && rests)
        });
    }

    fn keep_one_near(&mut self, links: &Links, (id, number): (Id, u32), now: Instant) {
        let Some(violation) = self.violation(links, (id, number), now) else {
            if let Some(late) = self.lateness.of.get_mut(&(id, number)) {
                (late.since, late.tried) = (None, None);
            }
            if self.says_too_far(id, number) {
                self.say(id, number, "Running".to_owned());
            }
            return;
        };
        let late = self.lateness.of.entry((id, number)).or_default();
        let since = *late.since.get_or_insert(now);
        let rests = late.not_before.is_some_and(|until| now < until);
        let has_tried = late.tried.is_some_and(|tried| now.saturating_duration_since(tried) < AGAIN);
        if now.saturating_duration_since(since) < SETTLED || has_tried {
            return;
        }
        late.tried = Some(now);
        let Violation { link, trip } = violation;
        let what = format!(
            "its round trip to {} is {}, wants {} ms",
            link.target,
            trip.describe(&link.bound),
            link.bound.milliseconds
        );
        let refusal = if rests {
            "it has moved a short time ago".to_owned()
        } else {
            match self.let_move_near(links, (id, number), &what, now) {
                Ok(()) => return,
                Err(refusal) => refusal,
            }
        };
        if !self.says_too_far(id, number) {
            tracing::warn!(service = %id, instance = number, what, refusal, "instance stays too far away");
            self.say(id, number, format!("{RUNNING_BUT}{what}; stays: {refusal}"));
        }
    }

    /// The worst of what an instance asks for and does not have, by measurements, and not just for now.
    fn violation(&self, links: &Links, (id, number): (Id, u32), now: Instant) -> Option<Violation> {
        let instance = self.services.get(&id)?.instances.get(&number)?;
        let Phase::Up { worker, since, .. } = instance.phase else { return None };
        if !is_settled(instance) {
            return None;
        }
        let asked = links.0.iter().filter(|neighbour| neighbour.is_asked);
        let violations = asked.flat_map(|neighbour| {
            let bound = neighbour.link.bound;
            self.neighbours(neighbour, (id, number)).filter_map(move |(other, other_since)| {
                let begun = since.max(other_since?);
                let has_converged = now.saturating_duration_since(begun) >= bound.convergence;
                match self.round_trips.reach(worker, other, &bound, now) {
                    Reach::Known(trip) if trip.is_measured && trip.violates(&bound) && has_converged => {
                        Some(Violation { link: neighbour.link.clone(), trip })
                    }
                    _ => None,
                }
            })
        });
        violations.min_by(|a, b| a.trip.share.total_cmp(&b.trip.share))
    }

    /// Lets an instance move to where it is near enough. Else says why it does not.
    fn let_move_near(
        &mut self,
        links: &Links,
        (id, number): (Id, u32),
        what: &str,
        now: Instant,
    ) -> Result<(), String> {
        let Some(service) = self.services.get(&id) else { return Err(String::new()) };
        if service.document.sla.one_shot {
            return Err("it runs once".to_owned());
        }
        if service.instances.values().any(|instance| instance.record.moving_from.is_some()) {
            return Err("another instance of it is moving".to_owned());
        }
        let mut views = self.views();
        self.count_siblings(id, &mut views);
        let clearly = links.tightened();
        self.see_reach(&clearly, (id, number), &mut views, now);
        let request =
            Request { links: clearly.asked(), only_known: true, ..super::placing::request(service) };
        let Choice { chosen, decision } = schedule::place(&request, &views, self.rules.placement.algorithm());
        let Some(instance) = self.instance_mut(id, number) else { return Err(String::new()) };
        let Some(from) = instance.wanted_on().filter(|_| chosen.is_some()) else {
            let refusal = schedule::Refusal(&decision).to_string();
            instance.attempts.add(Decision { at: crate::clock::now(), ..decision });
            return Err(refusal);
        };
        instance.move_away(from, &format!("Moving nearer: {what}"));
        tracing::info!(service = %id, instance = number, what, "instance moves nearer to what it needs");
        let late = self.lateness.of.entry((id, number)).or_default();
        let pause = PAUSE_FIRST.saturating_mul(1 << late.moves.min(16)).min(PAUSE_LAST);
        *late =
            Late { moves: late.moves.saturating_add(1), not_before: Some(now + pause), ..Late::default() };
        self.changed(id, number);
        // Before its worker can name it again.
        self.place_waiting(now);
        Ok(())
    }

    fn says_too_far(&self, id: Id, number: u32) -> bool {
        let instance = self.services.get(&id).and_then(|service| service.instances.get(&number));
        let detail = instance.and_then(|instance| instance.record.document.status_detail.as_ref());
        detail.is_some_and(|detail| detail.starts_with(RUNNING_BUT))
    }

    fn say(&mut self, id: Id, number: u32, detail: String) {
        if let Some(instance) = self.instance_mut(id, number).filter(|instance| is_settled(instance)) {
            instance.record.document.status_detail = Some(detail);
            self.changed(id, number);
        }
    }
}

/// It runs, and is where it is to stay.
fn is_settled(instance: &Instance) -> bool {
    instance.status() == Status::Running && instance.record.moving_from.is_none()
}

/// A service's name, as short as another one of its application needs it.
fn short(service: &Service, beside: &Service) -> String {
    let (service, beside) = (&service.document, &beside.document);
    let is_close = service.application_id == beside.application_id;
    if is_close { service.service_name.clone() } else { service.job_name.to_string() }
}
