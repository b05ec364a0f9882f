//! Roles: what a user may do in an organization. The names are those that Oakestra's dashboard knows.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
pub enum Role {
    /// Everything, in every organization.
    Admin,
    /// The users of the own organization, and everything that belongs to it.
    #[serde(rename = "Organization_Admin")]
    OrganizationAdmin,
    /// Own applications.
    #[serde(rename = "Application_Provider")]
    ApplicationProvider,
    /// Clusters, and no applications.
    #[serde(rename = "Infrastructure_Provider")]
    InfrastructureProvider,
}

/// In a fixed order, each once.
pub type Roles = BTreeSet<Role>;

impl Role {
    pub const ALL: [Self; 4] =
        [Self::Admin, Self::OrganizationAdmin, Self::ApplicationProvider, Self::InfrastructureProvider];
}

/// Reads roles as clients write them: by name, or as objects with a name, as Oakestra's dashboard once did.
///
/// # Errors
/// When there is something else, or no such role.
pub(super) fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Roles, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "the name of a role: one of Admin, Organization_Admin, Application_Provider, Infrastructure_Provider"
    )]
    enum Written {
        Name(Role),
        Described { name: Role },
    }
    let written = Vec::<Written>::deserialize(deserializer)?;
    Ok(written.into_iter().map(|(Written::Name(name) | Written::Described { name })| name).collect())
}

/// As [`written`], where the key may be missing.
///
/// # Errors
/// As [`written`].
pub(super) fn written_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Roles>, D::Error> {
    written(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::{Role, Roles};

    #[derive(Deserialize)]
    struct Body {
        #[serde(deserialize_with = "super::written")]
        roles: Roles,
    }

    #[test]
    fn roles_are_read_by_name_and_in_the_dashboard_s_older_form() {
        let both =
            json!({ "roles": ["Application_Provider", { "name": "Admin", "description": "x" }, "Admin"] });
        let roles = Body::deserialize(both).unwrap().roles;
        assert_eq!(roles, Roles::from([Role::Admin, Role::ApplicationProvider]));
        assert!(Body::deserialize(json!({ "roles": ["Emperor"] })).is_err());
    }
}
