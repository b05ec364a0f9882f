//! Which cluster gets what. Whatever refuses an instance, or has no worker for it, is not asked again for a while, and the next
//! one is; if there is none, the instance says so, and whoever is above looks for a place elsewhere.

use protocol::constraint::Constraint;
use protocol::id::Id;
use protocol::sla::Microservice;
use protocol::status::Status;
use serde_json::Value;

use super::State;
use crate::children::command::CommandKind;
use crate::children::key as of_cluster;
use crate::children::place::{Candidate, Refusal, choose};
use crate::clock::Moment;

impl State {
    /// Gives those that wait to clusters, as far as there is one.
    pub(in crate::branch) fn place_waiting(&mut self, now: Moment) {
        if self.waiting.is_empty() || !std::mem::take(&mut self.room) {
            return;
        }
        let mut candidates = self.candidates(now);
        for (service, number) in self.waiting.clone() {
            match self.choose(service, number, &candidates, now) {
                Some(Ok(chosen)) => self.assign(service, number, &chosen, &mut candidates, now),
                Some(Err(refusal)) => self.explain(service, number, &refusal),
                None => {}
            }
        }
    }

    /// They may be tried again.
    pub(super) fn retry(&mut self) {
        self.room = true;
    }

    pub(super) fn candidates(&self, now: Moment) -> Vec<Candidate> {
        self.clusters.values().map(|cluster| cluster.clone().candidate(&self.live, now)).collect()
    }

    /// A cluster for an instance, of those that have not refused it lately. `None`: there is no such instance.
    pub(super) fn choose(
        &self,
        service: Id,
        number: u32,
        candidates: &[Candidate],
        now: Moment,
    ) -> Option<Result<Candidate, Refusal>> {
        let instance = self.services.get(&service)?.get(&number)?;
        let sla = self.asked_of_clusters(&instance.kept.service.sla);
        let is_open = |other: &&Candidate| !self.live.refusals.is_refused((service, number), other.id, now);
        let open: Vec<_> = candidates.iter().filter(is_open).cloned().collect();
        if open.is_empty() && !candidates.is_empty() {
            let detail = instance.refusal.clone().unwrap_or_else(|| "No other cluster is left.".to_owned());
            return Some(Err(Refusal { status: Status::NoActiveClusterWithCapacity, detail }));
        }
        Some(choose(&sla, &open).cloned().map_err(|refusal| match &instance.refusal {
            Some(why) => Refusal { detail: format!("{why} Of the others: {}", refusal.detail), ..refusal },
            None => refusal,
        }))
    }

    pub(super) fn asked_of_clusters(&self, sla: &Microservice) -> Microservice {
        granted(sla, &self.name, self.clusters.values().map(|cluster| cluster.name.as_str()))
    }

    pub(super) fn assign(
        &mut self,
        service: Id,
        number: u32,
        chosen: &Candidate,
        candidates: &mut [Candidate],
        now: Moment,
    ) {
        let Some(instance) = self.instance_mut(service, number) else { return };
        instance.give_to(chosen.id, &chosen.location);
        let (name, memory) = (instance.kept.service.job_name.clone(), instance.kept.service.sla.memory);
        tracing::info!(service = %name, instance = number, cluster = %chosen.name, "instance placed");
        self.waiting.remove(&(service, number));
        self.live.promise(chosen.id, memory, now);
        for candidate in candidates.iter_mut().filter(|candidate| candidate.id == chosen.id) {
            candidate.memory = candidate.memory.saturating_sub(memory);
        }
        self.command(chosen.id, service, CommandKind::Deploy(number));
        self.keep(service, number);
    }

    pub(super) fn explain(&mut self, service: Id, number: u32, refusal: &Refusal) {
        let Some(instance) = self.instance_mut(service, number) else { return };
        if instance.explain(refusal.status, &refusal.detail) {
            let name = &instance.kept.service.job_name;
            tracing::warn!(service = %name, instance = number, detail = refusal.detail, "instance waits");
            self.keep(service, number);
        }
    }

    /// A cluster does not take an instance: the next one is to.
    pub(in crate::branch) fn refused(
        &mut self,
        cluster: Id,
        service: Id,
        number: u32,
        why: String,
        now: Moment,
    ) {
        // It was told meanwhile of something else.
        let Some(instance) = self.instance_mut(service, number).filter(|instance| instance.is_of(cluster))
        else {
            return;
        };
        instance.kept.cluster = None;
        instance.refusal = Some(why);
        self.effects.keep.insert(of_cluster::command(cluster, service, number), None);
        self.live.refusals.note((service, number), cluster, now);
        self.waiting.insert((service, number));
        self.room = true;
        self.keep(service, number);
    }

    /// A cluster could not be told of an instance, and is told again.
    pub(in crate::branch) fn unreached(&mut self, cluster: Id, service: Id, number: u32, why: &str) {
        let Some(instance) = self.instance_mut(service, number).filter(|instance| instance.is_of(cluster))
        else {
            return;
        };
        let is_new = instance.document.status == Status::ClusterScheduled;
        if is_new && instance.explain(Status::ClusterScheduled, why) {
            self.keep(service, number);
        }
    }

    /// An instance finds no worker in its cluster: another one gets it, if there is one that fits.
    pub(super) fn hand_over(
        &mut self,
        from: Id,
        service: Id,
        number: u32,
        candidates: &mut [Candidate],
        now: Moment,
    ) -> bool {
        let Some(Ok(chosen)) = self.choose(service, number, candidates, now) else { return false };
        if chosen.id == from {
            return false;
        }
        self.command(from, service, CommandKind::Remove(number));
        self.assign(service, number, &chosen, candidates, now);
        true
    }
}

/// What a service asks of the clusters of a branch, when the branch has granted what it can: to be in this branch. Among the
/// clusters that it allows there may be some of these, too, and then it has to be one of them.
fn granted<'c>(
    sla: &Microservice,
    branch: &str,
    clusters: impl Iterator<Item = &'c str> + Clone,
) -> Microservice {
    let mut sla = sla.clone();
    sla.constraints.retain_mut(|value| match Constraint::read(value) {
        Ok(Some(Constraint::Direct { cluster, nodes })) if cluster.as_deref() == Some(branch) => {
            value["cluster"] = Value::from("");
            !nodes.is_empty()
        }
        Ok(Some(Constraint::Clusters { allowed })) => {
            let is_allowed = |name: &str| allowed.iter().any(|allowed| allowed == name);
            !is_allowed(branch) || clusters.clone().any(is_allowed)
        }
        _ => true,
    });
    sla
}
