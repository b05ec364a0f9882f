//! Services that are to be near each other by the time of a round trip (`connectivity`).
//!
//! An instance of the service that asks has to be near to all instances of the other one. Where both ask, the tighter bounds
//! hold. Where one asks, it is a wish of the other one, which is placed in any case: the one that asks follows. If no instance of
//! the other one is here, it is waited for a little, since applications come in pieces; then there is nothing to be near to.
//!
//! An instance of the service that asks moves when measurements, and not just estimates, have shown for a while that it is too
//! far away, if there is a place that is clearly near enough; and not again for a time that grows with each move. Until then it
//! stays and says so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::connectivity::Connectivity;
use protocol::decision::Decision;
use protocol::id::Id;

use super::State;
use super::links::{Links, is_settled};
use crate::cluster::instance::Phase;
use crate::cluster::worker::{Standing, Worker};
use crate::schedule::{self, Choice, Link, Reach, Request, RoundTrip};
use crate::standing::RUNNING_BUT;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// For how long an instance must be too far away before it moves.
const SETTLED: Duration = Duration::from_secs(20);
/// How often a place is looked for while there is none.
const AGAIN: Duration = Duration::from_secs(10);
/// For so many instances a place is looked for at a time: in a large cluster each look takes long, and what one worker's way
/// changes is news for many.
const SEARCHES: usize = 2;
/// For how long what an instance is to be near to is waited for.
const AWAITED: Duration = Duration::from_secs(5);
/// After a move, until the next one of the instance; each time twice as long.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_LAST: Duration = Duration::from_secs(3600);

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

impl Violation {
    fn describe(&self) -> String {
        let Self { link, trip } = self;
        let took = trip.describe(&link.bound);
        format!("its round trip to {} is {took}, wants {} ms", link.target, link.wanted)
    }
}

impl State {
    /// Whether it is worth while to place an instance a little later, when that is here which it is to be near to.
    pub(super) fn awaits_neighbours(&mut self, instance: (Id, u32), now: Instant) -> bool {
        let asking = self.services.get(&instance.0).filter(|service| !service.connectivity.is_empty());
        let Some(service) = asking else { return false };
        let links = self.links(instance.0);
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

    /// Looks for instances that are too far away, and lets them move or say so.
    pub(super) fn keep_near(&mut self, now: Instant) {
        let is_soon = |looked: Instant| now.saturating_duration_since(looked) < EVERY;
        let is_idle =
            self.linked.is_empty() && self.lateness.of.is_empty() && self.measuring.partners.is_empty();
        if is_idle || self.lateness.looked.is_some_and(is_soon) {
            return;
        }
        self.lateness.looked = Some(now);
        // What waits for something to be known of a way may go.
        self.measuring.ways |= std::mem::take(&mut self.measuring.is_news);
        self.measuring.partners = self.partners();
        self.lateness.awaiting.retain(|instance, _| self.waiting.contains(instance));
        let services: Vec<_> = self.linked.iter().copied().collect();
        let mut due = Vec::new();
        for id in services {
            let links = self.links(id);
            let numbers = self.services.get(&id).into_iter().flat_map(|service| service.instances.keys());
            for number in numbers.copied().collect::<Vec<_>>() {
                if self.is_late(&links, (id, number), now) {
                    due.push((id, number));
                }
            }
        }
        self.bring_nearer(due, now);
        let services = &self.services;
        let is_there = |(id, number): &(Id, u32)| {
            services.get(id).is_some_and(|service| service.instances.contains_key(number))
        };
        self.lateness.of.retain(|instance, late| {
            let rests = late.not_before.is_none_or(|until| until + PAUSE_LAST <= now);
            is_there(instance) && !(late.since.is_none() && rests)
        });
    }

    /// Whether something is to be done about an instance, since it has been too far away for long enough.
    fn is_late(&mut self, links: &Links, (id, number): (Id, u32), now: Instant) -> bool {
        // A silent worker keeps what it has until it is given up, and one that is drained lets all go that can.
        let worker = self.places.of((id, number)).and_then(|worker| self.workers.get(&worker));
        let is_judged = |worker: &Worker| worker.standing() == Standing::Reachable && !worker.record.draining;
        let is_judged = worker.is_some_and(is_judged);
        if !is_judged || self.violation(links, (id, number), now).is_none() {
            if let Some(late) = self.lateness.of.get_mut(&(id, number)) {
                (late.since, late.tried) = (None, None);
            }
            if is_judged && self.says_too_far(id, number) {
                self.say(id, number, "Running".to_owned());
            }
            return false;
        }
        let late = self.lateness.of.entry((id, number)).or_default();
        let since = *late.since.get_or_insert(now);
        let has_tried = late.tried.is_some_and(|tried| now.saturating_duration_since(tried) < AGAIN);
        now.saturating_duration_since(since) >= SETTLED && !has_tried
    }

    /// Lets those move that can, a few at a time: who has waited longest for it comes first.
    fn bring_nearer(&mut self, mut due: Vec<(Id, u32)>, now: Instant) {
        due.sort_by_key(|instance| self.lateness.of.get(instance).and_then(|late| late.tried));
        let (mut searches, mut views) = (0, None);
        for (id, number) in due {
            let links = self.links(id);
            // One that has moved just now may have come near to others, too.
            let Some(violation) = self.violation(&links, (id, number), now) else { continue };
            let what = violation.describe();
            let refusal = match self.stays_for(&violation, (id, number), now) {
                Some(reason) => reason.to_owned(),
                None if searches == SEARCHES => continue,
                None => {
                    searches += 1;
                    let views = views.get_or_insert_with(|| self.views());
                    match self.let_move_near(&links, (id, number), &what, views, now) {
                        Ok(()) => continue,
                        Err(refusal) => refusal,
                    }
                }
            };
            if let Some(late) = self.lateness.of.get_mut(&(id, number)) {
                late.tried = Some(now);
            }
            if !self.says_too_far(id, number) {
                tracing::warn!(service = %id, instance = number, what, refusal, "instance stays too far away");
                self.say(id, number, format!("{RUNNING_BUT}{what}; stays: {refusal}"));
            }
        }
    }

    /// Why an instance is not to move, whatever place there is.
    fn stays_for(
        &self,
        violation: &Violation,
        (id, number): (Id, u32),
        now: Instant,
    ) -> Option<&'static str> {
        let late = self.lateness.of.get(&(id, number));
        if late.and_then(|late| late.not_before).is_some_and(|until| now < until) {
            return Some("it has moved a short time ago");
        }
        // Two that were slow, and both ends have noted, count for minutes.
        if violation.trip.milliseconds <= violation.link.bound.milliseconds {
            return Some("it is near enough most of the time");
        }
        let service = self.services.get(&id)?;
        if service.document.sla.one_shot {
            return Some("it runs once");
        }
        let mut records = service.instances.values().map(|instance| &instance.record);
        records.any(|record| record.moving_from.is_some()).then_some("another instance of it is moving")
    }

    /// The worst of what an instance asks for and does not have, by measurements, and not just for now.
    fn violation(&self, links: &Links, (id, number): (Id, u32), now: Instant) -> Option<Violation> {
        let instance = self.services.get(&id)?.instances.get(&number)?;
        let Phase::Up { worker, since, .. } = instance.phase else { return None };
        if !self.is_heard(worker) || !is_settled(instance) {
            return None;
        }
        let asked = links.0.iter().filter(|neighbour| neighbour.is_asked);
        let violations = asked.flat_map(|neighbour| {
            let bound = neighbour.link.bound;
            self.neighbours(neighbour, (id, number)).filter_map(move |(other, other_since)| {
                let begun = since.max(other_since?);
                let has_converged = now.saturating_duration_since(begun) >= bound.convergence;
                if !has_converged || !self.is_heard(other) {
                    return None;
                }
                match self.round_trips.reach(worker, other, &bound, now) {
                    Reach::Known(trip) if trip.is_measured && trip.violates(&bound) => {
                        Some(Violation { link: neighbour.link.clone(), trip })
                    }
                    _ => None,
                }
            })
        });
        violations.min_by(|a, b| a.trip.share.total_cmp(&b.trip.share))
    }

    /// Of one that is silent nothing is moved, nor on its account: what was measured is of another time.
    fn is_heard(&self, worker: Id) -> bool {
        self.workers.get(&worker).is_some_and(|worker| worker.standing() == Standing::Reachable)
    }

    /// Lets an instance move to where it is near enough. Else says why it does not.
    fn let_move_near(
        &mut self,
        links: &Links,
        (id, number): (Id, u32),
        what: &str,
        views: &mut [schedule::Worker],
        now: Instant,
    ) -> Result<(), String> {
        let Some(service) = self.services.get(&id) else { return Err(String::new()) };
        self.count_siblings(id, views);
        let clearly = links.tightened();
        self.see_reach(&clearly, (id, number), views, now);
        let request =
            Request { links: clearly.asked(), only_known: true, ..super::placing::request(service) };
        let Choice { chosen, decision } = schedule::place(&request, views, self.rules.placement.algorithm());
        let decision = Decision { at: crate::clock::now(), ..decision };
        let place = chosen.and_then(|chosen| {
            let worker = self.workers.get(&views[chosen].id)?;
            Some((chosen, worker.node().ip.clone(), worker.port()))
        });
        let Some(instance) = self.instance_mut(id, number) else { return Err(String::new()) };
        let (Some(from), Some((chosen, host_ip, host_port))) = (instance.wanted_on(), place) else {
            let refusal = schedule::Refusal(&decision).to_string();
            instance.attempts.add(decision);
            return Err(refusal);
        };
        instance.attempts.add(decision);
        instance.move_away(from, &format!("Moving nearer: {what}"));
        // At once, so that nobody else takes the place, nor a place is taken that is not clearly near enough.
        instance.place(views[chosen].id, &host_ip, host_port, now);
        views[chosen].reserve(&request);
        let late = self.lateness.of.entry((id, number)).or_default();
        let pause = PAUSE_FIRST.saturating_mul(1 << late.moves.min(16)).min(PAUSE_LAST);
        *late =
            Late { moves: late.moves.saturating_add(1), not_before: Some(now + pause), ..Late::default() };
        tracing::info!(
            service = %id, instance = number, what, worker = %views[chosen].host,
            "instance moves nearer to what it needs"
        );
        self.measuring.ways = true;
        self.changed(id, number);
        self.tell_deploy(id, number);
        Ok(())
    }

    /// Of a service that asks for nothing any more.
    pub(super) fn says_nothing_more_of_ways(&mut self, id: Id) {
        let numbers = self.services.get(&id).into_iter().flat_map(|service| service.instances.keys());
        for number in numbers.copied().collect::<Vec<_>>() {
            if self.says_too_far(id, number) {
                self.say(id, number, "Running".to_owned());
            }
        }
    }

    fn says_too_far(&self, id: Id, number: u32) -> bool {
        let instance = self.services.get(&id).and_then(|service| service.instances.get(&number));
        let detail = instance.and_then(|instance| instance.record.document.status_detail.as_ref());
        detail.is_some_and(|detail| detail.starts_with(RUNNING_BUT))
    }

    fn say(&mut self, id: Id, number: u32, detail: String) {
        if let Some(instance) = self.instance_mut(id, number).filter(|instance| is_settled(instance)) {
            instance.remark(detail);
            self.changed(id, number);
        }
    }
}
