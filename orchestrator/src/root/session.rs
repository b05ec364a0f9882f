//! Logins: who shows which tokens, and which tokens are good no longer.
//!
//! All tokens that come of one login are a family. A refresh token is good once and gives the next one; a second use
//! means that two have it, and neither can be told from the thief: the family is revoked. Until a family's first
//! refresh nothing is stored of it, so that clients which log in for each command leave nothing behind. A new password,
//! or the end of the user, revokes everything by [`User::epoch`] and [`User::id`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::id::Id;
use serde::{Deserialize, Serialize};

use super::access::Caller;
use super::failure::Failure;
use super::limit::Limit;
use super::password::Password;
use super::role::Roles;
use super::token::{self, Claims, Kind, Subject, TokenError};
use super::user::{User, UserName};
use super::{Root, key};
use crate::clock;
use crate::http::Peer;

/// Failed logins that are let through at once, and then a minute, of one user.
const OF_USER: (u32, u32) = (10, 5);
/// The same of one address, behind which there may be many people.
const OF_ADDRESS: (u32, u32) = (40, 20);

/// The two tokens of a login.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct TokenPair {
    /// Good for ten minutes. Sent as `Authorization: Bearer <token>`.
    token: String,
    /// Good for seven days, once, for new tokens only.
    refresh_token: String,
}

/// How far a family of tokens is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Family {
    /// The turn of the refresh token that is good now.
    turn: u32,
    revoked: bool,
    /// When its last token runs out, in seconds since the epoch.
    until: u64,
}

/// Who tries to log in how often.
#[derive(Debug)]
pub(super) struct Attempts {
    users: Mutex<Limit<String>>,
    addresses: Mutex<Limit<std::net::IpAddr>>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new(OF_USER, OF_ADDRESS)
    }
}

impl Attempts {
    pub(super) fn new(of_user: (u32, u32), of_address: (u32, u32)) -> Self {
        Self {
            users: Mutex::new(Limit::new(of_user.0, of_user.1)),
            addresses: Mutex::new(Limit::new(of_address.0, of_address.1)),
        }
    }

    /// Counts a try; how long to wait if there were too many.
    pub(super) fn begin(&self, user: &str, peer: Peer) -> Result<(), Duration> {
        let now = clock::moment().steady;
        let (user, address) = (bounded(user), network(peer));
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = users.wait(&user, now).max(addresses.wait(&address, now)) {
            return Err(wait);
        }
        users.take(&user, now);
        addresses.take(&address, now);
        Ok(())
    }

    /// The try was a good one.
    pub(super) fn succeeded(&self, user: &str, peer: Peer) {
        let now = clock::moment().steady;
        self.users.lock().unwrap_or_else(PoisonError::into_inner).give_back(&bounded(user), now);
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).give_back(&network(peer), now);
    }
}

/// No longer than a name can be: what is remembered of somebody who tries must not be large.
fn bounded(user: &str) -> String {
    user.chars().take(65).collect()
}

/// Whoever has an IPv6 address has its /64.
fn network(peer: Peer) -> std::net::IpAddr {
    match peer.0.ip().to_canonical() {
        std::net::IpAddr::V6(address) => {
            std::net::Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()
        }
        v4 @ std::net::IpAddr::V4(_) => v4,
    }
}

impl Root {
    /// Logs a user in to an organization: the one that is named, else `root`, else the first that the user is in.
    pub(super) async fn log_in(
        &self,
        name: &str,
        password: Password,
        organization: Option<&str>,
        peer: Peer,
    ) -> Result<TokenPair, Failure> {
        self.attempts.begin(name, peer).map_err(Failure::TooMany)?;
        let user = self.verified(name, password).await?.ok_or(Failure::Credentials)?;
        self.attempts.succeeded(name, peer);
        let organization = match organization {
            Some(named) => {
                self.organization_named(named).await?.ok_or_else(|| Failure::no_organization(named))?
            }
            None => self.default_organization(&user)?,
        };
        let roles = user
            .memberships
            .get(&organization)
            .cloned()
            .ok_or(Failure::Forbidden("you are no member of this organization"))?;
        self.tokens_for(&user, organization, roles, token::random_text(), 0)
    }

    fn default_organization(&self, user: &User) -> Result<Id, Failure> {
        let root = Some(self.root_organization).filter(|root| user.memberships.contains_key(root));
        root.or_else(|| user.memberships.keys().next().copied())
            .ok_or(Failure::Forbidden("you are a member of no organization"))
    }

    /// The user of this name, if the password is theirs. Takes as long for a name that nobody has.
    pub(super) async fn verified(&self, name: &str, password: Password) -> Result<Option<User>, Failure> {
        let known = match UserName::try_from(name) {
            Ok(name) => self.user(&name).await?,
            Err(_nobody) => None,
        };
        let hash = known.as_ref().map(|user| user.password_hash.clone());
        let accepted = self.gate.check(hash, password).await;
        Ok(known.filter(|_| accepted))
    }

    fn tokens_for(
        &self,
        user: &User,
        organization: Id,
        roles: Roles,
        family: String,
        turn: u32,
    ) -> Result<TokenPair, Failure> {
        let subject = Subject {
            name: user.name.clone(),
            id: user.id,
            roles,
            organization,
            epoch: user.epoch,
            family,
            turn,
        };
        let now = clock::seconds();
        Ok(TokenPair {
            token: self.tokens.issue(Kind::Access, &subject, now)?,
            refresh_token: self.tokens.issue(Kind::Refresh, &subject, now)?,
        })
    }

    /// New tokens for a refresh token, which is good no longer then.
    pub(super) async fn refresh(&self, refresh_token: &str) -> Result<TokenPair, Failure> {
        let claims = self.tokens.check(refresh_token, Kind::Refresh)?;
        let (user, roles) = self.holder(&claims).await?;
        let turn = if self.reusable_refresh_tokens { claims.turn } else { self.next_turn(&claims).await? };
        self.tokens_for(&user, claims.organization, roles, claims.family, turn)
    }

    async fn next_turn(&self, claims: &Claims) -> Result<u32, Failure> {
        let until = clock::seconds() + token::REFRESH_LIFETIME.as_secs();
        let next = self
            .store
            .update(&key::token_family(&claims.family), |family: Option<Family>| {
                let good = match &family {
                    None => claims.turn == 0,
                    Some(family) => !family.revoked && family.turn == claims.turn,
                };
                if good {
                    let turn = claims.turn + 1;
                    (Some(Family { turn, revoked: false, until }), Ok(turn))
                } else {
                    let turn = family.map_or(claims.turn, |family| family.turn);
                    (Some(Family { turn, revoked: true, until }), Err(TokenError::Reused))
                }
            })
            .await?;
        if next.is_err() {
            tracing::warn!(user = %claims.sub, "a refresh token was used twice: all tokens of its login are revoked");
        }
        Ok(next?)
    }

    /// Who shows this access token.
    pub(super) async fn caller(&self, access_token: &str) -> Result<Caller, Failure> {
        let claims = self.tokens.check(access_token, Kind::Access)?;
        let (user, roles) = self.holder(&claims).await?;
        Ok(Caller { name: user.name, id: user.id, organization: claims.organization, roles })
    }

    /// The user whom a token is for, with the roles of now, unless it was revoked.
    async fn holder(&self, claims: &Claims) -> Result<(User, Roles), Failure> {
        let family = self.store.get::<Family>(&key::token_family(&claims.family)).await?;
        if family.is_some_and(|family| family.value.revoked) {
            return Err(TokenError::Revoked.into());
        }
        let user = self.user(&claims.sub).await?;
        let user = user.filter(|user| user.id == claims.uid && user.epoch == claims.epoch);
        let user = user.ok_or(TokenError::Revoked)?;
        let roles = user.memberships.get(&claims.organization).cloned().ok_or(TokenError::Revoked)?;
        Ok((user, roles))
    }

    /// Forgets families whose last token has run out.
    pub(super) async fn forget_families(&self) -> Result<(), Failure> {
        let now = clock::seconds();
        for (key, entry) in self.store.list::<Family>(key::TOKEN_FAMILIES).await? {
            if entry.value.until < now {
                self.store.delete(&key).await?;
            }
        }
        Ok(())
    }
}
