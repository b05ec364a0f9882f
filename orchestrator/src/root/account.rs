//! Users: made, changed, deleted, and shown without what is secret.

use std::collections::BTreeMap;

use protocol::id::{ExtendedId, Id};
use serde::Serialize;

use super::admin::ADMIN;
use super::failure::Failure;
use super::password::{self, Password};
use super::role::{Role, Roles};
use super::user::{User, UserName};
use super::{Root, key};
use crate::clock;
use crate::object_id;
use crate::store::{Entry, StoreError, Transaction};

/// A user as clients read it: there is no password in it, not even hashed.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = User)]
pub(super) struct Document {
    #[serde(rename = "_id")]
    #[schema(value_type = super::api::schema::ObjectId)]
    id: ExtendedId,
    #[schema(value_type = String)]
    name: UserName,
    email: String,
    created_at: String,
    /// In the organization that is asked about.
    #[schema(value_type = Vec<Role>)]
    roles: Roles,
}

/// Somebody who is to become a user.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub name: UserName,
    pub password: Password,
    pub email: String,
    pub created_at: Option<String>,
    pub organization: Id,
    pub roles: Roles,
}

/// What becomes different; `None` stays as it is.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub email: Option<String>,
    /// In this organization.
    pub roles: Option<(Id, Roles)>,
    pub password: Option<Password>,
}

impl User {
    /// With the roles that the user has in this organization.
    pub(super) fn document(&self, organization: Id) -> Document {
        Document {
            id: self.id.into(),
            name: self.name.clone(),
            email: self.email.clone(),
            created_at: self.created_at.clone(),
            roles: self.memberships.get(&organization).cloned().unwrap_or_default(),
        }
    }
}

impl Root {
    pub(super) async fn user(&self, name: &UserName) -> Result<Option<User>, StoreError> {
        Ok(self.store.get::<User>(&key::user(name.as_str())).await?.map(|entry| entry.value))
    }

    pub(super) async fn users(&self) -> Result<Vec<User>, StoreError> {
        let listed = self.store.list::<User>(key::USERS).await?;
        Ok(listed.into_iter().map(|(_, entry)| entry.value).collect())
    }

    pub(super) async fn create_user(&self, newcomer: Newcomer) -> Result<User, Failure> {
        let Newcomer { name, password, email, created_at, organization, roles } = newcomer;
        let user = User {
            id: object_id::new(),
            name,
            email,
            created_at: created_at.unwrap_or_else(|| clock::day_and_minute(clock::now())),
            memberships: BTreeMap::from([(organization, roles)]),
            password_hash: self.gate.hash(password.chosen()?).await?,
            epoch: 0,
            insecure: false,
        };
        let user_key = key::user(user.name.as_str());
        let transaction = Transaction::new().expect_absent(&user_key).put(&user_key, &user);
        match self.store.commit(transaction).await {
            Err(StoreError::Conflict { .. }) => {
                Err(Failure::Conflict(format!("A user named {} exists already.", user.name)))
            }
            other => other.map(|()| user).map_err(Failure::from),
        }
    }

    pub(super) async fn change_user(&self, name: &UserName, change: Change) -> Result<(), Failure> {
        let password_hash = match change.password {
            Some(password) => Some(self.gate.hash(password.chosen()?).await?),
            None => None,
        };
        if let Some((_, roles)) = &change.roles
            && name.as_str() == ADMIN
            && !roles.contains(&Role::Admin)
        {
            return Err(Failure::Conflict("The user Admin keeps the role Admin.".to_owned()));
        }
        self.update_user(name, |user| {
            if let Some(email) = &change.email {
                user.email.clone_from(email);
            }
            if let Some((organization, roles)) = &change.roles {
                user.memberships.insert(*organization, roles.clone());
            }
            if let Some(hash) = &password_hash {
                user.set_password(hash.clone());
            }
        })
        .await
    }

    pub(super) async fn set_password(&self, name: &UserName, password: Password) -> Result<(), Failure> {
        self.change_user(name, Change { password: Some(password), ..Change::default() }).await
    }

    async fn update_user(&self, name: &UserName, change: impl Fn(&mut User)) -> Result<(), Failure> {
        let is_there = self
            .store
            .update(&key::user(name.as_str()), |user: Option<User>| {
                let changed = user.map(|mut user| {
                    change(&mut user);
                    user
                });
                let is_there = changed.is_some();
                (changed, is_there)
            })
            .await?;
        if is_there { Ok(()) } else { Err(Failure::no_user(name)) }
    }

    /// A user who has applications stays: whoever gets the name next must not get them.
    pub(super) async fn delete_user(&self, name: &UserName) -> Result<(), Failure> {
        if name.as_str() == ADMIN {
            return Err(Failure::Conflict("The user Admin cannot be deleted.".to_owned()));
        }
        let user_key = key::user(name.as_str());
        let Entry { revision, .. } =
            self.store.get::<User>(&user_key).await?.ok_or_else(|| Failure::no_user(name))?;
        let count = self.applications().await?.iter().filter(|one| one.owner == name.as_str()).count();
        if count > 0 {
            return Err(Failure::Conflict(format!(
                "{name} still has applications, {count} in number: delete them first."
            )));
        }
        let transaction = Transaction::new().expect(&user_key, Some(revision)).delete(&user_key);
        self.store.commit(transaction).await.map_err(Failure::of_commit)
    }
}

impl Password {
    /// Itself, if somebody may choose it.
    pub(super) fn chosen(self) -> Result<Self, Failure> {
        if self.is_acceptable() {
            Ok(self)
        } else {
            let (min, max) = (password::MIN, password::MAX);
            Err(Failure::Malformed(format!("A password has {min} to {max} bytes.")))
        }
    }
}
