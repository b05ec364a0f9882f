//! Questions for the node behind an NsIP, whose own processes speak to services: here, or in another cluster.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

use protocol::id::Id;
use protocol::net::{NodeItself, TableResult};

use super::{Act, Directory, Subject, Unreached};

impl Directory {
    /// A worker wants to know whose this NsIP is. What is answered for is a node itself only: containers are found by the
    /// tables of their services. Who asked for one that is known is told when it changes. Those of other clusters the root
    /// knows.
    pub(super) fn query_node(&mut self, worker: Id, query_key: String, address: IpAddr, now: Instant) {
        if self.nodes.find(address).is_some() {
            self.answer_node(worker, query_key, address);
        } else {
            let subject = Subject::Address(address);
            self.ask(&subject);
            self.questions.wait(&subject, worker, query_key, now);
        }
    }

    fn answer_node(&mut self, worker: Id, query_key: String, address: IpAddr) {
        let instance = self.nodes.find(address);
        if instance.is_some() {
            self.interests.add(worker, Subject::Address(address));
        }
        let instance_list = instance.into_iter().collect();
        let result = TableResult { app_name: String::new(), instance_list, query_key, leaving: Vec::new() };
        self.acts.push(Act::Answer { worker, result });
    }

    /// Where a worker's own processes are reached, as far as it has said so.
    pub(in crate::cluster) fn itself(&self, worker: Id) -> Option<&NodeItself> {
        self.nodes.of(worker)
    }

    /// A node's own processes are reached so from now on. It has been checked that the addresses are the node's.
    pub(in crate::cluster) fn node_itself(&mut self, worker: Id, itself: &NodeItself) {
        for address in self.nodes.set(worker, itself) {
            for other in self.interests.in_subject(&Subject::Address(address)) {
                self.answer_node(other, address.to_string(), address);
            }
        }
    }

    /// The root answered where the processes of another cluster's node are reached: `Ok(None)`, it does not know; `Err`, it
    /// was not reached.
    pub(in crate::cluster) fn node_answered(
        &mut self,
        address: IpAddr,
        answer: Result<Option<NodeItself>, Unreached>,
        now: Instant,
    ) {
        let subject = Subject::Address(address);
        let Some(answered) = self.questions.answered(&subject) else {
            return;
        };
        let is_news = answer.is_ok_and(|itself| self.nodes.set_elsewhere(address, itself, now));
        let waiting: HashSet<_> = answered.waiting.iter().map(|(worker, _)| *worker).collect();
        for (worker, key) in answered.waiting {
            self.answer_node(worker, key, address);
        }
        if is_news {
            for worker in self.interests.in_subject(&subject) {
                if !waiting.contains(&worker) {
                    self.answer_node(worker, address.to_string(), address);
                }
            }
        }
    }
}
