//! Reports of state changes on their way to the cluster: kept until the broker has acknowledged them, sent again over
//! the next connection when it had not. Pure.

use std::collections::{HashMap, VecDeque};

use protocol::name::InstanceName;

use crate::reconcile::StatusChange;

/// Of each instance the latest state, as long as it may not have arrived. So it stays small, however long the cluster
/// is away.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: HashMap<InstanceName, (u64, StatusChange)>,
    next_number: u64,
    /// Handed to the MQTT client, which has not yet given them a packet id. It does so in this order.
    handed_over: VecDeque<(InstanceName, u64)>,
    unacknowledged: HashMap<u16, (InstanceName, u64)>,
}

impl Outbox {
    /// A new state of an instance. It replaces an older one that has not arrived.
    pub fn add(&mut self, change: StatusChange) {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting.insert(change.name.clone(), (number, change));
    }

    /// What is to be handed to the client now, in the order in which it happened.
    #[must_use]
    pub fn due(&self) -> Vec<StatusChange> {
        let on_its_way = |number: u64| {
            self.handed_over.iter().chain(self.unacknowledged.values()).any(|(_, sent)| *sent == number)
        };
        let mut due: Vec<_> = self.waiting.values().filter(|(number, _)| !on_its_way(*number)).collect();
        due.sort_by_key(|(number, _)| *number);
        due.into_iter().map(|(_, change)| change.clone()).collect()
    }

    /// The client has taken the state of this instance.
    pub fn handed_over(&mut self, name: &InstanceName) {
        if let Some((number, _)) = self.waiting.get(name) {
            self.handed_over.push_back((name.clone(), *number));
        }
    }

    /// The client has sent what it took first, as this packet.
    pub fn sent(&mut self, packet: u16) {
        if let Some(sent) = self.handed_over.pop_front() {
            self.unacknowledged.insert(packet, sent);
        }
    }

    pub fn acknowledged(&mut self, packet: u16) {
        let Some((name, number)) = self.unacknowledged.remove(&packet) else { return };
        if self.waiting.get(&name).is_some_and(|(latest, _)| *latest == number) {
            self.waiting.remove(&name);
        }
    }

    /// The connection is lost: what was not acknowledged is due again.
    pub fn disconnected(&mut self) {
        self.handed_over.clear();
        self.unacknowledged.clear();
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use protocol::status::Status;

    use super::Outbox;
    use crate::reconcile::StatusChange;

    fn change(number: u32, status: Status) -> StatusChange {
        StatusChange {
            name: format!("a.b.c.d.instance.{number}").parse().unwrap(),
            status,
            detail: String::new(),
        }
    }

    fn due(outbox: &Outbox) -> Vec<(u32, Status)> {
        outbox.due().into_iter().map(|change| (change.name.number, change.status)).collect()
    }

    #[test]
    fn a_report_is_kept_until_it_is_acknowledged() {
        let mut outbox = Outbox::default();
        outbox.add(change(1, Status::Created));
        outbox.add(change(0, Status::Failed));
        assert_eq!(due(&outbox), [(1, Status::Created), (0, Status::Failed)]);
        for report in outbox.due() {
            outbox.handed_over(&report.name);
        }
        assert_eq!(due(&outbox), []);
        outbox.sent(11);
        outbox.sent(12);
        outbox.acknowledged(11);
        assert!(!outbox.is_empty());
        outbox.disconnected();
        assert_eq!(due(&outbox), [(0, Status::Failed)]);
    }

    #[test]
    fn a_newer_state_is_not_lost_with_the_older_one_s_acknowledgement() {
        let mut outbox = Outbox::default();
        outbox.add(change(1, Status::Created));
        outbox.handed_over(&change(1, Status::Created).name);
        outbox.sent(1);
        outbox.add(change(1, Status::Dead));
        outbox.acknowledged(1);
        assert_eq!(due(&outbox), [(1, Status::Dead)]);
    }

    #[test]
    fn of_states_that_did_not_arrive_the_last_one_counts() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.add(change(1, Status::Created));
            outbox.add(change(1, Status::Dead));
        }
        assert_eq!(due(&outbox), [(1, Status::Dead)]);
        outbox.acknowledged(7);
        assert!(!outbox.is_empty());
    }
}
