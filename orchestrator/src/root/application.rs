//! Applications and their services: made from an SLA, listed, deleted with all that belongs to them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use protocol::id::{ExtendedId, Id};
use protocol::net::UpdateKind;
use protocol::sla;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::access::Caller;
use super::creation::{Creation, OPERATIONS, Taken};
use super::failure::Failure;
use super::instance::{after_removal, notify};
use super::pool::PoolError;
use super::record::{Parent, Record, Removed};
use super::services::{Change, Version};
use super::unfinished::Unfinished;
use super::{Root, key};
use crate::object_id;
use crate::sla::Violation;
use crate::store::{Entry, Revision, StoreError, Transaction};

/// Keys of an application that are the root's to fill, and say nothing in a document.
const OWN_KEYS: [&str; 2] = ["_id", "userId"];

/// An application as stored. Its services are records of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Application {
    pub id: Id,
    /// Name of the user who made it.
    pub owner: String,
    /// The one that the user was logged in to; `None`, from before organizations were kept: `root`.
    #[serde(default)]
    pub organization: Option<Id>,
    pub name: String,
    pub namespace: String,
    pub description: String,
    pub services: Vec<Id>,
    /// Keys of the SLA that the root does not know.
    pub extra: Map<String, Value>,
}

/// An application as clients read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Document {
    #[serde(rename = "_id")]
    id: ExtendedId,
    #[serde(rename = "applicationID")]
    application_id: Id,
    application_name: String,
    application_namespace: String,
    application_desc: String,
    microservices: Vec<Id>,
    #[serde(rename = "userId")]
    user_id: String,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl From<Application> for Document {
    fn from(application: Application) -> Self {
        Self {
            id: application.id.into(),
            application_id: application.id,
            application_name: application.name,
            application_namespace: application.namespace,
            application_desc: application.description,
            microservices: application.services,
            user_id: application.owner,
            extra: application.extra,
        }
    }
}

impl Application {
    fn parent(&self) -> Parent {
        Parent {
            application: self.id,
            app_name: self.name.clone(),
            app_ns: self.namespace.clone(),
            owner: self.owner.clone(),
        }
    }
}

impl Root {
    /// That no application of the document exists yet. Only for a better answer: making them is what decides.
    pub(super) async fn names_are_free(&self, document: &sla::Document) -> Result<(), Failure> {
        for application in &document.applications {
            let (name, namespace) = (&application.application_name, &application.application_namespace);
            if let Some(entry) = self.store.get::<Id>(&key::application_name(name, namespace)).await? {
                let what = match self.application(entry.value).await? {
                    Some(_) => "exists already",
                    None => "is being made or deleted: try again in a moment",
                };
                return Err(Failure::Conflict(format!("An application named {name}.{namespace} {what}.")));
            }
        }
        Ok(())
    }

    /// Makes the applications of a checked SLA, with their services and addresses, or none of them. Until all is there, nothing
    /// of it is shown.
    pub(super) async fn create_applications(
        self: &Arc<Self>,
        caller: &Caller,
        document: sla::Document,
    ) -> Result<(), Failure> {
        let (root, caller) = (Arc::clone(self), caller.clone());
        self.to_its_end(async move { root.create_all(&caller, document).await }).await
    }

    async fn create_all(&self, caller: &Caller, document: sla::Document) -> Result<(), Failure> {
        let mut taken = Taken::new(self);
        let (mut creation, mut made) = (Creation::default(), Vec::new());
        for (index, described) in document.applications.into_iter().enumerate() {
            let mut extra = described.extra;
            extra.retain(|key, _| !OWN_KEYS.contains(&key.as_str()));
            let mut application = Application {
                id: object_id::new(),
                owner: caller.name.to_string(),
                organization: Some(caller.organization),
                name: described.application_name,
                namespace: described.application_namespace,
                description: described.application_desc,
                services: Vec::new(),
                extra,
            };
            for (position, service) in described.microservices.into_iter().enumerate() {
                let path = format!("applications[{index}].microservices[{position}]");
                let record = self.new_service(&application.parent(), service, &path, &mut taken)?;
                application.services.push(record.service.id);
                creation.services.push(record);
            }
            self.events.belongs(application.id, (application.owner.clone(), caller.organization));
            made.push(application.id);
            creation.name(application.id, key::application_name(&application.name, &application.namespace));
            creation.last = creation.last.put(&key::application(application.id), &application);
        }
        let outcome = self.create(creation, taken).await;
        if outcome.is_err() {
            made.iter().for_each(|application| self.events.belongs_to_nobody(*application));
        }
        outcome
    }

    /// Adds services to an application that exists, all or none. Returns what was made.
    pub(super) async fn add_services(
        self: &Arc<Self>,
        application: Id,
        services: Vec<sla::Microservice>,
    ) -> Result<Vec<Record>, Failure> {
        let root = Arc::clone(self);
        self.to_its_end(async move { root.add_all(application, services).await }).await
    }

    async fn add_all(
        &self,
        application: Id,
        services: Vec<sla::Microservice>,
    ) -> Result<Vec<Record>, Failure> {
        let application_key = key::application(application);
        let Entry { value: mut application, revision } =
            self.application_entry(application).await?.ok_or_else(|| Failure::no_application(application))?;
        let mut taken = Taken::new(self);
        let mut creation = Creation::default();
        for (position, service) in services.into_iter().enumerate() {
            let path = format!("applications[0].microservices[{position}]");
            let record = self.new_service(&application.parent(), service, &path, &mut taken)?;
            application.services.push(record.service.id);
            creation.services.push(record);
        }
        let made = creation.services.clone();
        creation.last =
            creation.last.expect(&application_key, Some(revision)).put(&application_key, &application);
        self.create(creation, taken).await?;
        Ok(made)
    }

    /// A service with its addresses: those that its author chose, else free ones.
    fn new_service(
        &self,
        parent: &Parent,
        service: sla::Microservice,
        path: &str,
        taken: &mut Taken<'_>,
    ) -> Result<Record, Failure> {
        let chosen = &service.addresses;
        let wants_closest = [&chosen.closest_ip, &chosen.closest_ip_v6]
            .into_iter()
            .any(|address| sla::Addresses::chosen(address.as_deref()).is_some());
        let address = self.service_address(chosen.rr_ip.as_deref(), path, "rr_ip", taken)?;
        let closest = wants_closest
            .then(|| self.service_address(chosen.closest_ip.as_deref(), path, "closest_ip", taken))
            .transpose()?;
        let record = Record::new(object_id::new(), parent, service, address, closest)
            .map_err(|error| Failure::Invalid(vec![Violation::new(path.to_owned(), error.to_string())]))?;
        let held = [Some(address), closest].map(|held| held.map(IpAddr::V4));
        for more in record.owned().filter(|more| !held.contains(&Some(*more))) {
            let reserved = self.pool().reserve(more);
            reserved.map_err(|error| wrong_address(path, "", &error.to_string()))?;
            taken.add(more);
        }
        Ok(record)
    }

    /// The address that was chosen by this field, or a free one.
    fn service_address(
        &self,
        chosen: Option<&str>,
        path: &str,
        field: &str,
        taken: &mut Taken<'_>,
    ) -> Result<Ipv4Addr, Failure> {
        let wrong = |message: String| wrong_address(path, field, &message);
        let address = match sla::Addresses::chosen(chosen) {
            None => self.pool().take()?,
            Some(text) => {
                let address: Ipv4Addr =
                    text.parse().map_err(|_invalid| wrong(format!("{text:?} is no IPv4 address")))?;
                self.pool().reserve(address.into()).map_err(|error: PoolError| wrong(error.to_string()))?;
                address
            }
        };
        taken.add(address.into());
        Ok(address)
    }

    pub(super) async fn application(&self, id: Id) -> Result<Option<Application>, StoreError> {
        Ok(self.application_entry(id).await?.map(|entry| entry.value))
    }

    pub(super) async fn application_entry(&self, id: Id) -> Result<Option<Entry<Application>>, StoreError> {
        self.store.get(&key::application(id)).await
    }

    pub(super) async fn applications(&self) -> Result<Vec<Application>, StoreError> {
        let listed = self.store.list::<Application>(key::APPLICATIONS).await?;
        Ok(listed.into_iter().map(|(_, entry)| entry.value).collect())
    }

    /// Deletes an application with all of its services and their instances. It is shown no more from the beginning on, and its
    /// name is free at the end.
    pub(super) async fn delete_application(self: &Arc<Self>, id: Id) -> Result<(), Failure> {
        let root = Arc::clone(self);
        self.to_its_end(async move {
            let (intent, unfinished, revision) = root.begin_deletion(id).await?;
            let outcome = root.clear_away_or_later(intent, &unfinished, revision).await;
            root.events.belongs_to_nobody(id);
            outcome
        })
        .await
    }

    /// From here on the application is to go, and goes, whatever happens.
    pub(super) async fn begin_deletion(&self, id: Id) -> Result<(Id, Unfinished, Revision), Failure> {
        let (intent, application_key) = (object_id::new(), key::application(id));
        loop {
            let entry = self.application_entry(id).await?.ok_or_else(|| Failure::no_application(id))?;
            let application = entry.value;
            let name = key::application_name(&application.name, &application.namespace);
            let unfinished = Unfinished { names: vec![name], services: application.services };
            let begun =
                Transaction::new().expect(&application_key, Some(entry.revision)).delete(&application_key);
            match self.begin(intent, &unfinished, begun).await {
                Err(StoreError::Conflict { .. }) => {}
                other => return other.map(|revision| (intent, unfinished, revision)).map_err(Failure::from),
            }
        }
    }

    /// Deletes a service with all of its instances. Of many instances, most go before the rest does.
    pub(super) async fn delete_service(&self, id: Id) -> Result<(), Failure> {
        loop {
            let turn = self.services.turn(id).await.ok_or_else(|| Failure::no_service(id))?;
            let version = self.version(&turn).await?.ok_or_else(|| Failure::no_service(id))?;
            let parent = version.record.service.application_id;
            let (mut transaction, deleted) = delete_service(&version, Transaction::new());
            if transaction.operations() > OPERATIONS && !deleted.instances.is_empty() {
                drop(turn);
                self.thin_out(id).await?;
                continue;
            }
            if let Some(Entry { value: mut application, revision }) = self.application_entry(parent).await?
                && application.services.contains(&id)
            {
                application.services.retain(|service| *service != id);
                let application_key = key::application(parent);
                transaction =
                    transaction.expect(&application_key, Some(revision)).put(&application_key, &application);
            }
            if self.committed(vec![Change::deleted(turn)], transaction).await? {
                self.deleted(&deleted);
                return Ok(());
            }
        }
    }

    /// What follows from a deletion outside of the store.
    fn deleted(&self, deleted: &Deleted) {
        self.removed(deleted.service, &deleted.instances);
        let mut pool = self.pool();
        for address in &deleted.addresses {
            pool.release(*address);
        }
    }

    /// Whether the transaction went through; not, when somebody else was faster.
    async fn committed(&self, changes: Vec<Change>, transaction: Transaction) -> Result<bool, StoreError> {
        match self.commit(changes, transaction).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A service that was deleted: what it had.
struct Deleted {
    service: Id,
    instances: Vec<Removed>,
    addresses: Vec<IpAddr>,
}

fn delete_service(version: &Version, transaction: Transaction) -> (Transaction, Deleted) {
    let mut record = Record::clone(&version.record);
    let numbers: Vec<_> = record.instances().map(|instance| instance.number).collect();
    let instances = record.remove_instances(numbers);
    let mut transaction = after_removal(&record, &instances, version.delete(transaction));
    transaction = notify(&record, -1, UpdateKind::Undeployment, transaction);
    let addresses: Vec<_> = record.owned().collect();
    for address in &addresses {
        transaction = transaction.delete(&key::address(*address));
    }
    let transaction = transaction.delete(&key::service_name(&record.service.job_name));
    (transaction, Deleted { service: record.service.id, instances, addresses })
}

fn wrong_address(path: &str, field: &str, message: &str) -> Failure {
    let dot = if field.is_empty() { "" } else { "." };
    let path = format!("{path}.addresses{dot}{field}");
    Failure::Invalid(vec![Violation::new(path, message.to_owned())])
}
