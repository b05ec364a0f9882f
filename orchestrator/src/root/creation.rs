//! Applications and services are made: in one transaction if that is not too large for etcd, else in several, so that all of it
//! is there in the end or nothing, and nobody sees it before.

use std::collections::BTreeSet;
use std::net::IpAddr;

use protocol::id::Id;

use super::failure::Failure;
use super::record::Record;
use super::services::{Change, write_new};
use super::unfinished::Unfinished;
use super::{Root, key};
use crate::object_id;
use crate::store::{StoreError, Transaction};

/// What one transaction writes and deletes, more or less: etcd takes twice as much, and more in one service there cannot be.
pub(super) const OPERATIONS: usize = 512;
/// The same of bytes: etcd takes a message of 1.5 MB.
const BYTES: usize = 512 << 10;

/// Addresses that were taken for services which are not stored yet. Given back in the end.
pub(super) struct Taken<'a> {
    root: &'a Root,
    addresses: BTreeSet<IpAddr>,
}

impl<'a> Taken<'a> {
    pub(super) const fn new(root: &'a Root) -> Self {
        Self { root, addresses: BTreeSet::new() }
    }

    pub(super) fn add(&mut self, address: IpAddr) {
        self.addresses.insert(address);
    }

    /// The store has this service: what becomes of its addresses is told by what becomes of it.
    fn keep_of(&mut self, service: &Record) {
        for address in service.owned() {
            self.addresses.remove(&address);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut pool = self.root.pool();
        for address in &self.addresses {
            pool.release(*address);
        }
    }
}

/// What is to be made.
#[derive(Debug, Default)]
pub(super) struct Creation {
    names: Vec<String>,
    /// Takes the names.
    first: Transaction,
    pub(super) services: Vec<Record>,
    /// By this they are part of an application, which is what lets people see them.
    pub(super) last: Transaction,
}

/// Some of the services, that are made together.
#[derive(Default)]
struct Part {
    services: Vec<Record>,
    transaction: Transaction,
}

impl Creation {
    /// Takes the name of an application; `name`: its key.
    pub(super) fn name(&mut self, application: Id, name: String) {
        self.first = std::mem::take(&mut self.first).expect_absent(&name).put(&name, &application);
        self.names.push(name);
    }
}

impl Root {
    pub(super) async fn create(&self, creation: Creation, mut taken: Taken<'_>) -> Result<(), Failure> {
        let Creation { names, first, services, last } = creation;
        let ids = services.iter().map(|record| record.service.id).collect();
        let mut parts = parts(services);
        let is_small = |part: &Part| {
            let all = [&first, &part.transaction, &last];
            all.iter().map(|one| one.operations()).sum::<usize>() <= OPERATIONS
                && all.iter().map(|one| one.bytes()).sum::<usize>() <= BYTES
        };
        if parts.len() == 1
            && let Some(mut only) = parts.pop_if(|only| is_small(only))
        {
            only.transaction = first.and(only.transaction).and(last);
            return self.create_part(only, &mut taken).await.map_err(already_there);
        }
        let (intent, unfinished) = (object_id::new(), Unfinished { names, services: ids });
        let revision = self.begin(intent, &unfinished, first).await.map_err(already_there)?;
        let made = async {
            let own_key = key::unfinished(intent);
            for mut part in parts {
                // Nothing of it comes late, when the note has been taken over by who clears away.
                part.transaction = part.transaction.expect(&own_key, Some(revision));
                self.create_part(part, &mut taken).await?;
            }
            self.store.commit(last.expect(&own_key, Some(revision)).delete(&own_key)).await
        };
        made.await.map_err(|error| {
            self.clear_away_later(intent);
            already_there(error)
        })
    }

    async fn create_part(&self, part: Part, taken: &mut Taken<'_>) -> Result<(), StoreError> {
        let Part { services, transaction } = part;
        let changes = services.iter().cloned().map(Change::new).collect();
        let outcome = self.commit(changes, transaction).await;
        if outcome.as_ref().err().is_none_or(StoreError::is_unclear) {
            services.iter().for_each(|record| taken.keep_of(record));
        }
        outcome
    }
}

/// At least one, which is empty if there are no services.
fn parts(services: Vec<Record>) -> Vec<Part> {
    let mut parts = vec![Part::default()];
    for record in services {
        let added = store_service(&record);
        let has_room = |part: &Part| {
            let own = &part.transaction;
            let is_small =
                own.operations() + added.operations() <= OPERATIONS && own.bytes() + added.bytes() <= BYTES;
            part.services.is_empty() || is_small
        };
        if !parts.last().is_some_and(has_room) {
            parts.push(Part::default());
        }
        if let Some(part) = parts.last_mut() {
            part.services.push(record);
            part.transaction = std::mem::take(&mut part.transaction).and(added);
        }
    }
    parts
}

fn store_service(record: &Record) -> Transaction {
    let service = &record.service;
    let name_key = key::service_name(&service.job_name);
    let mut transaction = Transaction::new();
    for address in record.owned() {
        let address_key = key::address(address);
        transaction = transaction.expect_absent(&address_key).put(&address_key, &service.id);
    }
    write_new(record, transaction.expect_absent(&name_key).put(&name_key, &service.id))
}

/// Says what is there already of what was to be made.
fn already_there(error: StoreError) -> Failure {
    let StoreError::Conflict { key } = error else { return error.into() };
    Failure::Conflict(match key.split_once('/') {
        Some(("application-name", name)) => format!("An application named {name} exists already."),
        Some(("service-name", name)) => format!("A service named {name} exists already."),
        Some(("address", address)) => format!("{address} is taken by another service."),
        _ => "The application was changed by somebody else meanwhile: try again.".to_owned(),
    })
}
