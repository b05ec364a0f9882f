//! Changes of what exists: how an application or a service is described. What others know it by stays.

use protocol::id::Id;
use protocol::name::is_valid_part;
use protocol::net::UpdateKind;
use protocol::sla::Microservice;

use super::failure::Failure;
use super::instance::notify;
use super::{Root, key};
use crate::sla::Violation;
use crate::store::{StoreError, Transaction};

/// What becomes different of an application; `None` stays as it is.
#[derive(Debug, Default)]
pub(super) struct ApplicationChange {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub description: Option<String>,
}

impl Root {
    /// The name is part of the names of its services, so it stays as long as there are any.
    pub(super) async fn change_application(&self, id: Id, change: ApplicationChange) -> Result<(), Failure> {
        let entry = self.application_entry(id).await?.ok_or_else(|| Failure::no_application(id))?;
        let own_key = key::application(id);
        let mut application = entry.value;
        let before = (application.name.clone(), application.namespace.clone());
        let mut violations = Vec::new();
        for (path, part, own) in [
            ("application_name", change.name, &mut application.name),
            ("application_namespace", change.namespace, &mut application.namespace),
        ] {
            let Some(part) = part else { continue };
            if !is_valid_part(&part) {
                violations
                    .push(Violation::new(path.to_owned(), "expected 1 to 30 letters or digits".to_owned()));
            }
            *own = part;
        }
        if !violations.is_empty() {
            return Err(Failure::Invalid(violations));
        }
        if let Some(description) = change.description {
            application.description = description;
        }
        let mut transaction =
            Transaction::new().expect(&own_key, Some(entry.revision)).put(&own_key, &application);
        let name_key = key::application_name(&application.name, &application.namespace);
        let is_renamed = before != (application.name.clone(), application.namespace.clone());
        if is_renamed {
            if !application.services.is_empty() {
                return Err(Failure::Conflict(
                    "The names of its services begin with that of the application: delete them first."
                        .to_owned(),
                ));
            }
            transaction = transaction
                .expect_absent(&name_key)
                .put(&name_key, &id)
                .delete(&key::application_name(&before.0, &before.1));
        }
        match self.store.commit(transaction).await {
            Err(StoreError::Conflict { key }) if is_renamed && key == name_key => {
                Err(Failure::Conflict(format!(
                    "An application named {}.{} exists already.",
                    application.name, application.namespace
                )))
            }
            other => other.map_err(Failure::of_commit),
        }
    }

    /// Describes a service anew, for the instances that are started from now on. `path` is where `sla` stands in the
    /// document.
    pub(super) async fn change_description(
        &self,
        id: Id,
        sla: &Microservice,
        path: &str,
    ) -> Result<(), Failure> {
        let changed = self
            .change_service(id, |record, transaction| {
                let own = &record.service.sla;
                let mut violations = Vec::new();
                let mut stays = |field: &str, is_same: bool| {
                    if !is_same {
                        let path = format!("{path}{field}");
                        violations.push(Violation::new(
                            path,
                            "cannot be changed: others know the service by it".to_owned(),
                        ));
                    }
                };
                stays("microservice_name", sla.microservice_name == own.microservice_name);
                stays("microservice_namespace", sla.microservice_namespace == own.microservice_namespace);
                let keeps_addresses = sla.addresses == Default::default() || sla.addresses == own.addresses;
                stays("addresses", keeps_addresses);
                if violations.is_empty() {
                    let before = record.address.balancing;
                    record.describe(sla.clone());
                    let is_news = record.address.balancing != before;
                    let told = |transaction| notify(record, -1, UpdateKind::Deployment, transaction);
                    (if is_news { told(transaction) } else { transaction }, Ok(()))
                } else {
                    (transaction, Err(Failure::Invalid(violations)))
                }
            })
            .await?;
        self.wake();
        changed.ok_or_else(|| Failure::no_service(id))?
    }
}
