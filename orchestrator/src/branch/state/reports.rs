//! What clusters say of themselves and of their instances.

use std::collections::HashSet;
use std::net::IpAddr;

use protocol::cluster::ReportedService;
use protocol::id::Id;
use protocol::net::NodeItself;
use protocol::service::Instance as Document;
use protocol::status::Status;

use super::State;
use crate::children::cluster::Cluster;
use crate::children::command::CommandKind;
use crate::children::live::UnknownBase;
use crate::children::report::Read;
use crate::clock::Moment;
use crate::wish::Wish;

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::branch) enum Untaken {
    /// The cluster is to register, first or again.
    Unregistered,
    /// It continues one that is not known.
    UnknownBase,
}

impl State {
    /// Takes a cluster's report. Gives the number that the cluster may continue it by, if it may: the one that is offered.
    pub(in crate::branch) fn reported(
        &mut self,
        cluster: Id,
        read: Read,
        offered: u32,
        now: Moment,
    ) -> Result<Option<u32>, Untaken> {
        let Read { report, jobs, is_whole } = read;
        // One of Oakestra's would not register again.
        let is_ours = report.workers.is_some();
        let is_to_begin_anew = self.anew.contains(&cluster) && is_ours;
        if !self.clusters.contains_key(&cluster) || is_to_begin_anew {
            return Err(Untaken::Unregistered);
        }
        self.anew.remove(&cluster);
        let has_news =
            !jobs.is_empty() || report.since.is_none() || report.workers.iter().any(|all| !all.is_empty());
        let is_audit = match self.live.reported(cluster, report, now) {
            Ok(is_audit) => is_audit && is_whole,
            Err(UnknownBase) => return Err(Untaken::UnknownBase),
        };
        let mut without_room = Vec::new();
        let reported: HashSet<_> = jobs
            .iter()
            .flat_map(|job| job.instance_list.iter().map(|instance| (job.id, instance.instance_number)))
            .collect();
        for job in jobs {
            self.take_service(cluster, job, &mut without_room);
        }
        self.heard(cluster);
        self.effects.report |= has_news;
        if !without_room.is_empty() {
            let mut candidates = self.candidates(now);
            for (service, number) in without_room {
                self.live.refusals.note((service, number), cluster, now);
                self.hand_over(cluster, service, number, &mut candidates, now);
            }
        }
        if is_audit {
            self.deploy_lost(cluster, &reported);
        }
        Ok(self.live.taken(cluster, offered))
    }

    fn take_service(&mut self, cluster: Id, reported: ReportedService, without_room: &mut Vec<(Id, u32)>) {
        let ReportedService { id: service, job_name, instance_list, .. } = reported;
        for document in instance_list {
            let number = document.instance_number;
            let is_gone = document.status == Status::Undeployed;
            match self.instance_mut(service, number) {
                Some(instance) if instance.is_of(cluster) => {
                    // One that was taken away from here and given back is another one.
                    if is_gone {
                        continue;
                    }
                    let is_news = instance.observe(document);
                    if instance.is_unschedulable() {
                        without_room.push((service, number));
                    }
                    if is_news {
                        self.keep(service, number);
                    } else {
                        self.told.changed.insert(service);
                    }
                }
                None if is_gone => {
                    let is_number =
                        |(id, _, gone): &(Id, _, Document)| *id == service && gone.instance_number == number;
                    if !self.departed.iter().any(is_number) {
                        let gone = Document::new(number, Status::Undeployed);
                        self.departed.push((service, job_name.clone(), gone));
                    }
                }
                Some(_) if is_gone => {}
                Some(_) | None => {
                    tracing::info!(%cluster, service = %job_name, instance = number, "cluster runs what it is not to run");
                    self.command(cluster, service, CommandKind::Remove(number));
                }
            }
        }
    }

    /// Gives a cluster again what it was given and does not report: it has lost its memory.
    fn deploy_lost(&mut self, cluster: Id, reported: &HashSet<(Id, u32)>) {
        let mut lost = Vec::new();
        for (service, instances) in &self.services {
            for (number, instance) in instances {
                let is_lost = instance.is_of(cluster)
                    && instance.document.status != Status::Completed
                    && !reported.contains(&(*service, *number));
                if is_lost {
                    lost.push((*service, *number));
                }
            }
        }
        for (service, number) in lost {
            tracing::warn!(%cluster, %service, instance = number, "cluster does not report this instance, told again");
            self.command(cluster, service, CommandKind::Deploy(number));
        }
    }

    /// The cluster that has told of a worker.
    pub(in crate::branch) fn cluster_of_worker(&self, worker: Id) -> Option<Cluster> {
        self.clusters.get(&self.live.cluster_of_worker(worker)?).cloned()
    }

    /// A cluster has kept an operator's wish, which its next report will show.
    pub(in crate::branch) fn heed(&mut self, cluster: Id, worker: Id, wish: Wish) {
        self.live.heed(cluster, worker, wish);
        self.effects.report = true;
    }

    /// A cluster has deleted a worker, which its next report will show.
    pub(in crate::branch) fn deleted(&mut self, cluster: Id, worker: Id) {
        self.live.deleted(cluster, worker);
        self.effects.report = true;
    }

    /// The node of one of the clusters whose own processes speak under this NsIP.
    pub(in crate::branch) fn node_itself(&self, address: IpAddr) -> Option<NodeItself> {
        self.live.node_itself(address).cloned()
    }

    /// What is shown of an instance, also when its cluster is silent. Nothing of one that ran before a restart and whose cluster
    /// has not been heard since: the one above may have given it to another one meanwhile, and would take it back from there.
    pub(super) fn document(&self, service: Id, number: u32, now: Moment) -> Option<Document> {
        let instance = self.services.get(&service)?.get(&number)?;
        let is_unheard = instance.kept.cluster.is_some_and(|cluster| self.live.cluster(cluster).is_none());
        if is_unheard && instance.document.status == Status::Running {
            return None;
        }
        let mut document = Document { cluster_id: self.id, ..instance.document.clone() };
        let is_silent = instance.kept.cluster.is_some_and(|cluster| self.live.is_silent(cluster, now));
        if is_silent && !instance.is_unschedulable() {
            document.status_detail =
                Some("Its cluster is not heard of: the state is what it said last".into());
        }
        Some(document)
    }
}
