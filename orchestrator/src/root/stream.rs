//! What changes, told to those who listen: each thing by its document, with the number of its last change. Who has missed
//! some, or reads slowly, is told of each thing once, as it is then: nothing is queued for anybody. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::id::Id;
use serde_json::Value;

use super::access::Caller;

/// Things that are gone are told of to those who come back, so many.
const GONE_MAX: usize = 4096;

/// What can be listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Applications,
    Clusters,
    /// The last ones that were kept.
    Events,
    Services,
    Workers,
    /// Not kept here: it is another one for each caller.
    Status,
}

impl Topic {
    pub(super) const ALL: [Self; 6] =
        [Self::Applications, Self::Clusters, Self::Events, Self::Services, Self::Workers, Self::Status];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Applications => "applications",
            Self::Clusters => "clusters",
            Self::Events => "events",
            Self::Services => "services",
            Self::Workers => "workers",
            Self::Status => "status",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

/// Whose a thing is, if it is anybody's.
pub(super) type Owner = Option<(String, Id)>;

/// One thing as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Thing {
    pub topic: Topic,
    pub id: Id,
    /// Name and organization of the user who alone, with those who look after these, may see it.
    pub owner: Owner,
    pub document: Value,
}

#[derive(Debug)]
struct Row {
    /// That of its last change.
    revision: u64,
    owner: Owner,
    /// Nothing: it is gone.
    document: Option<Arc<Value>>,
}

/// All things, and when they changed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    revision: u64,
    /// Of what changed up to then, some is forgotten.
    floor: u64,
    rows: BTreeMap<(Topic, Id), Row>,
}

/// What has become different for somebody.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum News {
    /// Everything, since what he has cannot be told.
    Snapshot(Vec<Arc<Value>>),
    Delta {
        upsert: Vec<Arc<Value>>,
        remove: Vec<Id>,
    },
}

impl Ledger {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// These are all things there are now.
    pub(super) fn update(&mut self, now: Vec<Thing>) {
        let next = self.revision + 1;
        let mut is_news = false;
        let mut present = std::collections::BTreeSet::new();
        for Thing { topic, id, owner, document } in now {
            present.insert((topic, id));
            let before = self.rows.get(&(topic, id));
            let same =
                before.is_some_and(|row| row.owner == owner && row.document.as_deref() == Some(&document));
            if !same {
                let document = Some(Arc::new(document));
                self.rows.insert((topic, id), Row { revision: next, owner, document });
                is_news = true;
            }
        }
        for (key, row) in &mut self.rows {
            if row.document.is_some() && !present.contains(key) {
                (row.document, row.revision) = (None, next);
                is_news = true;
            }
        }
        if is_news {
            self.revision = next;
            self.forget_the_oldest();
        }
    }

    fn forget_the_oldest(&mut self) {
        let gone = self.rows.values().filter(|row| row.document.is_none());
        let mut gone: Vec<_> = gone.map(|row| row.revision).collect();
        let Some(too_many) = gone.len().checked_sub(GONE_MAX).filter(|too_many| *too_many > 0) else {
            return;
        };
        gone.sort_unstable();
        self.floor = gone[too_many - 1];
        let floor = self.floor;
        self.rows.retain(|_, row| row.document.is_some() || row.revision > floor);
    }

    /// What the caller has not heard of a topic who knows everything up to a revision; nothing: he knows nothing.
    pub(super) fn since(&self, known: Option<u64>, topic: Topic, caller: &Caller) -> News {
        let rows = self.rows.iter().filter(|((of, _), _)| *of == topic);
        let may_see = |row: &Row| {
            row.owner.as_ref().is_none_or(|(owner, organization)| caller.may_use(owner, *organization))
        };
        let rows = rows.filter(|(_, row)| may_see(row));
        let Some(known) = known.filter(|known| (self.floor..=self.revision).contains(known)) else {
            return News::Snapshot(rows.filter_map(|(_, row)| row.document.clone()).collect());
        };
        let (mut upsert, mut remove) = (Vec::new(), Vec::new());
        for ((_, id), row) in rows.filter(|(_, row)| row.revision > known) {
            match &row.document {
                Some(document) => upsert.push(Arc::clone(document)),
                None => remove.push(*id),
            }
        }
        News::Delta { upsert, remove }
    }
}

impl News {
    /// Whether there is nothing to tell.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Delta { upsert, remove } if upsert.is_empty() && remove.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::id::Id;
    use serde_json::{Value, json};

    use super::{GONE_MAX, Ledger, News, Thing, Topic};
    use crate::root::access::Caller;
    use crate::root::role::{Role, Roles};
    use crate::root::user::UserName;

    const OURS: Id = Id::from_bytes([7; 12]);

    fn id(number: u16) -> Id {
        let mut bytes = [0; 12];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Id::from_bytes(bytes)
    }

    fn caller(role: Role) -> Caller {
        let name: UserName = "jane".try_into().unwrap();
        Caller { name, id: id(1), organization: OURS, roles: Roles::from([role]) }
    }

    fn cluster(number: u16, state: &str) -> Thing {
        Thing { topic: Topic::Clusters, id: id(number), owner: None, document: json!(state) }
    }

    fn service(number: u16, owner: &str) -> Thing {
        let owner = Some((owner.to_owned(), OURS));
        Thing { topic: Topic::Services, id: id(number), owner, document: json!("running") }
    }

    fn told(ledger: &Ledger, known: Option<u64>, topic: Topic) -> News {
        ledger.since(known, topic, &caller(Role::Admin))
    }

    fn delta(upsert: &[&str], remove: &[u16]) -> News {
        let upsert = upsert.iter().map(|state| Arc::new(json!(state))).collect();
        News::Delta { upsert, remove: remove.iter().map(|number| id(*number)).collect() }
    }

    fn snapshot(states: &[&str]) -> News {
        News::Snapshot(states.iter().map(|state| Arc::new(Value::from(*state))).collect())
    }

    #[test]
    fn each_thing_is_told_once_as_it_is_whatever_has_become_of_it_meanwhile() {
        let mut ledger = Ledger::default();
        assert_eq!(told(&ledger, None, Topic::Clusters), snapshot(&[]));
        ledger.update(vec![cluster(1, "a"), cluster(2, "a")]);
        let known = ledger.revision();
        assert_eq!(told(&ledger, None, Topic::Clusters), snapshot(&["a", "a"]));
        assert!(told(&ledger, Some(known), Topic::Clusters).is_none());

        ledger.update(vec![cluster(1, "b"), cluster(2, "a"), cluster(3, "a")]);
        ledger.update(vec![cluster(1, "c"), cluster(3, "a")]);
        assert_eq!(told(&ledger, Some(known), Topic::Clusters), delta(&["c", "a"], &[2]));
        assert_eq!(told(&ledger, Some(known + 1), Topic::Clusters), delta(&["c"], &[2]));
        let before = ledger.revision();
        ledger.update(vec![cluster(1, "c"), cluster(3, "a")]);
        assert_eq!(ledger.revision(), before, "nothing is new");
        ledger.update(vec![cluster(1, "c"), cluster(2, "a"), cluster(3, "a")]);
        assert_eq!(told(&ledger, Some(before), Topic::Clusters), delta(&["a"], &[]), "it is back");
    }

    #[test]
    fn who_knows_what_cannot_be_told_apart_any_more_is_told_everything() {
        let mut ledger = Ledger::default();
        let many = u16::try_from(GONE_MAX).unwrap() + 1;
        ledger.update((0..many).map(|number| cluster(number, "a")).collect());
        let known = ledger.revision();
        ledger.update((1..many).map(|number| cluster(number, "a")).collect());
        assert_eq!(told(&ledger, Some(known), Topic::Clusters), delta(&[], &[0]));
        ledger.update(vec![cluster(many, "new")]);
        assert_eq!(told(&ledger, Some(known), Topic::Clusters), snapshot(&["new"]));
        assert_eq!(
            told(&ledger, Some(ledger.revision() + 1), Topic::Clusters),
            snapshot(&["new"]),
            "of another life"
        );
    }

    #[test]
    fn nobody_is_told_of_what_is_somebody_else_s() {
        let mut ledger = Ledger::default();
        ledger.update(vec![service(1, "jane"), service(2, "john"), cluster(3, "a")]);
        let provider = caller(Role::ApplicationProvider);
        assert_eq!(ledger.since(None, Topic::Services, &provider), snapshot(&["running"]));
        assert_eq!(told(&ledger, None, Topic::Services), snapshot(&["running", "running"]));
        let known = ledger.revision();
        ledger.update(vec![service(1, "jane"), cluster(3, "a")]);
        assert!(ledger.since(Some(known), Topic::Services, &provider).is_none(), "not even that it is gone");
        assert_eq!(told(&ledger, Some(known), Topic::Services), delta(&[], &[2]));
    }
}
