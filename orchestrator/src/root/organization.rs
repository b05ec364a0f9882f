//! Organizations: who belongs together. Members and their roles are kept with the users.

use std::collections::BTreeMap;

use protocol::id::{ExtendedId, Id};
use serde::{Deserialize, Serialize};

use super::admin::ADMIN;
use super::failure::Failure;
use super::role::{self, Role, Roles};
use super::user::User;
use super::{Root, key};
use crate::object_id;
use crate::store::{StoreError, Transaction};

/// The organization that is always there.
pub const ROOT: &str = "root";
const NAME_MAX: usize = 64;

/// 1 to 64 signs, none of which is a slash or invisible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrganizationName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of an organization has 1 to {NAME_MAX} signs, without slashes and control characters")]
pub struct InvalidOrganizationName;

/// An organization as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    pub id: Id,
    pub name: OrganizationName,
}

/// A member as clients read and write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(super) struct Member {
    #[schema(value_type = String, pattern = "^[0-9a-f]{24}$")]
    pub user_id: Id,
    #[serde(deserialize_with = "role::written")]
    #[schema(value_type = Vec<Role>)]
    pub roles: Roles,
}

/// An organization as clients read it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Organization)]
pub(super) struct Document {
    #[serde(rename = "_id")]
    #[schema(value_type = super::api::schema::ObjectId)]
    id: ExtendedId,
    #[schema(value_type = String)]
    name: OrganizationName,
    member: Vec<Member>,
}

impl Organization {
    #[must_use]
    pub fn root(id: Id) -> Self {
        Self { id, name: OrganizationName(ROOT.to_owned()) }
    }

    pub(super) fn with_members(self, users: &[User]) -> Document {
        let member = users
            .iter()
            .filter_map(|user| {
                let roles = user.memberships.get(&self.id)?.clone();
                Some(Member { user_id: user.id, roles })
            })
            .collect();
        Document { id: self.id.into(), name: self.name, member }
    }
}

impl OrganizationName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OrganizationName {
    type Error = InvalidOrganizationName;

    fn try_from(text: String) -> Result<Self, InvalidOrganizationName> {
        let is_visible = |sign: char| !sign.is_control() && sign != '/';
        if !text.trim().is_empty() && text.chars().count() <= NAME_MAX && text.chars().all(is_visible) {
            Ok(Self(text))
        } else {
            Err(InvalidOrganizationName)
        }
    }
}

impl From<OrganizationName> for String {
    fn from(name: OrganizationName) -> Self {
        name.0
    }
}

impl Root {
    pub(super) async fn organization(&self, id: Id) -> Result<Option<Organization>, StoreError> {
        Ok(self.store.get(&key::organization(id)).await?.map(|entry| entry.value))
    }

    pub(super) async fn organization_named(&self, name: &str) -> Result<Option<Id>, StoreError> {
        Ok(self.store.get::<Id>(&key::organization_name(name)).await?.map(|entry| entry.value))
    }

    pub(super) async fn organizations(&self) -> Result<Vec<Organization>, StoreError> {
        let listed = self.store.list::<Organization>(key::ORGANIZATIONS).await?;
        Ok(listed.into_iter().map(|(_, entry)| entry.value).collect())
    }

    pub(super) async fn create_organization(
        &self,
        name: OrganizationName,
        members: Vec<Member>,
    ) -> Result<Id, Failure> {
        let organization = Organization { id: object_id::new(), name };
        let name_key = key::organization_name(organization.name.as_str());
        let transaction = Transaction::new()
            .expect_absent(&name_key)
            .put(&name_key, &organization.id)
            .put(&key::organization(organization.id), &organization);
        let transaction = self.with_members(organization.id, members, transaction).await?;
        match self.store.commit(transaction).await {
            Err(StoreError::Conflict { key }) if key == name_key => Err(taken(&organization.name)),
            other => other.map(|()| organization.id).map_err(Failure::of_commit),
        }
    }

    /// Gives it another name, other members, or both; `None` leaves them as they are.
    pub(super) async fn change_organization(
        &self,
        id: Id,
        name: Option<OrganizationName>,
        members: Option<Vec<Member>>,
    ) -> Result<(), Failure> {
        let own_key = key::organization(id);
        let entry = self.store.get::<Organization>(&own_key).await?;
        let entry = entry.ok_or_else(|| Failure::no_organization(id))?;
        let mut transaction = Transaction::new().expect(&own_key, Some(entry.revision));
        let mut organization = entry.value;
        let mut new_key = None;
        if let Some(name) = name.filter(|name| *name != organization.name) {
            if organization.name.as_str() == ROOT {
                return Err(Failure::Conflict("The organization root keeps its name.".to_owned()));
            }
            let name_key = key::organization_name(name.as_str());
            transaction = transaction
                .expect_absent(&name_key)
                .put(&name_key, &id)
                .delete(&key::organization_name(organization.name.as_str()));
            organization.name = name;
            transaction = transaction.put(&own_key, &organization);
            new_key = Some(name_key);
        }
        if let Some(members) = members {
            transaction = self.with_members(id, members, transaction).await?;
        }
        match self.store.commit(transaction).await {
            Err(StoreError::Conflict { key }) if Some(&key) == new_key.as_ref() => {
                Err(taken(&organization.name))
            }
            other => other.map_err(Failure::of_commit),
        }
    }

    /// Its users stay, without their roles in it.
    pub(super) async fn delete_organization(&self, id: Id) -> Result<(), Failure> {
        let own_key = key::organization(id);
        let entry = self.store.get::<Organization>(&own_key).await?;
        let entry = entry.ok_or_else(|| Failure::no_organization(id))?;
        let name = entry.value.name;
        if name.as_str() == ROOT {
            return Err(Failure::Conflict("The organization root cannot be deleted.".to_owned()));
        }
        let count = self
            .applications()
            .await?
            .iter()
            .filter(|application| application.organization == Some(id))
            .count();
        if count > 0 {
            return Err(Failure::Conflict(format!(
                "The organization still has applications, {count} in number: delete them first."
            )));
        }
        let transaction = Transaction::new()
            .expect(&own_key, Some(entry.revision))
            .delete(&own_key)
            .delete(&key::organization_name(name.as_str()));
        let transaction = self.with_members(id, Vec::new(), transaction).await?;
        self.store.commit(transaction).await.map_err(Failure::of_commit)
    }

    /// Makes these, and only these, the members.
    async fn with_members(
        &self,
        organization: Id,
        members: Vec<Member>,
        mut transaction: Transaction,
    ) -> Result<Transaction, Failure> {
        let mut wanted: BTreeMap<Id, Roles> =
            members.into_iter().map(|member| (member.user_id, member.roles)).collect();
        let is_root = self.root_organization == organization;
        for (user_key, entry) in self.store.list::<User>(key::USERS).await? {
            let mut user = entry.value;
            let roles = wanted.remove(&user.id);
            if is_root
                && user.name.as_str() == ADMIN
                && !roles.as_ref().is_some_and(|roles| roles.contains(&Role::Admin))
            {
                return Err(Failure::Conflict("The user Admin stays an Admin of root.".to_owned()));
            }
            if user.memberships.get(&organization) == roles.as_ref() {
                continue;
            }
            match roles {
                Some(roles) => user.memberships.insert(organization, roles),
                None => user.memberships.remove(&organization),
            };
            transaction = transaction.expect(&user_key, Some(entry.revision)).put(&user_key, &user);
        }
        match wanted.into_keys().next() {
            Some(unknown) => Err(Failure::no_user(unknown)),
            None => Ok(transaction),
        }
    }
}

fn taken(name: &OrganizationName) -> Failure {
    Failure::Conflict(format!("An organization named {} exists already.", name.as_str()))
}
