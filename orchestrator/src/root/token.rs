//! Tokens: what a client shows after it has logged in. JWT, signed by this root (RS256).
//!
//! Pure: whether a token that was good when it was given has been revoked since is for [`super::session`] to say.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use protocol::id::Id;
use serde::{Deserialize, Serialize};

use super::role::Roles;
use super::signing_key::{KeyError, KeyPair};
use super::user::UserName;

/// How long an access token is good. Clients log in again or refresh when it ends.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(10 * 60);
pub const REFRESH_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a token says; all of it is signed. The first keys are those that Oakestra's dashboard decodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub sub: UserName,
    /// The same as `sub`.
    pub user: UserName,
    /// For clients to show. What counts is what the user is when the token is used.
    pub roles: Roles,
    /// The organization that the user logged in to.
    pub organization: Id,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub fresh: bool,
    pub iat: u64,
    pub nbf: u64,
    pub exp: u64,
    pub jti: String,
    pub csrf: String,
    /// Id of the user: the name may once belong to somebody else.
    pub uid: Id,
    /// That of the user when the token was given.
    pub epoch: u64,
    /// Shared by all tokens that come of one login.
    pub family: String,
    /// How many refresh tokens of the family came before.
    pub turn: u32,
}

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Access,
    /// Once, for new tokens only.
    Refresh,
}

/// Who a token is for.
#[derive(Debug, Clone)]
pub struct Subject {
    pub name: UserName,
    pub id: Id,
    pub roles: Roles,
    pub organization: Id,
    pub epoch: u64,
    pub family: String,
    pub turn: u32,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("The token has expired: log in again.")]
    Expired,
    #[error("The token is not one of this root: log in again.")]
    Invalid,
    #[error("An {expected} token is needed here, this is another kind.")]
    Kind { expected: &'static str },
    #[error("The token was revoked: log in again.")]
    Revoked,
    #[error("The refresh token was used before, so that all tokens of its login are revoked: log in again.")]
    Reused,
    #[error("The token could not be signed.")]
    Sign,
}

/// Makes and checks tokens.
#[derive(Clone)]
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Tokens {
    /// # Errors
    /// When it is no key pair.
    pub fn new(pair: &KeyPair) -> Result<Self, KeyError> {
        let (encoding, decoding) = pair.keys()?;
        Ok(Self { encoding, decoding })
    }

    /// A token of this kind. `now`: seconds since the epoch.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn issue(&self, kind: Kind, subject: &Subject, now: u64) -> Result<String, TokenError> {
        let lifetime = match kind {
            Kind::Access => ACCESS_LIFETIME,
            Kind::Refresh => REFRESH_LIFETIME,
        };
        let claims = Claims {
            sub: subject.name.clone(),
            user: subject.name.clone(),
            roles: subject.roles.clone(),
            organization: subject.organization,
            kind,
            fresh: kind == Kind::Access && subject.turn == 0,
            iat: now,
            nbf: now,
            exp: now + lifetime.as_secs(),
            jti: random_text(),
            csrf: random_text(),
            uid: subject.id,
            epoch: subject.epoch,
            family: subject.family.clone(),
            turn: subject.turn,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.encoding)
            .map_err(|_unsigned| TokenError::Sign)
    }

    /// What the token says, if it is ours, of this kind and has not run out.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self, token: &str, kind: Kind) -> Result<Claims, TokenError> {
        // The only algorithm that is accepted is the one that is used: not what the token says of itself.
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_nbf = true;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?
            .claims;
        if claims.kind == kind {
            Ok(claims)
        } else {
            Err(TokenError::Kind {
                expected: match kind {
                    Kind::Access => "access",
                    Kind::Refresh => "refresh",
                },
            })
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// 128 random bits.
pub(super) fn random_text() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header};

    use super::{Claims, Kind, REFRESH_LIFETIME, Subject, TokenError, Tokens};
    use crate::root::role::{Role, Roles};
    use crate::root::signing_key::KeyPair;
    use crate::root::user::UserName;

    static PAIR: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

    fn tokens() -> Tokens {
        Tokens::new(&PAIR).unwrap()
    }

    fn subject() -> Subject {
        Subject {
            name: UserName::admin(),
            id: crate::object_id::new(),
            roles: Roles::from([Role::Admin]),
            organization: crate::object_id::new(),
            epoch: 3,
            family: "f".to_owned(),
            turn: 0,
        }
    }

    fn issue(tokens: &Tokens, kind: Kind, at: u64) -> String {
        tokens.issue(kind, &subject(), at).unwrap()
    }

    fn now() -> u64 {
        crate::clock::seconds()
    }

    #[test]
    fn a_token_says_who_it_was_issued_to() {
        let claims = tokens().check(&issue(&tokens(), Kind::Access, now()), Kind::Access).unwrap();
        assert_eq!((claims.sub.as_str(), claims.user.as_str()), ("Admin", "Admin"));
        assert_eq!(claims.exp - claims.iat, 600);
    }

    #[test]
    fn a_token_of_another_root_an_expired_and_a_refresh_token_are_refused() {
        let other = Tokens::new(&KeyPair::generate().unwrap()).unwrap();
        let foreign = issue(&other, Kind::Access, now());
        assert_eq!(tokens().check(&foreign, Kind::Access), Err(TokenError::Invalid));
        let old = issue(&tokens(), Kind::Refresh, now() - REFRESH_LIFETIME.as_secs() - 100);
        assert_eq!(tokens().check(&old, Kind::Refresh), Err(TokenError::Expired));
        let refresh = issue(&tokens(), Kind::Refresh, now());
        assert_eq!(tokens().check(&refresh, Kind::Access), Err(TokenError::Kind { expected: "access" }));
        assert_eq!(tokens().check("a.b.c", Kind::Access), Err(TokenError::Invalid));
    }

    #[test]
    fn the_algorithm_that_a_token_names_is_not_believed() {
        let token = issue(&tokens(), Kind::Access, now());
        let payload = token.split('.').nth(1).unwrap();
        // {"alg":"none","typ":"JWT"}
        let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
        assert_eq!(tokens().check(&unsigned, Kind::Access), Err(TokenError::Invalid));
        // A symmetric signature by what everybody may know.
        let claims: Claims =
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        let symmetric = EncodingKey::from_secret(b"public");
        let forged = jsonwebtoken::encode(&Header::default(), &claims, &symmetric).unwrap();
        assert_eq!(tokens().check(&forged, Kind::Access), Err(TokenError::Invalid));
    }
}
