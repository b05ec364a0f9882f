//! What a caller may do. Pure. The only place that decides it: each route has a [`Rule`] (see the table in
//! [`super::api`]), and what belongs to somebody is judged by [`Caller`].
//!
//! What a caller must not see is not found: who may not read an application learns not even that it exists.

use protocol::id::Id;

use super::failure::Failure;
use super::role::{Role, Roles};
use super::user::{User, UserName};

/// Who asks: somebody with a good access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub name: UserName,
    pub id: Id,
    /// The one that the caller logged in to.
    pub organization: Id,
    /// In that organization.
    pub roles: Roles,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Also who has no token.
    Anyone,
    /// Who shows a good refresh token: the handler takes it, and with it is done.
    Refresher,
    /// The user whom the path names.
    Self_,
    /// The user whom the path names, and those who have one of these roles.
    SelfOr(&'static [Role]),
    /// Those who have one of these roles.
    One(&'static [Role]),
}

/// Those who look after users.
pub const ADMINISTRATORS: &[Role] = &[Role::Admin, Role::OrganizationAdmin];
/// Those who have applications, or look after them.
pub const APPLICATIONS: &[Role] = &[Role::Admin, Role::OrganizationAdmin, Role::ApplicationProvider];
pub const ADMIN: &[Role] = &[Role::Admin];
/// Those who look after machines.
pub const INFRASTRUCTURE: &[Role] = &[Role::Admin, Role::InfrastructureProvider];
pub const EVERYBODY: &[Role] = &Role::ALL;

impl Rule {
    #[must_use]
    pub fn needs_token(self) -> bool {
        self != Self::Anyone
    }

    /// Whether the caller may use the route; `named` is the user whom its path names, if it names one.
    pub(super) fn check(self, caller: &Caller, named: Option<&str>) -> Result<(), Failure> {
        let is_self = named == Some(caller.name.as_str());
        let has_one = |roles: &[Role]| roles.iter().any(|role| caller.roles.contains(role));
        match self {
            Self::Anyone => Ok(()),
            Self::Refresher => Err(Failure::NoToken),
            Self::Self_ if is_self => Ok(()),
            Self::SelfOr(roles) if is_self || has_one(roles) => Ok(()),
            Self::One(roles) if has_one(roles) => Ok(()),
            Self::Self_ => Err(Failure::Forbidden("it is for the user alone")),
            Self::SelfOr(_) | Self::One(_) => Err(Failure::Forbidden("your roles do not allow it")),
        }
    }
}

impl Caller {
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.roles.contains(&Role::Admin)
    }

    fn looks_after(&self, organization: Id) -> bool {
        self.roles.contains(&Role::OrganizationAdmin) && organization == self.organization
    }

    /// Whether the caller may see and change what this user has in this organization.
    #[must_use]
    pub fn may_use(&self, owner: &str, organization: Id) -> bool {
        self.is_admin() || self.looks_after(organization) || owner == self.name.as_str()
    }

    /// Whether the caller may see this organization and who is in it.
    #[must_use]
    pub fn may_see_organization(&self, organization: Id) -> bool {
        self.is_admin() || self.looks_after(organization)
    }

    /// Whether the caller may see this user.
    #[must_use]
    pub fn may_see(&self, user: &User) -> bool {
        let is_colleague = user.memberships.contains_key(&self.organization);
        user.id == self.id || self.is_admin() || (self.looks_after(self.organization) && is_colleague)
    }

    /// Whether the caller may change or delete this user. An organization's admin may not where the user has rights
    /// beyond the organization: with the password come all of them.
    #[must_use]
    pub fn may_change(&self, user: &User) -> bool {
        let is_ours_alone = !user.memberships.is_empty()
            && user.memberships.keys().all(|organization| self.looks_after(*organization));
        self.is_admin() || (is_ours_alone && !user.is_admin())
    }

    /// Only an admin makes admins.
    ///
    /// # Errors
    /// When the caller may not give one of these roles.
    pub(super) fn may_grant(&self, roles: &Roles) -> Result<(), Failure> {
        if self.is_admin() || !roles.contains(&Role::Admin) {
            Ok(())
        } else {
            Err(Failure::Forbidden("only an Admin makes an Admin"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Caller, Id, Role, Roles, Rule, User, UserName};
    use crate::root::password::Password;

    const OURS: Id = Id::from_bytes([1; 12]);
    const THEIRS: Id = Id::from_bytes([2; 12]);

    fn caller(role: Role) -> Caller {
        let name = UserName::try_from("jane").unwrap();
        Caller { name, id: Id::from_bytes([9; 12]), organization: OURS, roles: Roles::from([role]) }
    }

    fn user(memberships: &[(Id, Role)]) -> User {
        User {
            id: Id::from_bytes([8; 12]),
            name: UserName::try_from("john").unwrap(),
            email: String::new(),
            created_at: String::new(),
            memberships: memberships
                .iter()
                .map(|(organization, role)| (*organization, Roles::from([*role])))
                .collect::<BTreeMap<_, _>>(),
            password_hash: Password::from("x").hash().unwrap(),
            epoch: 0,
            insecure: false,
        }
    }

    #[test]
    fn what_belongs_to_somebody_is_for_them_and_for_those_who_look_after_them() {
        for (role, ours, theirs) in [
            (Role::Admin, true, true),
            (Role::OrganizationAdmin, true, false),
            (Role::ApplicationProvider, false, false),
            (Role::InfrastructureProvider, false, false),
        ] {
            assert_eq!(caller(role).may_use("john", OURS), ours, "{role:?}");
            assert_eq!(caller(role).may_use("john", THEIRS), theirs, "{role:?}");
            assert!(caller(role).may_use("jane", THEIRS));
        }
    }

    #[test]
    fn an_organization_s_admin_gets_no_rights_beyond_it() {
        let boss = caller(Role::OrganizationAdmin);
        assert!(boss.may_change(&user(&[(OURS, Role::ApplicationProvider)])));
        assert!(!boss.may_change(&user(&[(OURS, Role::Admin)])));
        assert!(
            !boss
                .may_change(&user(&[(OURS, Role::ApplicationProvider), (THEIRS, Role::ApplicationProvider)]))
        );
        assert!(!boss.may_change(&user(&[])));
        assert!(boss.may_grant(&Roles::from([Role::Admin])).is_err());
        assert!(boss.may_grant(&Roles::from([Role::OrganizationAdmin])).is_ok());
    }

    #[test]
    fn a_rule_that_names_the_user_admits_nobody_else() {
        let provider = caller(Role::ApplicationProvider);
        assert!(Rule::Self_.check(&provider, Some("jane")).is_ok());
        assert!(Rule::Self_.check(&provider, Some("john")).is_err());
        assert!(Rule::Self_.check(&provider, None).is_err());
        assert!(Rule::Self_.check(&caller(Role::Admin), Some("john")).is_err());
        assert!(Rule::SelfOr(super::ADMIN).check(&caller(Role::Admin), Some("john")).is_ok());
    }
}
