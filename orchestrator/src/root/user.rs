//! A user as the root keeps it.

use std::collections::BTreeMap;
use std::fmt;

use protocol::id::Id;
use serde::{Deserialize, Serialize};

use super::password::Hash;
use super::role::{Role, Roles};

const NAME_MAX: usize = 64;

/// What a user logs in with: 1 to 64 letters, digits and `.`, `_`, `-`, `@`, `+`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a user name has 1 to {NAME_MAX} letters, digits and . _ - @ +, and begins with a letter or a digit")]
pub struct InvalidUserName;

/// A user as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct User {
    /// Another one if a user of the same name was deleted before.
    pub id: Id,
    pub name: UserName,
    pub email: String,
    /// As clients write it.
    pub created_at: String,
    /// Roles by organization.
    pub memberships: BTreeMap<Id, Roles>,
    pub password_hash: Hash,
    /// Grows when tokens that were given before must no longer be good.
    pub epoch: u64,
    /// The password came from `--insecure-admin-password`, and goes when that flag does.
    pub insecure: bool,
}

/// Also in the first layout, of one user in one organization.
#[derive(Deserialize)]
struct Stored {
    id: Id,
    name: UserName,
    #[serde(default)]
    email: String,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    memberships: BTreeMap<Id, Roles>,
    password_hash: Hash,
    #[serde(default)]
    epoch: u64,
    insecure: bool,
    organization: Option<Id>,
    roles: Option<Roles>,
}

impl From<Stored> for User {
    fn from(stored: Stored) -> Self {
        let mut memberships = stored.memberships;
        if let (Some(organization), Some(roles)) = (stored.organization, stored.roles) {
            memberships.insert(organization, roles);
        }
        Self {
            id: stored.id,
            name: stored.name,
            email: stored.email,
            created_at: stored.created_at,
            memberships,
            password_hash: stored.password_hash,
            epoch: stored.epoch,
            insecure: stored.insecure,
        }
    }
}

impl User {
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.memberships.values().any(|roles| roles.contains(&Role::Admin))
    }

    /// Sets a new password; tokens that were given for the old one are good no longer.
    pub fn set_password(&mut self, hash: Hash) {
        self.password_hash = hash;
        self.epoch += 1;
        self.insecure = false;
    }
}

impl UserName {
    /// The user that is always there.
    #[must_use]
    pub fn admin() -> Self {
        Self(super::admin::ADMIN.to_owned())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UserName {
    type Error = InvalidUserName;

    fn try_from(text: String) -> Result<Self, InvalidUserName> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
        let begins_well = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        if begins_well && text.len() <= NAME_MAX && text.bytes().all(is_name) {
            Ok(Self(text))
        } else {
            Err(InvalidUserName)
        }
    }
}

impl TryFrom<&str> for UserName {
    type Error = InvalidUserName;

    fn try_from(text: &str) -> Result<Self, InvalidUserName> {
        text.to_owned().try_into()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Role, Roles, User, UserName};

    #[test]
    fn a_name_is_safe_in_paths_and_keys() {
        for good in ["Admin", "a", "jane.doe@example.org", "x+y_z-1"] {
            assert!(UserName::try_from(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", ".x", "a b", "ü", "a\n", &"x".repeat(65)] {
            assert!(UserName::try_from(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_user_of_the_first_layout_is_read_with_its_roles() {
        let organization = crate::object_id::new();
        let stored = json!({
            "id": crate::object_id::new(), "name": "Admin", "roles": ["Admin", "Infrastructure_Provider"],
            "organization": organization, "password_hash": "$argon2id$…", "insecure": false,
        });
        let user: User = serde_json::from_value(stored).unwrap();
        let roles = Roles::from([Role::Admin, Role::InfrastructureProvider]);
        assert_eq!(user.memberships[&organization], roles);
        let again: User = serde_json::from_value(serde_json::to_value(&user).unwrap()).unwrap();
        assert_eq!(again, user);
    }

    #[test]
    fn the_hash_does_not_appear_in_debug_output() {
        let user: User = serde_json::from_value(json!({
            "id": crate::object_id::new(), "name": "x", "password_hash": "secret", "insecure": false,
        }))
        .unwrap();
        assert!(!format!("{user:?}").contains("secret"));
    }
}
